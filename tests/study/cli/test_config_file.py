"""Options from a file: every notation gives the values that were written, and what is wrong is refused by its key."""

import json
from pathlib import Path

import pytest
import yaml

from study.cli.config_file import NOT_IN_A_FILE, key_of, read_config
from study.cli.config_text import config_text
from study.cli.configured import with_config
from study.confirm import OPTIONS_OF_CONFIRM as OF_CONFIRM
from study.launch import main as launcher
from study.plan.options import OPTIONS
from study.plan.plan import EXECUTION_FIELDS
from tests.study.typed import plan_of
from trainables.process.errors import UsageError

NAMES = [*OPTIONS]


def written(folder: Path, text: str, name: str = "study.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def read(folder: Path, text: str, name: str = "study.yaml") -> dict:
    return read_config(written(folder, text, name), NAMES)


SAME = {
    "space": "none", "trials": 12, "time_budget": 3600.0, "quiet": True, "hold": ["ce_weight=0.5"],
    "search": ["temperature=1:32:log", "adapter_kind=serial,parallel"], "max_concurrent": 2, "name": "a-study",
    "output_dir": Path("results"),
}  # fmt: skip
NOTATIONS = {
    "study.yaml": """
space: none
trials: 12
time-budget: 3.6e3
quiet: yes
set: {ce_weight: 0.5}
search:
  temperature: [1, 32, log]
  adapter_kind: [serial, parallel]
max_concurrent: 2
name: a-study
output_dir: results
confirm: null
seeds:
""",
    "study.toml": """
space = "none"
trials = 12
time_budget = 3600
quiet = true
max-concurrent = 2
name = "a-study"
output-dir = "results"
set = ["ce_weight=0.5"]
[search]
temperature = [1, 32, "log"]
adapter_kind = "serial,parallel"
""",
    "study.json": json.dumps(
        {
            "space": "none", "trials": 12, "time_budget": 3600, "quiet": True, "hold": {"ce_weight": 0.5},
            "search": {"temperature": "1:32:log", "adapter_kind": ["serial", "parallel"]}, "max_concurrent": "2",
            "name": "a-study", "output_dir": "results", "confirm": None,
        }
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NOTATIONS)
def test_every_notation_gives_the_same_options(name, tmp_path):
    assert read(tmp_path, NOTATIONS[name], name) == SAME


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        # What YAML 1.1 would make of these: False, 8, 90, a date, a string, 1000, infinity, None.
        ("name: no", "name", "no"),
        ("name: 010", "name", "010"),
        ("name: 1:30", "name", "1:30"),
        ("name: 2024-01-01", "name", "2024-01-01"),
        ("detect: 1e-3", "detect", 0.001),
        ("name: 1_000", "name", "1_000"),
        ("name: .inf", "name", ".inf"),
        ("name: 'null'", "name", "null"),
        ("name: 0x1F", "name", "0x1F"),
        ("seeds: 12", "seeds", "12"),
        ("pack: auto", "pack", "auto"),
        ("trials: 010", "trials", 10),
        ("quiet: on", "quiet", True),
        ("quiet: 'False'", "quiet", False),
        ("methods: ce,kd", "methods", "ce,kd"),
        ("methods: [ce, kd]", "methods", "ce,kd"),
        ("objectives: [val/accuracy, latency]", "objectives", "val/accuracy,latency"),
        ("teacher_checkpoint: [a.pth, b.pth]", "teacher_checkpoint", Path("a.pth,b.pth")),
        ("data_root: ~/data", "data_root", Path("~/data").expanduser()),
        ("cpus_per_trial: .25", "cpus_per_trial", 0.25),
        ("gpus_per_trial: .25", "gpus_per_trial", ".25"),
        ("gpus_per_trial: auto", "gpus_per_trial", "auto"),
        ("set: {adapter_clip: no, temperature: 1e1}", "hold", ["adapter_clip=no", "temperature=1e1"]),
        ("set: temperature=4", "hold", ["temperature=4"]),
        ("search: {ce_weight: [0, 1, linear]}", "search", ["ce_weight=0:1"]),
        ("search: {adapter_width: [2, 8, int]}", "search", ["adapter_width=2:8:int"]),
        ("search: {ce_weight: '0:1:0.25'}", "search", ["ce_weight=0:1:0.25"]),
        ("search: {batch_size: [16, 32, 64]}", "search", ["batch_size=16,32,64"]),
        ("search: {adapter_clip: [true, false]}", "search", ["adapter_clip=true,false"]),
        ("search: [temperature=1:32]", "search", ["temperature=1:32"]),
        ("a: &it {temperature: 4}\nset: *it".replace("a: ", "search: "), "hold", ["temperature=4"]),
    ],
)
def test_a_value_is_read_as_written_whatever_yaml_would_make_of_it(text, key, value, tmp_path):
    found = read(tmp_path, text)[key]
    assert found == value
    assert type(found) is type(value) or isinstance(value, Path)


