"""A small study, run by the real launcher on a real Ray: results on disk and messages."""

import json

import pyarrow.compute as pc
import pytest
from mlflow import MlflowClient
from PIL import Image

from study.launch import main as launcher
from study.ledger.ledger import StudyLedger
from study.plan.resolve import load_plan
from study.records import read_epochs, read_trials
from study.tracking.view import NOTE_WIDTH
from tests.study.inspection import assert_whole, runs_of
from trainables.costs.epoch import run_epoch
from trainables.spec.trial import TrialConfig, config_fields


def test_a_study_ends_with_every_trial_recorded_and_tracked_once(small_study):
    assert_whole(small_study)


def test_json_is_the_whole_of_stdout_and_is_what_the_summary_says(small_study_run):
    result = small_study_run.result
    assert small_study_run.summary == result
    assert result["complete"] is True
    assert result["trials"] == {"finished": 14, "pruned": 0, "failed": 0, "planned": 14}
    assert {c["method"] for c in result["configs"]} == {"ce", "kd", "pesf_kd"}
    for config in result["configs"]:
        assert config["accuracy"]["n"] == config["gap"]["n"] == 2
        assert config["accuracy"]["low"] < config["accuracy"]["value"] < config["accuracy"]["high"]
    assert result["gap_accuracy_correlation"]["n"] == 6


def test_progress_is_on_stderr_one_line_a_trial(small_study_run):
    said = small_study_run.said
    assert sum(line.startswith("[") and line.endswith(" s") and ", gap " in line for line in said.splitlines()) == 14
    assert "[14/14]" in said


def test_means_are_those_of_the_records(small_study_run):
    directory, result = small_study_run.directory, small_study_run.result
    trials = read_trials(directory)
    for config in result["configs"]:
        rows = trials.filter(
            pc.and_(pc.equal(trials["config_id"], config["config_id"]), pc.not_equal(trials["stage"], "search"))
        )
        values = rows["val/accuracy"].to_pylist()
        assert config["accuracy"]["value"] == sum(values) / len(values)


def test_every_row_says_what_it_cost_and_what_that_is_to_cross_entropy(small_study_run):
    directory, result = small_study_run.directory, small_study_run.result
    costs = {config["config_id"]: config["cost"] for config in result["configs"]}
    trials = read_trials(directory).to_pylist()
    assert {row["cost/step_flops"] is None for row in trials} == {False}
    # The teacher passes the train split 3 times, for 12 trials of 3 epochs.
    passes = 3 * 1077 / (12 * 3 * 1077)
    for row in trials:
        if row["stage"] == "search":
            continue
        cost, taught = costs[row["config_id"]], row["method"] != "ce"
        assert cost["shared_teacher_passes"] == (passes if taught else 0)
        own = row["cost/step_flops"] + (passes * row["cost/teacher_pass_flops"] if taught else 0)
        student = row["cost/forward_flops_student"] + row["cost/backward_flops_student"]
        assert cost["flops_to_ce"] == own / student
        assert (cost["flops_to_ce"] == cost["seconds_to_ce"] == 1) == (not taught)
        assert cost["parameters"] == cost["student_parameters"] + cost["adapter_parameters"]
        assert cost["n"] == 2


def test_the_search_never_reads_the_test_split(small_study):
    trials = read_trials(small_study)
    assert set(trials["test/accuracy"].to_pylist()) == {None}
    assert set(trials["calibration/test_student"].to_pylist()) == {None}


def test_every_finished_trial_recorded_how_well_calibrated_its_networks_are(small_study):
    for row in read_trials(small_study).to_pylist():
        networks = {"student": "val/accuracy", "teacher": "val/accuracy_teacher", "adapted": "val/accuracy_adapted"}
        for network, accuracy in networks.items():
            bins = row[f"calibration/val_{network}"]
            assert (bins is None) == (row[accuracy] is None)
            if bins is not None:
                assert sum(each["count"] for each in bins) == 360
                assert sum(each["correct"] for each in bins) == pytest.approx(360 * row[accuracy])


