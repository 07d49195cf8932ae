"""Health checks name the problem in one line, with a command that addresses it."""

from pathlib import Path

import pytest

from analysis.questions.importance import RangeWarning
from analysis.report.folder import StudyFolder
from analysis.report.health import changed_command, health_checks
from tests.analysis.planted import records
from tests.analysis.report.studies import PLAN, SUMMARY
from tests.analysis.synthetic import trial


def folder(rows: list[dict], **summary: object) -> StudyFolder:
    base = PLAN["base"] | {"student_learning_rate": 0.06, "adapter_learning_rate": 0.005}
    return StudyFolder(Path("study_results/s"), records(rows), PLAN | {"base": base}, SUMMARY | summary)


def repeated(score: float, **changes: object) -> list[dict]:
    own = {"stage": "replicate", "config_id": "A", "data/val_constant_score": 0.5, **changes}
    return [trial(n, replicate=n, **own, **{"val/accuracy": score}) for n in range(1, 6)]


def test_a_healthy_study_has_no_problem() -> None:
    assert health_checks(folder(repeated(0.9, **{"data/val_samples": 5000})), {"A": "w16"}, []) == []


@pytest.mark.parametrize(
    ("rows", "text", "command"),
    [
        (repeated(0.5), "Not above the majority class (0.500) on the validation split: w16 0.500.", "--epochs 30"),
        (
            [*repeated(0.9)[:4], repeated(0.4)[4]],
            "Collapsed seeds on the validation split: w16 (1 of 5).",
            "--set student_learning_rate=0.02",
        ),
        (repeated(0.9, **{"data/val_samples": 50}), "Few validation images: 50", "--confirm 2 --splits 3"),
        (
            [trial(1, status="failed", error="NonFiniteLossError: the loss is not finite")],
            "1 trial diverged: the loss was not finite.",
            "--set student_learning_rate=0.02",
        ),
        (
            repeated(0.9, **{"train/adapter_shift": 0.001}),
            "The adapter did not move (less than 0.01 nats) in 5 of 5 trials of pesf_kd.",
            "--set adapter_learning_rate=0.05",
        ),
        (repeated(0.9, **{"val/accuracy_teacher": 0.8}), "The teacher (0.800) is worse than 5 of 5 students", ""),
    ],
)
def test_each_problem_has_its_line_and_its_command(rows: list[dict], text: str, command: str) -> None:
    (check,) = health_checks(folder(rows), {"A": "w16"}, [])
    assert check.text.startswith(text)
    assert check.command.endswith(command)
    assert "\n" not in check.text


def test_a_bound_that_is_reached_has_the_command_with_the_wider_range() -> None:
    (check,) = health_checks(folder(repeated(0.9)), {}, [RangeWarning("adapter_width", "high", "")])
    assert check.text == "The best values of adapter width lie at the high bound, 256."
    assert "--search adapter_width=2:" in check.command


def test_an_option_that_is_given_already_is_replaced_and_the_name_left_out() -> None:
    given = "python -m study.launch --name old --epochs 3 --set a=1 --set b=2 --seed 0"
    command = changed_command(folder([], command=given), {"--epochs": "6"}, "a=0.5")
    assert command == "python -m study.launch --set b=2 --seed 0 --epochs 6 --set a=0.5"
    assert changed_command(folder([], command=None), {"--epochs": "6"}) == ""