def test_yaml_of_version_1_1_would_read_other_values():
    texts = ("no", "010", "1:30", "1e-3", "1_000", "0x1F")
    read_by_yaml = [yaml.safe_load(f"key: {text}")["key"] for text in texts]
    assert read_by_yaml == [False, 8, 90, "1e-3", 1000, 31]
    assert not isinstance(yaml.safe_load("key: 2024-01-01")["key"], str)


def test_folders_begin_at_home_as_a_shell_has_them(tmp_path):
    path = written(
        tmp_path, "storage_path: ~/there\nteacher_outputs_path: s3://bucket/~\ndataset: image_folder:~/photos\n"
    )
    values = {**{name: option.default for name, option in OPTIONS.items()}, "config": path}
    found, _ = with_config(values, {"config": path}, from_environment=())
    assert found["storage_path"] == str(Path.home() / "there")
    assert found["teacher_outputs_path"] == "s3://bucket/~"
    assert found["dataset"] == f"image_folder:{Path.home() / 'photos'}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trails: 3", "unknown option 'trails'; did you mean 'trials'"),
        ("trials: many", "trials: 'many' is given, and a whole number is allowed"),
        ("trials: 1.5", "trials: '1.5' is given, and a whole number is allowed"),
        ("trials: [1, 2]", r"trials: \['1', '2'\] is given, and a whole number is allowed"),
        ("teacher_epochs: 0", "teacher_epochs: '0' is given, and a whole number from 1 is allowed"),
        ("time_budget: soon", "time_budget: 'soon' is given, and a number is allowed"),
        ("time_budget: nan", "time_budget: 'nan' is given, and a number is allowed"),
        ("quiet: 2", "quiet: '2' is given, and true or false is allowed"),
        ("sampler: tpee", "sampler: 'tpee' is given, and one of tpe, random, qmc, gp, cmaes, nsga2 is allowed"),
        ("methods: []", r"methods: \[\] is given, and a text \(NAME,...\) or a list of such texts is allowed"),
        ("methods: ['ce,kd', dkd]", "a list of such texts is allowed"),
        ("name: [a, b]", r"name: \['a', 'b'\] is given, and a text is allowed"),
        ("name: {a: b}", r"name: \{'a': 'b'\} is given, and a text is allowed"),
        ("name: ''", "name: '' is given, and a text is allowed"),
        ("trials: 3\ntrials: 4", "the key 'trials' is given twice"),
        ("time-budget: 3\ntime_budget: 4", "'time-budget' and 'time_budget' are one option"),
        ("set: {temperature: 4}\nhold: {temperature: 4}", "'set' and 'hold' are one option"),
        ("config: a.yaml", "'config' can only be given on the command line"),
        ("search: {temperature: [1, 32]}", r"search.temperature: \[1, 32\] may be a range or two values"),
        ("search: {temperature: {low: 1}}", "allowed are a text and a list, such as"),
        ("search: {temperature: []}", r"search.temperature: \[\] is given"),
        ("search: [[1, 2]]", "allowed are a mapping, such as"),
        ("- space", "contains a list: give options by name"),
        ("space", "contains a single value"),
        ("", "contains nothing"),
        ("a: [", "is not YAML"),
        ("a: 1\n---\nb: 2", "is not YAML"),
        ("name: !!python/object/apply:os.system [ls]", "the tag .* is not allowed"),
        ("name: !own x", "the tag '!own' is not allowed"),
        ("set: {<<: {a: 1}}", "'<<' is not supported"),
        ("[1, 2]: 3", "a key is the name of an option"),
        (
            "a: &a [x]\n"
            + "\n".join(
                f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]" for old, new in zip("abcd", "bcde", strict=True)
            ),
            "too many for options",
        ),
        ("set: &a [*a]", "too many for options|nested too deeply"),
    ],
)
def test_what_is_wrong_in_a_file_is_refused_by_its_key(text, message, tmp_path):
    with pytest.raises(UsageError, match=message) as refused:
        read(tmp_path, text)
    assert str(refused.value).startswith("--config ")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.toml", "trials = 3\ntrials = 4", "is not TOML"),
        ("a.toml", "name = 2024-01-01", "is a date or a time, which no option takes: put it in quotes"),
        ("a.toml", "trials = 1e3", "trials: '1e3' is given, and a whole number is allowed"),
        ("a.json", '{"trials": 3, "trials": 4}', "the key 'trials' is given twice"),
        ("a.json", '{"trials": NaN}', "trials: 'NaN' is given"),
        ("a.json", '{"trials": ', "is not JSON"),
        ("a.json", "[" * 100_000, "nested too deeply|is not JSON"),
        ("a.txt", "trials: 3", "ends in .yaml, .yml, .toml or .json"),
        ("a.yaml", "# " + "x" * 1_000_001, "more than 1,000,000 bytes"),
    ],
)
def test_a_file_that_is_none_is_refused(name, text, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        read(tmp_path, text, name)


def test_a_byte_order_mark_and_a_name_in_capitals_are_no_obstacle(tmp_path):
    for name, text in (("A.YAML", "trials: 3\r\nquiet: on\r\n"), ("a.Json", '{"trials": 3, "quiet": true}')):
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + text.encode())
        assert read_config(tmp_path / name, NAMES) == {"trials": 3, "quiet": True}


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"cannot be read \(No such file"):
        read_config(tmp_path / "none.yaml", NAMES)
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(UsageError, match=r"cannot be read \(Is a directory"):
        read_config(tmp_path / "folder.yaml", NAMES)
    (tmp_path / "binary.yaml").write_bytes(b"space: \xff\xfe")
    with pytest.raises(UsageError, match="is not text"):
        read_config(tmp_path / "binary.yaml", NAMES)


