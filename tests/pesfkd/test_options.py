"""Options as keyword arguments: all of the table, with the checks of the command line in the words of Python."""

import inspect
from pathlib import Path

import numpy as np
import pytest

import pesfkd
from pesfkd.messages import in_python
from pesfkd.options import checked_options, option_names
from study.plan.options import OPTIONS


@pytest.fixture(autouse=True)
def no_data_root(monkeypatch):
    monkeypatch.delenv("PESFKD_DATA_ROOT", raising=False)


def checked(**given):
    return checked_options(given, accepted=option_names(), call="pesfkd.run")[1]


def test_a_function_shows_every_option_that_a_new_study_takes():
    shown = inspect.signature(pesfkd.run).parameters
    assert {*option_names()} <= shown.keys()
    for name in option_names():
        assert f"    {name}: " in pesfkd.run.__doc__
    assert shown["trials"].default == OPTIONS["trials"].default
    # All others are said to be elsewhere.
    for name in OPTIONS.keys() - {*option_names()}:
        with pytest.raises(pesfkd.UsageError, match=rf"pesfkd.run takes no {name}: "):
            pesfkd.run(space="joint", **{name: OPTIONS[name].default})


@pytest.mark.parametrize(
    ("given", "value"),
    [
        ({"trials": np.int64(5)}, 5),
        ({"time_budget": 3}, 3.0),
        ({"replicates": 4}, "4"),
        ({"pack": "auto"}, "auto"),
        ({"gpus_per_trial": "auto"}, "auto"),
        ({"gpus_per_trial": 0.25}, "0.25"),
        ({"gpus_per_trial": np.float32(0.5)}, "0.5"),
        ({"methods": ["ce", "kd"]}, "ce,kd"),
        ({"output_dir": "~/studies"}, Path.home() / "studies"),
        ({"data_root": Path("data")}, Path("data")),
        ({"hold": {"ce_weight": 0.5, "adapter_kind": "serial"}}, ["ce_weight=0.5", "adapter_kind=serial"]),
        ({"hold": "ce_weight=0.5"}, ["ce_weight=0.5"]),
        ({"hold": ("ce_weight=0.5",)}, ["ce_weight=0.5"]),
        (
            {
                "search": {
                    "temperature": (1, 32, "log"),
                    "ce_weight": "0:1",
                    "student": ["cnn_3_4", "cnn_4_6"],
                    "adapter": (True, False),
                }
            },
            ["temperature=1:32:log", "ce_weight=0:1", "student=cnn_3_4,cnn_4_6", "adapter=true,false"],
        ),
    ],
)
def test_values_become_those_of_the_command_line(given, value):
    (name,) = given
    assert checked(**given) == {name: value}


def test_a_config_file_gives_options_too_and_keywords_override_it(tmp_path, monkeypatch):
    file = tmp_path / "study.yaml"
    file.write_text("space: joint\ntrials: 7\nepochs: 2\nset: {temperature: 2}\ndata_root: /from/file\n")
    monkeypatch.setenv("PESFKD_DATA_ROOT", "/from/environment")
    values, given = checked_options(
        {"config": str(file), "epochs": 3}, accepted=option_names(), call="pesfkd.run"
    )  # fmt: skip
    assert (given["space"], given["trials"], given["epochs"], given["hold"]) == ("joint", 7, 3, ["temperature=2"])
    assert given["data_root"] == Path("/from/file")
    assert values["space"] == "joint"
    file.write_text("spcae: joint\n")
    with pytest.raises(pesfkd.UsageError, match="did you mean 'space'"):
        pesfkd.run(config=file)


def test_an_option_is_known_by_the_name_of_its_flag_too_but_not_twice():
    assert checked(searches=2) == {"searches_per_method": 2}
    assert checked(set={"ce_weight": 1}) == {"hold": ["ce_weight=1"]}
    with pytest.raises(pesfkd.UsageError, match="given twice"):
        checked(set={"ce_weight": 1}, hold={"ce_weight": 2})


def test_none_stands_for_an_option_that_is_not_given():
    assert checked(trials=None, data_root=None) == {}


def test_the_environment_gives_what_it_gives_to_the_command_line(monkeypatch):
    monkeypatch.setenv("PESFKD_DATA_ROOT", "/data")
    assert checked() == {"data_root": Path("/data")}
    assert checked(data_root="/other") == {"data_root": Path("/other")}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"trails": 5}, "pesfkd.run has no option 'trails'; did you mean 'trials'?"),
        ({"whatever_this_is": 5}, "help(pesfkd.run)"),
        ({"trials": "many"}, "trials='many': give a whole number"),
        ({"trials": 2.5}, "trials=2.5: give a whole number"),
        ({"trials": True}, "trials=True: give a whole number"),
        ({"time_budget": "1h"}, "time_budget='1h': give a number"),
        ({"adapter": 1}, "adapter=1: give True or False"),
        ({"sampler": "grid"}, "sampler='grid': give one of 'tpe', 'random'"),
        ({"dataset": 3.5}, "dataset=3.5: give a text"),
        ({"space": 5}, "space=5: give a text"),
        ({"space": ["joint"]}, "space=['joint']: give a text"),
        ({"replicates": True}, "replicates=True: give a whole number, or 'auto'"),
        ({"output_dir": ""}, "output_dir='': give a path"),
        ({"hold": 3}, "hold=3: give a dict, or a list of texts FIELD=VALUE"),
        ({"teacher_epochs": 0}, "teacher_epochs=0: give 1 or more"),
    ],
)  # fmt: skip
def test_a_wrong_name_or_type_is_refused_with_what_is_allowed(given, says):
    with pytest.raises(pesfkd.UsageError) as refused:
        checked(**given)
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "give space (one of adapter_width"),
        ({"space": "adapter_widht"}, "did you mean 'adapter_width'"),
        ({"space": "joint", "trials": 0}, "trials: Input should be greater than or equal to 1"),
        ({"space": "joint", "seeds": 5}, "seeds is the number of fresh seeds for confirm: give confirm too"),
        ({"space": "adapter_width", "hold": {"temprature": 3}}, "did you mean 'temperature'"),
        ({"space": "joint", "hold": {"epochs": 3}}, "hold epochs: use the option epochs instead"),
        ({"space": "joint", "methods": "ce"}, "methods is only for space method"),
        ({"space": "joint", "pack": 4, "executor": "in-process"}, "executor in-process runs one trial"),
        ({"space": "joint", "name": "../out"}, "use 1 to 100 letters"),
        ({"space": "joint", "data_root": "/nowhere/at/all"}, "/nowhere/at/all"),
    ],
)
def test_what_the_command_line_refuses_is_refused_in_the_words_of_python(given, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(pesfkd.UsageError) as refused:
        pesfkd.run(**given)
    assert says in str(refused.value)
    assert "--" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_commands_and_quoted_code_keep_their_flags():
    text = "run python -m study.launch --resume a, or give --name; `ray start --head` printed --address"
    expected = "run python -m study.launch --resume a, or give name; `ray start --head` printed address"
    assert in_python(text) == expected
    assert in_python("set aside a 1--2 dash and study--name") == "set aside a 1--2 dash and study--name"
