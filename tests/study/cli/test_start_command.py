"""The command in a report starts the study of the report again."""

import shlex
from pathlib import Path

import pytest

from study.cli.commands import resume_command, sync_command
from study.cli.start_command import start_command
from study.plan.plan import EXECUTION_FIELDS
from tests.study.factories import make_plan
from tests.study.typed import plan_of


@pytest.mark.parametrize(
    "words",
    [
        "--space adapter_width",
        "--space joint --trials 7 --promising 2 --replicates 5 --epochs 4 --sampler random --scheduler asha --seed 9",
        "--space adapter_width --method dkd --adapter --temperature 2.5 --set ce_weight=0.25 --smoke",
        "--space method --methods ce,kd,dkd+adapter --confirm 1 --seeds 4",
        "--space method_tuned --methods kd,dist --trials 3 --teacher-recipe literature --teacher-epochs 3",
        "--space temperature --pack 4 --teacher-outputs live --max-concurrent 1 --student cnn_8_16 --precision fp32",
        "--space gap_target --tracking-uri sqlite:///elsewhere.db --teacher-outputs-limit 1GiB",
        "--space adapter_width --optuna-storage 'all my studies.journal'",
        "--space none --search temperature=0.5:32:log --search ce_weight=0:1:0.25 --search adapter_kind=serial,logit",
        "--space adapter_width --search adapter_width=4:512:log --search detach_adapter_target=true,false",
        "--space none --search student=cnn_3_4,cnn_8_16 --search batch_size=32:128:32 --method kd",
        "--space method_tuned --methods kd,dist --trials 3 --search temperature=1:32 --search clip_norm=0,1,5",
    ],
)
def test_a_plan_comes_back_from_its_command(words: str, tmp_path: Path) -> None:
    plan = plan_of([*shlex.split(words), "--output-dir", str(tmp_path / "a study's folder")])
    program, *again = shlex.split(start_command(plan))[2:]
    assert program == "study.launch"
    found = plan_of(again)
    assert found.digest == plan.digest
    for field in (*EXECUTION_FIELDS, "output_dir", "confirmation", "base", "overrides"):
        assert getattr(found, field) == getattr(plan, field), field


def test_a_password_is_in_no_command(tmp_path: Path) -> None:
    words = ["--space", "adapter_width", "--tracking-uri", "http://me:hidden@host:1", "--output-dir", str(tmp_path)]
    command = start_command(plan_of(words))
    assert "hidden" not in command
    assert "http://***@host:1" in command


def test_the_command_to_go_on_shows_which_uris_have_to_be_given_again_and_no_secret(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = Path("study_results")
    plain = make_plan(folder, tracking_uri="http://host:5000")
    assert resume_command(plain) == "python -m study.launch --resume planned"
    plan = make_plan(folder, tracking_uri="http://me:hush@host:5000", storage_path="s3://id:hush@b/x")
    assert resume_command(plan) == (
        "python -m study.launch --resume planned --tracking-uri 'http://***@host:5000' --storage-path 's3://***@b/x'"
    )
    assert sync_command(plan) == "python -m study.sync planned --tracking-uri 'http://***@host:5000'"