def test_every_option_but_those_about_the_file_can_be_given_by_name(tmp_path):
    values = {"int": "3", "float": "0.5", "bool": "true", "Path": "there", "str": "text"}
    for option in OPTIONS.values():
        kind = next((each for each in values if each in str(option.type)), "str")
        text = (option.default or "no-gain") if "Literal" in str(option.type) else values[kind]
        for key in {option.name, key_of(option), key_of(option).replace("_", "-")}:
            if option.name in NOT_IN_A_FILE:
                with pytest.raises(UsageError, match="can only be given on the command line"):
                    read(tmp_path, f"{key}: {text}")
            else:
                assert read(tmp_path, f"{key}: {text}").keys() == {option.name}


def test_another_command_names_the_options_that_it_has(tmp_path):
    assert read_config(written(tmp_path, "seeds: 5"), OF_CONFIRM) == {"seeds": "5"}
    with pytest.raises(UsageError, match=r"'space' is no option of this command\. Known: confirm, seeds"):
        read_config(written(tmp_path, "space: joint"), OF_CONFIRM)


def test_the_command_line_overrides_the_file_and_the_file_the_environment(tmp_path):
    path = written(
        tmp_path,
        "space: joint\ntrials: 3\ndata_root: of_file\nset: {ce_weight: 1, kd_weight: 2}\nsearch: {temperature: '1:4'}\n"
        "student: resnet8\n",
    )
    values = {**{name: option.default for name, option in OPTIONS.items()}, "config": path}
    given = {"config": path, "trials": 5, "data_root": Path("of_environment"), "hold": ["kd-weight=3"]}
    found, named = with_config(values | given, given, from_environment={"data_root"})
    assert (found["space"], found["trials"], found["data_root"]) == ("joint", 5, Path("of_file"))
    assert found["hold"] == ["ce_weight=1", "kd-weight=3"]
    assert found["search"] == ["temperature=1:4"]
    assert {name: found[name] for name in named} == named
    assert "sampler" not in named
    # A field that the command line searches is not fixed by the file, and the other way round.
    given = {"config": path, "search": ["ce_weight=0:1", "student=resnet8,resnet14"], "temperature": 4.0}
    found, named = with_config(values | given, given, from_environment=())
    assert found["search"] == ["ce_weight=0:1", "student=resnet8,resnet14"]
    assert found["hold"] == ["kd_weight=2"]
    assert "student" not in named