def test_a_recorded_trial_can_be_run_again_to_the_same_bits(small_study, tmp_path):
    from trainables.data import load_dataset
    from trainables.process.threads import use_one_thread
    from trainables.run.run import DistillationRun
    from trainables.teacher.files import ensure_teacher, load_teacher
    from trainables.teacher_outputs.store import StoredTeacherOutputs, TeacherOutputsStore

    use_one_thread()
    plan = load_plan(small_study)
    ledger = StudyLedger(plan)
    entry = ledger.in_stage("search")[2]
    row = read_trials(small_study).filter(pc.field("trial_id") == entry.trial_id).to_pylist()[0]
    fields = {name: row["epochs_planned" if name == "epochs" else name] for name in config_fields()}
    config = TrialConfig(**fields)
    assert config == entry.config
    dataset = load_dataset(config.dataset, None, seed=config.split_seed)
    teacher = load_teacher(ensure_teacher(config, dataset, small_study.parent / "teachers"), config, dataset)
    # A new folder, so that the outputs are computed again. They must equal those read by the study's trials.
    store = TeacherOutputsStore(
        tmp_path, teacher, dataset, architecture=config.teacher, augmentation=config.augmentation,
        dtype=plan.teacher_outputs_dtype,
    )  # fmt: skip
    run = DistillationRun(config, dataset, teacher, teacher_outputs=StoredTeacherOutputs(store))
    for epoch in range(1, config.epochs + 1):
        measures = run_epoch(run)
        for name, value in entry.epochs[epoch].items():
            if not name.startswith("cost/"):
                assert measures[name] == value, name


def test_the_parent_run_holds_question_command_result_and_artifacts(small_study):
    plan = load_plan(small_study)
    parent, _ = runs_of(plan)
    note = parent.data.tags["mlflow.note.content"]
    for part in (plan.search_space.question, "python -m study.launch --space adapter_width", "| config |", "kd"):
        assert part in note
    client = MlflowClient(plan.tracking_uri)
    top = {artifact.path for artifact in client.list_artifacts(parent.info.run_id)}
    assert top == {"plan.json", "summary.json", "records", "figures", "report.html"}
    figures = {artifact.path for artifact in client.list_artifacts(parent.info.run_id, "figures")}
    assert "figures/adapter_width_against_accuracy.png" in figures
    assert len(figures) == 5  # including the folder of the figures in the note
    small = {artifact.path for artifact in client.list_artifacts(parent.info.run_id, "figures/note")}
    assert small == {path.replace("figures/", "figures/note/") for path in figures - {"figures/note"}}
    for path in small:
        with Image.open(small_study / path) as image:
            assert image.width == NOTE_WIDTH
    assert parent.data.tags["version.ray"]
    assert "best/val_accuracy" in parent.data.metrics


def test_one_teacher_is_trained_for_all_trials(small_study):
    assert len(list((small_study.parent / "teachers").glob("*.safetensors"))) == 1


def test_the_teacher_sees_each_slot_of_views_once_for_all_trials(small_study_run):
    directory, result, said, _ = small_study_run
    # 3 epochs use 3 slots of 1,077 samples, and the validation split has 360: the cost of a live teacher in one trial.
    assert result["teacher_forwards"] == {"ahead": 3 * 1077 + 360, "in_trials": 0}
    assert sum(read_epochs(directory)["cost/teacher_forwards"].to_pylist()) == 0
    assert len(list((directory.parent / "teacher_outputs").glob("*/*.arrow"))) == 4
    assert "teacher outputs: 4 files filled, 3,591 rows in" in said
    assert "rows/s) on 1 node\n" in said


def test_checkpoints_of_ended_trials_are_cleared_away(small_study):
    assert not list((small_study / "tune").rglob("checkpoint_*"))


def test_resuming_a_finished_study_runs_nothing_and_repeats_its_result(small_study_run, launch):
    directory, result = small_study_run.directory, small_study_run.result
    done = launch("--resume", "small", "--output-dir", directory.parent, "--json")
    assert done.returncode == 0, done.stderr
    again = json.loads(done.stdout)
    assert again["configs"] == result["configs"]
    assert "starting Ray" not in done.stderr
    assert_whole(directory)


def test_a_name_that_exists_and_a_plan_that_differs_are_refused(small_study, command):
    taken = command(launcher, "--space", "joint", "--name", "small", "--output-dir", small_study.parent)
    assert taken.code == 2
    assert "a study named 'small' already exists" in taken.err
    assert "--resume small" in taken.err
    differs = command(launcher, "--resume", "small", "--output-dir", small_study.parent, "--trials", "7")
    assert differs.code == 2
    assert "trials: the study has 6, but 7 was given" in differs.err
