"""Real recorded trials, run again; without Ray and its processes."""

import json
import shutil
from contextlib import closing

import pytest
import torch

from study.ledger.confirmation import Choice, Confirmation
from study.ledger.entry import PROCESS_DIED
from study.ledger.journal import Journal
from study.ledger.ledger import StudyLedger
from study.plan.confirmation import ConfirmationRequest
from study.rerun import main
from study.result.reproduction import Difference, compare, find_trial, reasons_to_differ, reproduce
from tests.study.factories import make_plan
from trainables.costs.epoch import run_epoch
from trainables.data import image_progress, load_dataset
from trainables.process.errors import StudyError, UsageError
from trainables.process.threads import one_thread
from trainables.spec.measures import MEASURES
from trainables.spec.trial import TrialConfig
from trainables.steps.loss_log import NonFiniteLossError
from trainables.teacher.files import ensure_teacher
from trainables.tune.session import begin_run, describe_error

pytestmark = pytest.mark.study

BASE = {"teacher": "cnn_8_16", "epochs": 2, "batch_size": 128}


@pytest.fixture(autouse=True)
def _as_trials_run():
    """Use one thread, like trials, and reset deterministic algorithms afterwards."""
    with one_thread():
        yield
    if torch.are_deterministic_algorithms_enabled():  # set by the command, which normally has a separate process
        torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    """Folder with the common teacher of these studies."""
    folder = tmp_path_factory.mktemp("teachers")
    with one_thread():
        ensure_teacher(TrialConfig(**BASE), load_dataset("digits", None), folder)
    return folder


@pytest.fixture
def study_in(teachers):
    """Return a function that makes a study in a folder that already has the teacher."""

    def make(folder, **values):
        plan = make_plan(folder, **{"base": BASE, **values})
        plan.save()
        shutil.copytree(teachers, plan.teachers_folder, dirs_exist_ok=True)
        return plan

    return make


@pytest.fixture
def plan(tmp_path, study_in):
    return study_in(tmp_path)


def quiet(text):
    pass


def contents(folder):
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def settings_of(plan, config):
    """Return the settings of a trial as a study passes them."""
    teacher = ensure_teacher(plan.base, load_dataset("digits", None), plan.teachers_folder)
    stored = {"location": plan.teacher_outputs_location, "dtype": plan.teacher_outputs_dtype}
    return {
        "config": config.model_dump(mode="json"),
        "data_root": None,
        "teacher_path": str(teacher),
        "teacher_outputs": stored if plan.teacher_outputs_used == "stored" else None,
    }


def record(plan, *, change=lambda epoch, measures: measures, epochs=None, stage="control", **fields):
    """Run a trial as in a study, record it, and return the identifier."""
    ledger = StudyLedger(plan)
    config = plan.configure({**plan.search_space.default_point(), **fields}).with_seeds(plan.seed, len(ledger.entries))
    trial_id = ledger.open_trial(stage, config, len(ledger.entries)).trial_id
    run = begin_run({**settings_of(plan, config), "reads_test": stage == "confirm"})
    status, error = "finished", None
    while not run.finished and run.epoch != epochs:
        try:
            measures = run_epoch(run)
        except NonFiniteLossError as caught:
            status, error = "failed", describe_error(caught)
            break
        known = {name: float(measures[name]) for name in MEASURES if name in measures}
        ledger.record_epoch(trial_id, run.epoch, change(run.epoch, known))
    ledger.end_trial(trial_id, "pruned" if status == "finished" and not run.finished else status, error)
    ledger.close()
    return trial_id


def again(plan, trial_id):
    return reproduce(*find_trial(trial_id, None, plan.output_dir), quiet)


