"""Code of the user in a plan: named by its digest, kept, sent, and named again in commands."""

import json
import shlex

import pytest
import torch

from study.cli.preview import describe_plan
from study.cli.start_command import start_command
from study.plan.places import begin_study
from study.plan.resolve import load_plan
from study.plan.teacher_storage import reckon_teacher_storage
from study.plan.user_code import code_names, keep_code, sources_in, with_canonical_names
from tests.study.factories import make_plan
from tests.user_data import new_data_process
from tests.user_nets import new_process, write_net
from trainables.models import build_model
from trainables.packing.probe import best_count
from trainables.process.errors import UsageError
from trainables.spec.trial import TrialConfig
from trainables.tune.session import TrialSession, begin_run, describe_error
from trainables.user_code.loading import canonical_name, remember_json, sources_of


@pytest.fixture(autouse=True)
def _process():
    with new_process():
        yield


def test_options_get_canonical_names_and_others_stay(tmp_path):
    file = write_net(tmp_path)
    given = {"student": f"{file}:make", "teacher": "timm:resnet18", "trials": 3}
    found = with_canonical_names(given, dataset="digits")
    assert found == {**given, "student": canonical_name(f"{file}:make")}
    with pytest.raises(UsageError, match=r"--student .*: networks of your own are for images, and glue:sst2 is text"):
        with_canonical_names(given, dataset="glue:sst2")


def test_a_plan_keeps_and_sends_what_it_names_and_nothing_else(tmp_path):
    name, other = (canonical_name(f"{write_net(tmp_path / side, text)}:make")
                   for side, text in (("a", "from blocks import Block as make"), ("b", "make = 1")))  # fmt: skip
    plan = make_plan(tmp_path, base={"student": name})
    assert list(code_names(plan)) == [name]
    assert other not in json.dumps(sources_in(plan))
    keep_code(plan)
    plan.save()
    with new_process():
        assert load_plan(plan.directory).base.student == name
        assert sources_of(name).files.keys() == {"net.py", "blocks.py"}
        sent = json.loads(json.dumps(sources_in(plan)))
    with new_process():
        remember_json(sent)
        assert sources_of(name).shown == str(tmp_path / "a")  # tracebacks show the user's file, not the study's copy
    assert make_plan(tmp_path).digest != plan.digest


def test_code_left_by_a_start_that_was_killed_is_no_obstacle(tmp_path):
    name = canonical_name(f"{write_net(tmp_path / 'mine')}:make")
    plan = make_plan(tmp_path, base={"student": name})
    keep_code(plan)
    begin_study(plan, "resume")
    assert (plan.directory / "plan.json").exists()


def test_the_command_of_a_report_names_the_study_s_copy(tmp_path):
    name = canonical_name(f"{write_net(tmp_path / 'mine')}:make")
    plan = make_plan(tmp_path, base={"student": name})
    keep_code(plan)
    words = shlex.split(start_command(plan))
    assert canonical_name(words[words.index("--student") + 1]) == name


def test_stored_outputs_are_reckoned_with_the_teacher_s_own_feature(tmp_path):
    file = write_net(tmp_path / "mine")
    own, widest, broken = (
        reckon_teacher_storage(make_plan(tmp_path, base={"teacher": name})).size
        for name in (canonical_name(f"{file}:make"), "torchvision:resnet18", canonical_name(f"{file}:no_such"))
    )
    assert own * 4096 == widest * 8
    assert broken == widest


def test_trials_are_not_packed_and_the_plan_says_why(tmp_path):
    name = canonical_name(f"{write_net(tmp_path / 'mine')}:make")
    plan = make_plan(tmp_path, pack="auto", base={"student": name})
    assert "not packed, because it is unknown whether a network of your own" in describe_plan(plan, [])
    assert best_count(plan.base, None, None, stored=False).packed == 1


def test_an_error_of_a_trial_names_the_user_s_line(tmp_path):
    file = write_net(tmp_path)
    line = file.read_text().splitlines().index("        return self.fc(self.dropout(maps.mean(dim=(2, 3))))") + 1
    model = build_model(canonical_name(f"{file}:make"), num_classes=10, in_channels=1)
    with pytest.raises(RuntimeError) as raised:
        model(torch.zeros(2, 3, 8, 8))
    assert describe_error(raised.value).endswith(f"(in forward, net.py:{line - 1})")


@pytest.mark.parametrize(
    ("maker", "summary"),
    [
        ("make", "FileNotFoundError: {path}; data.py:make, train: sample 17 failed (in __getitem__, data.py:12)"),
        ("early", "SystemExit: 3; data.py:early failed (in early, data.py:21)"),
    ],
)
def test_a_trial_on_a_node_that_lacks_a_file_of_the_data_fails_by_the_user_s_own_error(tmp_path, maker, summary):
    needed = tmp_path / "needed"
    text = """
from pathlib import Path


class Images:
    def __len__(self):
        return 60

    def __getitem__(self, index):
        import numpy as np
        if index == 17 and not Path({path!r}).exists():
            raise FileNotFoundError({path!r})
        return np.full((8, 8), index, np.uint8), index % 3

def make():
    return {{"train": Images()}}

def early():
    if not Path({path!r}).exists():
        import sys
        sys.exit(3)
    return make()
""".format(path=str(needed))
    (tmp_path / "data.py").write_text(text)
    needed.touch()
    name = canonical_name(f"{tmp_path / 'data.py'}:{maker}")
    config = TrialConfig(method="ce", dataset=name, student="cnn_3_4", epochs=1).model_dump(mode="json")
    settings = {"config": config, "data_root": None, "teacher_path": None, "user_code": [sources_of(name).to_json()]}
    needed.unlink()
    with new_data_process():
        failed = TrialSession(settings, begin=begin_run).step()["failed"]
    first, *trace = failed.splitlines()
    assert first == summary.format(path=needed)
    assert trace[0] == "Traceback (most recent call last):"
    assert f'File "{tmp_path / "data.py"}", line ' in trace[1]
    assert trace[-1] == first.partition(";")[0]
