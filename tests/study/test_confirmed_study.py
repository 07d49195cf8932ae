"""Confirmations: killed and resumed, added later with Ray and packs, of a comparison of methods, of a smoke test."""

import json
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient

from study.confirm import main as confirm_main
from study.launch import main as launch_main
from study.plan.resolve import load_plan
from study.records import read_epochs, read_trials
from study.tracking.student import model_name, tracking_at
from tests.study.inspection import assert_whole, read_journal, runs_of
from tests.study.processes import finished_before, kill, start_study, wait_in_study
from trainables.data import load_dataset
from trainables.students.file import load_student, read_example

STUDY = ("--space", "adapter_width", "--trials", "3", "--promising", "1", "--replicates", "2", "--epochs", "2")
IN_PROCESS = ("--executor", "in-process")


def start_and_kill_in_confirmation(directory, *arguments, ended):
    """Start a study and kill it after `ended` confirmed trials have ended."""
    path = directory / "journal.jsonl"

    def reached():
        events = read_journal(path)[0] if path.exists() else []
        confirming = {event["trial_id"] for event in events if event.get("stage") == "confirm"}
        return sum(event["event"] == "end" and event["trial_id"] in confirming for event in events) >= ended

    process = start_study(*arguments, *IN_PROCESS, "--name", directory.name, "--output-dir", directory.parent)
    wait_in_study(process, reached)
    kill(process)


def assert_the_student_is_the_same_both_ways(directory, plan, result):
    """Assert that the model in MLflow's registry and the file read by our loader give the trial's student logits."""
    kept, client = result["student"], MlflowClient(plan.tracking_uri)
    path = directory / "students" / f"{kept['trial_id']}.safetensors"
    assert path == Path(kept["file"])
    student, (example, logits) = load_student(path), read_example(path)
    (version,) = client.search_model_versions(
        f"name = '{model_name(plan, plan.base.student)}' and tags.study = '{plan.name}'"
    )
    assert kept["model"] == f"models:/{version.name}/{version.version}"
    assert client.get_model_version_by_alias(version.name, kept["alias"]).version == version.version
    first = next(config for config in result["configs"] if config["rank"] == 1)
    kd = next(config for config in result["configs"] if config["control"] == "kd")
    clear = {
        each["clear_of_zero"]
        for each in result["comparisons"]
        if (each["config_id"], each["against"]) == (first["config_id"], kd["config_id"])
    }
    assert {kept["alias"] == "champion"} == clear
    for words in ("# cnn_3_4 on digits, distilled from cnn_32_64", f"| {kd['label']} | ", "logits (batch, classes)"):
        assert words in version.description
    assert Path(kept["card"]).read_text() == version.description
    assert kept["card"] == str(path.with_suffix(".md"))
    with tracking_at(plan.tracking_uri):
        served = mlflow.pyfunc.load_model(kept["model"])
    images = load_dataset("digits", None).validation.images
    assert served.metadata.signature.inputs.inputs[0].type == np.uint8
    assert served.metadata.saved_input_example_info is not None
    np.testing.assert_array_equal(served.predict(images.numpy()), student.logits(images).numpy())
    np.testing.assert_allclose(student.logits(example).numpy(), logits.numpy(), atol=1e-5)
    correct = student.logits(images).argmax(dim=1) == load_dataset("digits", None).validation.labels
    row = next(row for row in read_trials(directory).to_pylist() if row["trial_id"] == kept["trial_id"])
    assert float(correct.double().mean()) == pytest.approx(row["val/accuracy"])
    assert row["replicate"] == result["first_replicate"]