@pytest.mark.parametrize(
    ("source", "fields"),
    [("stored", {}), ("live", {}), ("stored", {"method": "kd"}), ("stored", {"method": "ce"}),
     ("live", {"method": "sp"})],
)  # fmt: skip
def test_a_trial_has_the_same_bits_again_and_nothing_is_written(tmp_path, study_in, source, fields):
    plan = study_in(tmp_path, base={**BASE, **fields}, teacher_outputs=source)
    trial_id = record(plan, **fields)
    before = contents(tmp_path)
    found = again(plan, trial_id)
    assert found.matches, found.largest
    (first, last) = found.entry.epochs.values()
    assert found.numbers == sum(name.startswith(("train/", "val/")) for name in [*first, *last]) > 2 * 8
    assert contents(tmp_path) == before


def test_a_trial_of_other_data_or_of_another_split_is_refused_before_a_teacher_is_trained_on_them(plan):
    trial_id = record(plan)
    sizes = {"train": 1077, "validation": 360}
    with closing(StudyLedger(plan)) as ledger:
        ledger.record_dataset({"digest": load_dataset("digits", None).digest, **sizes})
    assert again(plan, trial_id).matches
    with closing(Journal(plan.directory / "journal.jsonl")) as journal:
        journal.append({"event": "dataset", "dataset": {"digest": "0" * 64, **sizes}})
    shutil.rmtree(plan.teachers_folder)
    before, said = contents(plan.output_dir), []
    with pytest.raises(StudyError, match=f"on other data or another split.*but {'0' * 16} in the recorded trials"):
        reproduce(*find_trial(trial_id, None, plan.output_dir), said.append)
    assert not said
    assert contents(plan.output_dir) == before


def test_what_of_the_teacher_is_gone_is_made_anew_elsewhere(plan):
    trial_id = record(plan)
    for path in [*plan.teachers_folder.iterdir(), *(plan.output_dir / "teacher_outputs").rglob("*.arrow")]:
        path.unlink()
    before, said = contents(plan.output_dir), []
    found = reproduce(*find_trial(trial_id, None, plan.output_dir), said.append)
    assert found.matches, found.largest
    assert any("training it again for this run" in text for text in said)
    assert contents(plan.output_dir) == before


def test_one_changed_bit_is_found_and_named(plan):
    def change(epoch, measures):
        if epoch == 2:
            measures["val/entropy_student"] *= 1 + 2**-52
        return measures

    found = again(plan, record(plan, change=change))
    assert not found.matches
    (only,) = found.differences
    assert (only.epoch, only.measure) == (2, "val/entropy_student")
    assert 0 < only.size < 1e-14
    assert found.largest == only


def test_a_trial_that_was_stopped_early_runs_as_far_as_it_is_recorded(plan):
    trial_id, said = record(plan, epochs=1), []
    found = reproduce(*find_trial(trial_id, None, plan.output_dir), said.append)
    assert found.matches
    assert found.entry.status == "pruned"
    assert said == ["epoch 1 of 1: the same"]


def test_a_trial_that_failed_fails_again_in_the_same_way(plan):
    trial_id = record(plan, student_learning_rate=1e30)
    found = again(plan, trial_id)
    assert found.entry.status == "failed"
    assert "not finite" in found.entry.error
    assert found.matches
    assert found.error == found.entry.error
    ledger = StudyLedger(plan)
    config = ledger.entries[trial_id].config.model_copy(update={"student_learning_rate": 0.05})
    healthy = ledger.open_trial("control", config, 1).trial_id
    ledger.end_trial(healthy, "failed", "NonFiniteLossError: not finite")
    ledger.close()
    found = again(plan, healthy)
    assert not found.matches
    assert found.error is None


def test_a_confirmed_trial_does_not_read_the_test_split_again(plan, monkeypatch):
    ledger = StudyLedger(plan)
    choice, asked = Choice(label="first", config=plan.example_config, rank=1), ConfirmationRequest(configs=1, seeds=2)
    ledger.record_confirmation(Confirmation(request=asked, first_replicate=1, choices=(choice,), chosen_at=0.0))
    ledger.close()
    trial_id = record(plan, stage="confirm")
    _, entry = find_trial(trial_id, None, plan.output_dir)
    assert "test/accuracy" in entry.last

    def read(run):
        raise AssertionError("the test split was read")

    monkeypatch.setattr("trainables.run.run.DistillationRun.evaluate_test", read)
    assert reproduce(plan, entry, quiet).matches