@pytest.mark.parametrize(
    "words",
    [
        "--space adapter_width",
        "--space none --search temperature=1:32:log --search adapter_kind=serial,parallel --set ce_weight=0.5",
        "--space method --methods ce,kd,dkd+adapter --replicates auto --detect 0.01 --most-seeds 30",
        "--space method_tuned --methods kd,dist --search temperature=1:32 --trials 3 --budget flops",
        "--space none --search student=cnn_3_4,cnn_8_16 --search temperature=1:8 --prior temperature=4:2 "
        "--prior student=cnn_8_16 --limit gap=1 --until no-gain --trials 21",
        "--space joint --method dkd --adapter --confirm 2 --seeds auto --executor in-process --time-budget 9 --name 07",
        "--space temperature --tracking-uri sqlite:///elsewhere.db --teacher-outputs-limit 1GiB --smoke",
    ],
)
def test_a_printed_config_makes_the_same_plan(words, tmp_path):
    place = ("--output-dir", str(tmp_path / "a folder's: name #1"))
    plan = plan_of([*words.split(), *place])
    text = config_text(plan, {"time_budget": 9.0, "name": "07"} if "--name" in words else {})
    path = written(tmp_path, text)
    again = plan_of(["--config", str(path)])
    assert again.digest == plan.digest
    left_out = () if "--name" in words else ("time_budget",)
    for field in (*EXECUTION_FIELDS - {*left_out}, "output_dir", "confirmation", "base", "overrides", "search"):
        assert getattr(again, field) == getattr(plan, field), field
    assert again.name == "07" or "--name" not in words
    assert again.study_id != plan.study_id
    # Other readers of YAML find the same keys.
    assert yaml.safe_load(text).keys() == {line.partition(":")[0] for line in text.splitlines() if line[:1].isalpha()}
    named = {line.removeprefix("# ").partition(":")[0] for line in text.splitlines()}
    assert named >= {key_of(option) for option in OPTIONS.values() if option.name not in NOT_IN_A_FILE}
    assert all(len(line) <= 120 for line in text.splitlines())


def test_the_plan_of_another_study_is_a_config(tmp_path):
    plan = plan_of(f"--space none --search temperature=1:32:log --set ce_weight=0.5 --name one --output-dir {tmp_path}")
    plan.directory.mkdir()
    path = plan.save()
    again = plan_of(["--config", str(path), "--name", "two", "--trials", "5"])
    assert (again.name, again.trials) == ("two", 5)
    assert again.study_id != plan.study_id
    assert plan_of(["--config", str(path), "--name", "two"]).digest == plan.digest
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "of_later": 1}))
    with pytest.raises(UsageError, match="is not a plan of this version"):
        plan_of(["--config", str(path), "--name", "two"])


def test_the_command_prints_a_config_and_takes_it(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = command(launcher, "--space", "temperature", "--trials", "7", "--print-config")
    assert done.code == 0, done.said
    assert "\ntrials: 7\n" in done.out
    assert list(tmp_path.iterdir()) == []
    written(tmp_path, done.out)
    shown = command(launcher, "--config", "study.yaml", "--trials", "8", "--dry-run", "--json")
    assert shown.code == 0, shown.said
    assert (json.loads(shown.out)["plan"]["space"], json.loads(shown.out)["plan"]["trials"]) == ("temperature", 8)
    wrong = command(launcher, "--config", written(tmp_path, "spcae: joint"))
    assert (wrong.code, wrong.out) == (2, "")
    assert "unknown option 'spcae'; did you mean 'space'" in wrong.said


def test_a_plan_that_has_secrets_asks_for_them_again(tmp_path):
    plan = plan_of(f"--space joint --tracking-uri http://me:hush@host:1 --output-dir {tmp_path}")
    text = config_text(plan, {})
    assert "hush" not in text
    assert "http://***@host:1" in text
    with pytest.raises(UsageError, match="tracking_uri: the secrets of this URI are left out: give --tracking-uri"):
        plan_of(["--config", str(written(tmp_path, text))])
    again = plan_of(["--config", str(written(tmp_path, text)), "--tracking-uri", "http://me:hush@host:1"])
    assert again.tracking_uri == plan.tracking_uri
