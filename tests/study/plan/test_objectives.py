"""What a study with several objectives, limits or a measurement of students may be, and what is refused."""

import sys

import pytest

from study.cli.config_text import config_text
from study.cli.preview import describe_plan
from study.cli.request import new_plan
from study.cli.start_command import start_command
from study.launch import main as launch_main
from study.ledger.ledger import StudyLedger
from study.plan.objectives import threads_of
from study.plan.options import OPTIONS
from study.running import deployment
from tests.study.factories import make_plan
from trainables.process import cores
from trainables.process.errors import StudyError, UsageError
from trainables.spec.measures import DEPLOY_FACTS

pytestmark = pytest.mark.unit
SEARCH = ("--space", "none", "--search", "student=cnn_3_4,cnn_8_16")
OBJECTIVES = ("--objectives", "val/accuracy,latency")


def plan_of(folder, **given):
    """Return the plan of a new study with options as the command line gives them."""
    own = {"space": "none", "search": ["student=cnn_3_4,cnn_8_16"], "output_dir": folder, **given}
    return new_plan({name: option.default for name, option in OPTIONS.items()} | own, own)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((*SEARCH, *OBJECTIVES, "--scheduler", "asha"), "--objectives: --scheduler asha ends trials by val/accuracy"),
        ((*SEARCH, "--limit", "gap=1", "--scheduler", "asha"), "--limit: --scheduler asha"),
        ((*SEARCH, *OBJECTIVES, "--sampler", "gp"), "--sampler gp models one objective"),
        ((*SEARCH, *OBJECTIVES, "--sampler", "random"), "ignores all results: choose tpe or nsga2"),
        ((*SEARCH, *OBJECTIVES, "--sampler", "qmc"), "choose tpe or nsga2"),
        ((*SEARCH, "--limit", "latency=5ms", "--sampler", "gp"), "choose tpe or nsga2"),
        (("--space", "temperature", "--limit", "gap=1", "--sampler", "cmaes"), "--sampler cmaes ranks configs"),
        (("--space", "temperature", *OBJECTIVES), "latency is the same for all configs, because all have the student"),
        (("--space", "temperature", "--objectives", "val/accuracy,size,flops"), "size and flops are the same"),
        (("--space", "method_tuned", "--objectives", "val/accuracy,val/ece"), "compares methods by val/accuracy"),
        (("--space", "method", "--limit", "size=1MB"), "compares methods by val/accuracy"),
        ((*SEARCH, "--objectives", "val/accuracy,latncy"), "did you mean 'latency'?"),
        ((*SEARCH, "--limit", "latency=5MB"), "one of the units us, µs, ms, s"),
        ((*SEARCH, "--limit", "size=1MB", "--limit", "size=2MB"), "more than once: size, size"),
        ((*SEARCH, "--latency", "0"), "--latency"),
        ((*SEARCH, "--latency", "2000"), "--latency"),
        (("--space", "temperature", "--dataset", "glue:rte", "--latency", "1"), "students of images alone"),
        (("--space", "temperature", "--dataset", "glue:rte", "--limit", "size=1MB"), "students of images alone"),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_no_folder(command, tmp_path, arguments, says):
    done = command(launch_main, *arguments, "--output-dir", tmp_path / "out", "--name", "no")
    assert done.code == 2
    assert says in done.err
    assert not (tmp_path / "out" / "no").exists()


def test_latency_is_measured_on_one_thread_if_it_is_needed_and_else_not(tmp_path):
    assert threads_of(plan_of(tmp_path, objectives="val/accuracy,latency")) == 1
    assert threads_of(plan_of(tmp_path, objectives="val/accuracy,latency", latency=2)) == 2
    assert threads_of(plan_of(tmp_path, limit=["size=1MB"])) == 1
    assert threads_of(plan_of(tmp_path, objectives="val/accuracy,flops")) is None
    assert threads_of(plan_of(tmp_path)) is None