def test_costs_and_the_test_split_are_not_compared_and_what_is_gone_differs():
    recorded = {
        1: {"val/loss": 0.5, "cost/seconds": 1.0},
        2: {"train/loss": 0.0, "test/accuracy": 0.9, "val/loss": 0.4},
    }
    now = {1: {"val/loss": 0.5, "cost/seconds": 2.0, "val/newer": 1.0}, 2: {"train/loss": -0.0}}
    assert list(compare(recorded, now)) == [
        Difference(2, "train/loss", 0.0, -0.0),
        Difference(2, "val/loss", 0.4, None),
    ]
    assert [each.size for each in compare(recorded, now)] == [0.0, float("inf")]


def test_the_nearest_trials_are_named_where_there_is_none_of_that_name(plan):
    record(plan)
    record(plan, epochs=1)
    for asked, name in (("planned-0010", None), ("plannd-0001", None), ("0001", None), ("planed-0001", "planned")):
        with pytest.raises(UsageError, match=r"similar: (planned-000\d, planned-000\d)"):
            find_trial(asked, name, plan.output_dir)
    with pytest.raises(UsageError, match="no study 'other'"):
        find_trial("planned-0001", "other", plan.output_dir)
    with pytest.raises(UsageError, match="not a valid study name"):
        find_trial("planned-0001", "../planned", plan.output_dir)
    with pytest.raises(UsageError, match="there is no study there"):
        find_trial("planned-0001", None, plan.output_dir / "empty")


def test_a_trial_of_which_nothing_was_recorded_is_refused(plan):
    ledger = StudyLedger(plan)
    config = plan.example_config.with_seeds(0, 0)
    ledger.open_trial("control", config, 0)
    died = ledger.open_trial("control", config, 1).trial_id
    ledger.end_trial(died, "failed", PROCESS_DIED)
    ledger.close()
    for trial_id in ("planned-0000", died):
        with pytest.raises(UsageError, match="has no recorded epoch, so there is nothing to compare"):
            find_trial(trial_id, None, plan.output_dir)


def test_why_bits_may_differ_is_told_by_the_plan(tmp_path):
    (usual,) = reasons_to_differ(make_plan(tmp_path), "cpu")
    assert "rounding" in usual
    assert "--pack 4" in reasons_to_differ(make_plan(tmp_path, name="packed", pack=4), "cpu")[1]
    on_gpus = make_plan(tmp_path, name="on-gpus", gpus_per_trial=0.5)
    assert "this one on the CPU." in reasons_to_differ(on_gpus, "cpu")[1]


def test_the_command_tells_by_its_exit_code_whether_the_bits_match(plan, command, monkeypatch):
    monkeypatch.setattr(image_progress, "_hidden", False)
    same = record(plan)
    other = record(plan, change=lambda epoch, measures: {**measures, "train/loss": measures["train/loss"] + epoch / 8})
    done = command(main, same, "--output-dir", plan.output_dir)
    assert done.code == 0, done.err
    assert f"{same} (w" in done.out
    assert "all bits match" in done.out
    assert done.err.splitlines() == ["epoch 1 of 2: the same", "epoch 2 of 2: the same"]

    done = command(main, other, "--output-dir", plan.output_dir, "--quiet")
    assert done.code == 1
    assert done.err == ""
    assert image_progress._hidden
    assert "2 differ" in done.out
    assert "first     epoch 1, train/loss: " in done.out
    assert "largest   epoch 2, train/loss: " in done.out
    assert "difference 0.25" in done.out
    assert "may differ in rounding" in done.out

    done = command(main, other, "--output-dir", plan.output_dir, "--quiet", "--json")
    told = json.loads(done.out)
    assert (done.code, told["matches"], told["different"]) == (1, False, 2)
    assert (told["first_difference"]["epoch"], told["largest_difference"]["epoch"]) == (1, 2)

    done = command(main, "planned-0009", "--output-dir", plan.output_dir)
    assert done.code == 2
    assert "similar: " in done.err
