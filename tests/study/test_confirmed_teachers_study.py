"""Studies confirmed over two teachers or splits, from the command line to the report and a rerun."""

import json
from pathlib import Path

import pytest
import torch

from analysis.report.__main__ import main as report_main
from study.launch import main as launch_main
from study.plan.resolve import load_plan
from study.records import read_trials
from study.rerun import main as rerun_main
from tests.study.inspection import assert_whole, runs_of
from trainables.data import load_dataset
from trainables.storage.tensors import read_tensors

pytestmark = pytest.mark.study


def test_a_study_is_confirmed_over_two_teachers(output_dir, command):
    directory = output_dir / "teachers-two"
    done = command(
        launch_main, "--space", "temperature", "--trials", "2", "--promising", "1", "--replicates", "1",
        "--epochs", "1", "--teacher", "cnn_4_8", "--teacher-epochs", "3", "--confirm", "1", "--seeds", "4",
        "--teachers", "2", "--executor", "in-process", "--name", directory.name, "--output-dir", output_dir, "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert_whole(directory)
    assert ", seed 1" in done.err

    rows = read_trials(directory).to_pylist()
    confirmed = [row for row in rows if row["stage"] == "confirm"]
    assert {row["teacher_number"] for row in rows if row["stage"] != "confirm"} == {0}
    first = min(row["replicate"] for row in confirmed)
    assert all(row["teacher_number"] == (row["replicate"] - first) % 2 for row in confirmed)
    accuracies = [{row["val/accuracy_teacher"] for row in confirmed if row["teacher_number"] == n} for n in (0, 1)]
    assert [len(each) for each in accuracies] == [1, 1]
    assert accuracies[0] != accuracies[1]
    assert accuracies[0] == {row["val/accuracy_teacher"] for row in rows if row["stage"] == "search"}
    kept = [metadata for path in output_dir.glob("teachers/*.safetensors")
            if (metadata := read_tensors(path)[1])["architecture"] == "cnn_4_8"]  # fmt: skip
    assert {str(metadata["seed"]) for metadata in kept} == {"0", "1"}

    summary = json.loads((directory / "summary.json").read_text())
    result = summary["confirmation"]
    assert (result["seeds"], result["teachers"]) == (4, 2)
    assert {config["test_accuracy"]["n"] for config in result["configs"]} == {4}
    of_kd = next(config for config in result["configs"] if config["control"] == "kd")
    own = {row["replicate"]: row["test/accuracy"] for row in confirmed if row["config_id"] == of_kd["config_id"]}
    over = of_kd["beyond_seeds"]["mean"]
    assert (over["value"], over["n"]) == (pytest.approx(sum(own.values()) / 4), 2)
    assert next(config for config in result["configs"] if config["control"] == "ce")["beyond_seeds"] is None
    for comparison in result["comparisons"]:
        assert comparison["beyond_seeds"]["mean"]["value"] == pytest.approx(comparison["difference"]["value"])
        assert (comparison["beyond_seeds"]["share"]["groups"], comparison["beyond_seeds"]["share"]["n"]) == (2, 4)
    assert any("2 teachers are few, so these intervals are wide" in text for text in result["verdict"])
    passes = 2 * (1077 + 360)  # the one slot of one epoch and the validation split, for two teachers
    assert summary["teacher_forwards"]["ahead"] == passes

    parent, children = runs_of(load_plan(directory))
    note = parent.data.tags["mlflow.note.content"]
    assert "| over teachers and seeds |" in note
    assert "divided over 2 teachers" in note
    numbers = {run.data.params["teacher_number"] for run in children if run.data.tags["stage"] == "confirm"}
    assert numbers == {"0", "1"}
    card = Path(result["student"]["card"]).read_text()
    assert "the config, over teachers and seeds" in card

    done = command(report_main, directory.name, "--output-dir", output_dir)
    assert done.code == 0, done.err
    assert "Compared over teachers and seeds" in (directory / "report.html").read_text()

    of_second = next(row for row in confirmed if row["teacher_number"] == 1 and row["method"] == "pesf_kd")
    done = command(rerun_main, of_second["trial_id"], "--output-dir", output_dir)
    assert done.code == 0, done.err
    assert "all bits match" in done.out

    again = command(launch_main, "--resume", directory.name, "--output-dir", output_dir)
    assert again.code == 0, again.err
    assert "Over 2 teachers and their seeds" in again.out
    assert "preparing the teacher" not in again.err, "no work is left"


def test_methods_are_confirmed_over_two_splits_with_teachers_of_their_own(output_dir, command):
    directory = output_dir / "splits-two"
    done = command(
        launch_main, "--space", "method", "--methods", "ce,kd,dkd", "--replicates", "1", "--epochs", "1",
        "--set", "warmup_epochs=1", "--teacher", "cnn_4_8", "--teacher-epochs", "2", "--confirm", "1", "--seeds", "4",
        "--splits", "2", "--executor", "in-process", "--name", directory.name, "--output-dir", output_dir, "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert_whole(directory)
    assert "seed 0, split 2 of 2" in done.err
    confirmed = [row for row in read_trials(directory).to_pylist() if row["stage"] == "confirm"]
    first = min(row["replicate"] for row in confirmed)
    assert all(row["split_number"] == (row["replicate"] - first) % 2 for row in confirmed)
    assert {row["teacher_number"] for row in confirmed} == {0}
    result = json.loads((directory / "summary.json").read_text())["confirmation"]
    assert (result["seeds"], result["splits"], len(result["configs"])) == (4, 2, 3)
    for config in result["configs"]:
        assert (config["beyond_seeds"]["unit"], config["beyond_seeds"]["mean"]["n"]) == ("split", 2)
    splits = [load_dataset("digits", None, split_number=number) for number in (0, 1)]
    trained_on = {read_tensors(path)[1]["data_digest"] for path in output_dir.glob("teachers/*.safetensors")
                  if read_tensors(path)[1]["recipe"]["epochs"] == 2}  # fmt: skip
    assert trained_on == {split.digest for split in splits}, "each split has a teacher trained on it"
    assert torch.equal(splits[0].test.indices, splits[1].test.indices)
    of_second = next(row for row in confirmed if row["split_number"] == 1 and row["method"] == "dkd")
    done = command(rerun_main, of_second["trial_id"], "--output-dir", output_dir)
    assert done.code == 0, done.err
    assert "all bits match" in done.out
    again = command(launch_main, "--resume", directory.name, "--output-dir", output_dir)
    assert again.code == 0, again.err
    assert "Over 2 splits and their teachers and seeds" in again.out