def test_plan_command_and_config_file_give_the_study_again(tmp_path):
    given = {"objectives": "val/accuracy,flops", "limit": ["parameters=100k", "val/ece=0.5"], "latency": 1}
    plan = plan_of(tmp_path, **given)
    line = start_command(plan)
    for words in (
        "--objectives val/accuracy,flops",
        "--limit parameters=100000.0",
        "--limit val/ece=0.5",
        "--latency 1",
    ):
        assert words in line
    text = config_text(plan, {})
    assert "objectives: 'val/accuracy,flops'" in text
    assert "limit:\n  parameters: " in text
    path = tmp_path / "study.yaml"
    path.write_text(text)
    from study.cli.config_file import read_config

    again = plan_of(tmp_path, **{**read_config(path, dict.fromkeys(OPTIONS)), "output_dir": tmp_path})
    assert (again.objectives, again.limits, again.latency) == (plan.objectives, plan.limits, plan.latency)
    assert again.digest == plan.digest
    read = type(plan).model_validate_json(plan.model_dump_json())
    assert (read.limits, read.digest) == (plan.limits, plan.digest)


def test_a_dry_run_says_what_is_optimised_limited_and_measured(tmp_path):
    text = describe_plan(plan_of(tmp_path, objectives="val/accuracy,latency", limit=["size=2MB"]), [])
    assert "objectives Pareto front of: val/accuracy (highest), latency (lowest)" in text
    assert "limits     size at most 2 MB" in text
    assert "measures   size and latency in ONNX Runtime (1 thread), of cnn_3_4, cnn_8_16, before the trials" in text


@pytest.mark.parametrize("missing", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_named_before_any_work(tmp_path, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UsageError, match=rf"--latency needs {missing}.*pip install 'pesfkd\[export\]'"):
        deployment.check_measurable(make_plan(tmp_path, latency=1))
    with pytest.raises(UsageError, match="latency or size as an objective or with a limit needs"):
        deployment.check_measurable(plan_of(tmp_path, limit=["size=1MB"]))
    deployment.check_measurable(plan_of(tmp_path, objectives="val/accuracy,flops"))


def test_more_threads_than_cores_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(cores.os, "sched_getaffinity", lambda _: {0, 1})
    with pytest.raises(UsageError, match="--latency 3: this process may use 2 cores: give a number up to 2"):
        deployment.check_measurable(make_plan(tmp_path, latency=3))


class Silent:
    """Progress that keeps what it is told."""

    def __init__(self):
        self.said = []

    def say(self, text):
        self.said.append(text)


def test_each_student_is_measured_once_per_study(tmp_path, monkeypatch):
    seen = []

    def measure(name, **given):
        seen.append((name, given))
        return dict.fromkeys(DEPLOY_FACTS, 1.0)

    monkeypatch.setattr("trainables.students.deployment.measure_student", measure)
    plan = plan_of(tmp_path, objectives="val/accuracy,latency")
    plan.directory.mkdir()
    for _ in range(2):
        ledger = StudyLedger(plan)
        deployment.measure_students(plan, ledger, Silent())
        assert set(ledger.deployment) == {"cnn_3_4", "cnn_8_16"}
    assert seen == [
        (name, {"num_classes": 10, "shape": (1, 8, 8), "threads": 1}) for name in ("cnn_3_4", "cnn_8_16")
    ]  # fmt: skip


def test_limits_that_no_student_meets_end_the_study_before_a_teacher_is_trained(tmp_path):
    plan = plan_of(tmp_path, limit=["parameters=100"])
    plan.directory.mkdir()
    with pytest.raises(StudyError, match=r"no student has parameters at most 100 \(cnn_3_4: 319; cnn_8_16: 1,922\)"):
        deployment.measure_students(plan, StudyLedger(plan), Silent())
    fitting = plan_of(tmp_path, limit=["parameters=400"], name="fits")
    fitting.directory.mkdir()
    deployment.measure_students(fitting, StudyLedger(fitting), Silent())