@pytest.mark.launcher
def test_a_confirmation_that_was_killed_goes_on_and_is_compared_by_seed_on_the_test_split(output_dir, command):
    directory = output_dir / "confirmed"
    start_and_kill_in_confirmation(directory, *STUDY, "--confirm", "1", "--seeds", "4", ended=3)
    before = finished_before(directory)
    (chosen,) = (event for event in read_journal(directory / "journal.jsonl")[0] if event["event"] == "confirmation")
    done = command(confirm_main, "confirmed", "--output-dir", output_dir, "--json")
    assert done.code == 0, done.err
    assert_whole(directory)
    after = finished_before(directory)
    assert {trial: after[trial] for trial in before} == before
    events = read_journal(directory / "journal.jsonl")[0]
    assert [event for event in events if event["event"] == "confirmation"] == [chosen]

    result = json.loads(done.out)["confirmation"]
    rows = read_trials(directory).to_pylist()
    confirmed = [row for row in rows if row["stage"] == "confirm"]
    assert len(confirmed) == result["trials"]["finished"] == result["trials"]["planned"] == 4 * len(result["configs"])
    assert {row["replicate"] for row in confirmed} == {3, 4, 5, 6}
    assert all((row["test/accuracy"] is not None) == (row["stage"] == "confirm") for row in rows)
    for row in rows:
        if row["stage"] != "confirm":
            assert row["samples/test_correct"] is row["classes/test"] is None
            continue
        samples = int(row["data/test_samples"])
        bits = np.unpackbits(np.frombuffer(row["samples/test_correct"], np.uint8), count=samples)
        assert bits.mean() == pytest.approx(row["test/accuracy"])
        assert sum(each["correct"] for each in row["classes/test"]) == bits.sum()
        assert sum(each["count"] for each in row["classes/test"]) == samples
        gaps = [each["gap"] for each in row["classes/test"]]
        assert sum(gaps) / row["data/val_samples"] == pytest.approx(row["val/sharpness_gap"])
    per_epoch = read_epochs(directory).to_pylist()
    read = [row["epoch"] for row in per_epoch if row["test/accuracy"] is not None]
    assert read == [2] * len(confirmed)
    assert {config["control"] for config in result["configs"]} >= {"ce", "kd", "pesf_kd as published"}
    tried = [row for row in rows if row["method"] == "kd" and row["stage"] in ("control", "tune")]
    scores = {each: [r["val/accuracy"] for r in tried if r["temperature"] == each] for each in (1, 2, 4, 8, 16)}
    assert {len(each) for each in scores.values()} == {2}
    (kd,) = (config for config in result["configs"] if config["control"] == "kd")
    best = sum(scores[kd["fields"]["temperature"]])
    assert best == max(sum(each) for each in scores.values())
    assert kd["label"] == f"kd at tuned temperature {kd['fields']['temperature']:g}"
    for replicate in (3, 4, 5, 6):
        assert len({(row["seed"], row["data_seed"]) for row in confirmed if row["replicate"] == replicate}) == 1
    for config in result["configs"]:
        own = [row["test/accuracy"] for row in confirmed if row["config_id"] == config["config_id"]]
        assert config["test_accuracy"]["value"] == pytest.approx(sum(own) / 4)
        assert config["fields"]["method"] in ("ce", "kd", "pesf_kd")
    for comparison in result["comparisons"]:
        assert comparison["difference"]["n"] == 4
        assert comparison["corrected_p"] >= comparison["difference"]["p_value"] >= 2 / 2**4
    (winner,) = (config for config in result["configs"] if config["winner"])
    assert winner["optimism"]["value"] == pytest.approx(winner["search_score"] - winner["accuracy"]["value"])

    parent, children = runs_of(load_plan(directory))
    note = parent.data.tags["mlflow.note.content"]
    for words in ("Confirmed on fresh seeds", "| test accuracy of |", "optimism", "sign-flip permutation test"):
        assert words in note
    assert parent.data.metrics["confirmed/test_accuracy"] == result["configs"][0]["test_accuracy"]["value"]
    tested = [run for run in children if "test/accuracy" in run.data.metrics]
    assert {run.data.tags["stage"] for run in tested} == {"confirm"}
    assert len(tested) == len(confirmed)
    assert_the_best_student_is_found(directory, parent, tested)

    assert_the_student_is_the_same_both_ways(directory, load_plan(directory), result)
    assert "without Ray" in done.err
    again = command(launch_main, "--resume", "confirmed", "--output-dir", output_dir)
    assert again.code == 0, again.err
    assert "Ray" not in again.err, "an executor was started, though no work is left"
    for words in (
        "Confirmed on fresh seeds",
        "minus that of",
        "(Holm)",
        "optimism",
        "kd at tuned temperature",
    ):
        assert words in again.out
    assert f"student   {result['student']['model']} ({result['student']['alias']})" in again.out
    assert_the_student_is_the_same_both_ways(directory, load_plan(directory), result)  # registered once
    assert finished_before(directory) == after
    other = command(confirm_main, "confirmed", "--confirm", "2", "--output-dir", output_dir)
    assert other.code == 2
    assert "second validation split" in other.err


