"""Names that installed packages declare as entry points."""

import sys

import pytest

from study.cli.start_command import start_command
from study.launch import main as launch_main
from study.plan.own_code import with_canonical_code
from tests.study.typed import plan_of
from tests.user_methods import METHOD, SPACE
from tests.user_nets import NET, new_process, write_net
from trainables.process.errors import UsageError
from trainables.user_code import installed
from trainables.user_code.loading import canonical_name
from trainables.user_code.reference import canonical

DECLARED = {
    "pesfkd.methods": {"matching": "kdpack.method:METHOD", "broken": "kdpack.broken:METHOD", "none": "kdpack"},
    "pesfkd.spaces": {"powers": "kdpack.space:SPACE"},
    "pesfkd.models": {"tiny": "kdpack.net:plain"},
    "pesfkd.datasets": {"blobs": "kdpack.data:make"},
}


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Return a function that installs a distribution with entry points."""

    def add(declared=DECLARED, name="kd-pack", **files):
        folder = tmp_path / name
        package = folder / name.replace("-", "")
        package.mkdir(parents=True, exist_ok=True)
        contents = {"__init__": "", "method": METHOD, "space": SPACE, "broken": "import no_such_library\n",
                    "data": "def make():\n    return 1\n", **files}  # fmt: skip
        for file, text in contents.items():
            (package / f"{file}.py").write_text(text)
        write_net(package, NET.replace("from blocks", "from kdpack.blocks"))
        info = folder / f"{name.replace('-', '_')}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        groups = (f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in names.items())
                  for group, names in declared.items())  # fmt: skip
        (info / "entry_points.txt").write_text("\n".join(groups))
        monkeypatch.syspath_prepend(str(folder))
        installed._declared.cache_clear()

    with new_process():
        yield add
    for module in [each for each in sys.modules if each.partition(".")[0] in ("kdpack", "other")]:
        del sys.modules[module]
    installed._declared.cache_clear()


def options(**values):
    return with_canonical_code(values, dataset="digits")


def test_names_of_a_package_stand_for_its_objects(install):
    assert options(method="kd", space="temperature", student="cnn_3_4") == {
        "method": "kd", "space": "temperature", "student": "cnn_3_4",
    }  # fmt: skip
    install()
    found = options(method="matching", methods="ce,matching,matching+adapter", space="powers", student="tiny",
                    teacher="tiny", dataset="blobs", search=["student=tiny,cnn_3_4", "temperature=1:2"])  # fmt: skip
    method, net = canonical_name("kdpack.method:METHOD"), canonical_name("kdpack.net:plain")
    assert found == {
        "method": method, "methods": f"ce,{method},{method}+adapter", "space": canonical_name("kdpack.space:SPACE"),
        "student": net, "teacher": net, "dataset": canonical_name("kdpack.data:make"),
        "search": [f"student={net},cnn_3_4", "temperature=1:2"],
    }  # fmt: skip
    assert not any(name.partition(".")[0] == "kdpack" for name in sys.modules), "no package is imported"


@pytest.mark.study
def test_a_study_of_a_package_keeps_its_source_and_names_it_in_the_command(install, tmp_path):
    install()
    plan = plan_of(["--space", "powers", "--method", "matching", "--output-dir", str(tmp_path / "out")])
    assert canonical(plan.base.method).title == "kdpack.method"
    assert f"--method {plan.base.method}" in start_command(plan)
    again = options(method=plan.base.method)
    assert again["method"] == plan.base.method


def test_a_name_with_two_meanings_is_refused_with_the_package(install):
    install({"pesfkd.methods": {"dkd": "kdpack.method:METHOD"}, "pesfkd.models": {"resnet20": "kdpack.net:plain"},
             "pesfkd.spaces": {"joint": "kdpack.space:SPACE"}})  # fmt: skip
    assert options(method="kd", student="cnn_3_4")["method"] == "kd"
    for given, kind in (({"method": "dkd"}, "method"), ({"methods": "ce,dkd+adapter"}, "method"),
                        ({"student": "resnet20"}, "model"), ({"space": "joint"}, "space")):  # fmt: skip
        with pytest.raises(UsageError, match=rf"is a {kind} of pesfkd, and kd-pack 1.2 declares it too, in pesfkd"):
            options(**given)
    install({"pesfkd.methods": {"matching": "other.method:METHOD"}}, name="other")
    install({"pesfkd.methods": {"matching": "third.method:METHOD"}}, name="third")
    with pytest.raises(
        UsageError, match=r"several packages declare the method 'matching' .*: other 1.2 and third 1.2;"
    ):
        options(method="matching")


def test_a_broken_package_is_reported_only_where_it_is_named(install):
    install()
    assert options(method="broken")["method"].startswith("kdpack.broken:METHOD@")  # read, not run
    with pytest.raises(UsageError, match=r"kd-pack 1.2 declares the method 'none' as 'kdpack' in pesfkd.methods"):
        options(method="none")
    with pytest.raises(UsageError, match=r"--method: unknown method of an installed package 'machin'; did you mean "
                       "'matching'"):  # fmt: skip
        options(method="machin")
    install({"pesfkd.spaces": {"gone": "nowhere.space:SPACE"}}, name="lost")
    with pytest.raises(
        UsageError, match=r"--space: 'gone' of lost 1.2 cannot be used: there is no module nowhere.space"
    ):
        options(space="gone")


@pytest.mark.study
def test_the_error_of_a_package_shows_its_traceback(install, command, tmp_path):
    install()
    refused = command(launch_main, "--space", "temperature", "--method", "broken", "--output-dir", tmp_path / "out")
    assert refused.code == 2
    assert "--method: kdpack.broken cannot be imported:" in refused.err
    assert "ModuleNotFoundError: No module named 'no_such_library'" in refused.err
    assert not (tmp_path / "out").exists()
