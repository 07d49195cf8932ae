"""Functions and classes of the user given as objects."""

import importlib
import subprocess
import sys

import pytest

import pesfkd
from pesfkd.own_code import reference_to
from study.plan.user_code import code_names
from tests.user_data import COLUMNS, DATA, new_data_process
from tests.user_nets import write_net
from trainables.process.errors import UsageError
from trainables.user_code.loading import canonical_name

pytestmark = pytest.mark.study


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Return the user's module `net`, imported as in a notebook. `data` lies next to it."""
    write_net(tmp_path, data=DATA, columns=COLUMNS)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("net", "blocks", "data", "columns"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with new_data_process():
        yield importlib.import_module("net")
    for name in ("net", "blocks", "data", "columns"):
        sys.modules.pop(name, None)


def test_objects_stand_for_their_files(mine, tmp_path):
    data = importlib.import_module("data")
    given = {"student": mine.make, "teacher": mine.Net, "dataset": data.make}
    named = {"student": "net.py:make", "teacher": "net.py:Net", "dataset": "data.py:make"}
    plans = [
        pesfkd.plan(space="adapter_width", name="own", output_dir=tmp_path / "out", **each).plan
        for each in (given, {option: f"{tmp_path}/{text}" for option, text in named.items()})
    ]
    assert plans[0].base == plans[1].base
    assert set(code_names(plans[0])) == {canonical_name(f"{tmp_path}/{text}") for text in named.values()}
    searched = pesfkd.plan(space="none", method="kd", search={"student": [mine.make, "cnn_3_4"]}, output_dir=tmp_path)
    assert searched.plan.students == (canonical_name(f"{tmp_path}/net.py:make"), "cnn_3_4")


def test_what_other_processes_cannot_import_is_refused_with_what_to_do(mine, monkeypatch, tmp_path):
    def inner(num_classes, in_channels):
        return mine.make(num_classes, in_channels)

    for found in (inner, lambda **_: None, mine.Net.forward):
        with pytest.raises(UsageError, match=r"top of a file.*%%writefile"):
            pesfkd.plan(space="adapter_width", student=found, output_dir=tmp_path / "out")
    monkeypatch.setattr(mine.make, "__module__", "__main__")
    with pytest.raises(UsageError, match=r"make is defined in the running notebook or script.*'FILE.py:NAME'"):
        pesfkd.plan(space="adapter_width", student=mine.make, output_dir=tmp_path / "out")
    made = mine.make
    monkeypatch.setattr(made, "__module__", "net")
    monkeypatch.setattr(mine, "make", mine.plain)
    assert reference_to(mine.Net) == f"{tmp_path}/net.py:Net"
    with pytest.raises(UsageError, match="make is not what the module net defines"):
        reference_to(made)
    assert not (tmp_path / "out").exists()


SCRIPT = """
import pesfkd
from net import Net


def make(num_classes, in_channels):
    return Net(num_classes, in_channels)


try:
    pesfkd.plan(space="adapter_width", student=make)
except pesfkd.UsageError as error:
    print("object:", error)
pesfkd.run(space="adapter_width", student=__file__ + ":make", executor="in-process", quiet=True)
"""


@pytest.mark.launcher
def test_a_script_that_starts_a_study_by_its_own_function_is_told_how(mine, tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 1
    assert "object: make is defined in the running notebook or script" in done.stdout, done.stderr
    assert 'below `if __name__ == "__main__":`' in done.stderr
    assert not (tmp_path / "study_results").exists()