@pytest.mark.slow
def test_a_finished_study_is_confirmed_later_in_packs(output_dir, command, launch):
    done = command(launch_main, *STUDY, *IN_PROCESS, "--name", "later", "--output-dir", output_dir)
    assert done.code == 0, done.err
    assert "Confirmed" not in done.out
    before = finished_before(output_dir / "later")
    arguments = ("later", "--confirm", "2", "--seeds", "2", "--pack", "3", "--output-dir", output_dir)
    done = launch(*arguments, "--executor", "ray", "--quiet", module="study.confirm")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Confirmed on fresh seeds" in done.stdout
    assert_whole(output_dir / "later")
    after = finished_before(output_dir / "later")
    assert {trial: after[trial] for trial in before} == before
    rows = [row for row in read_trials(output_dir / "later").to_pylist() if row["stage"] == "confirm"]
    assert rows
    assert all(row["test/accuracy"] is not None for row in rows)
    assert len(list((output_dir / "later" / "students").glob("*.example.safetensors"))) == 4  # two configs
    assert load_plan(output_dir / "later").confirmation.configs == 2


@pytest.mark.study
@pytest.mark.parametrize("space", ["method", "method_tuned"])
def test_a_comparison_of_methods_ends_with_test_accuracies_of_confirmed_seeds(output_dir, command, space):
    trials = ("--trials", "2", "--searches", "1") if space == "method_tuned" else ()
    arguments = ("--methods", "ce,kd,dkd,dist", *trials, "--replicates", "2", "--epochs", "2", "--confirm", "2")
    name = f"confirmed-{space}"
    place = ("--name", name, "--output-dir", output_dir)
    done = command(launch_main, "--space", space, *arguments, "--seeds", "3", *place, *IN_PROCESS, "--json")
    assert done.code == 0, done.err
    assert_whole(output_dir / name)
    result = json.loads(done.out)["confirmation"]
    assert {config["label"] for config in result["configs"]} == {"ce", "kd", "dkd", "dist"}
    assert {config["test_accuracy"]["n"] for config in result["configs"]} == {3}
    assert {each["against_label"] for each in result["comparisons"]} == {"kd"}
    assert len(result["comparisons"]) == 3


@pytest.mark.study
def test_a_smoke_test_may_confirm_too(output_dir, command):
    arguments = ("--space", "temperature", "--smoke", "--confirm", "1", "--name", "smoke", "--json")
    done = command(launch_main, *arguments, *IN_PROCESS, "--output-dir", output_dir)
    assert done.code == 0, done.err
    result = json.loads(done.out)["confirmation"]
    assert result["seeds"] == 2
    assert any(config["label"].startswith("kd at tuned temperature") for config in result["configs"])


def assert_the_best_student_is_found(directory, parent, tested):
    """Assert that each confirmed trial has one logged model, and that the best one leads to a usable student's file."""
    plan = load_plan(directory)
    client = MlflowClient(plan.tracking_uri)
    order = [{"field_name": "metrics.test/accuracy", "ascending": False}]
    found = client.search_logged_models([parent.info.experiment_id], "tags.trial_id != 'none'", order_by=order)
    ours = [model for model in found if model.model_type == "student"]
    best = max(run.data.metrics["test/accuracy"] for run in tested)
    assert sorted(model.source_run_id for model in ours) == sorted(run.info.run_id for run in tested)
    assert {metric.key: metric.value for metric in ours[0].metrics}["test/accuracy"] == best
    assert ours[0].params["student"] == plan.base.student
    steps = [each.step for each in client.get_metric_history(ours[0].source_run_id, plan.objective)]
    assert sorted(steps) == list(range(1, plan.base.epochs + 1))  # the model's metric is no second value of the run
    kept = [model for model in ours if "student_file" in model.tags]
    assert len(kept) == 4  # the seeds of the first choice
    assert load_student(Path(kept[0].tags["student_file"])).info.num_classes == 10
