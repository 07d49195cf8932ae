"""Export of a confirmed student as int8 program, with accuracies over all seeds and readings of the test split."""

import json

import onnx
import pytest

import pesfkd
from study.export import main
from study.ledger.students import confirmed_students
from study.plan.siblings import readings, readings_note
from study.result import int8
from tests.study.confirmed import GAINS, confirmed_study
from trainables.data import load_dataset
from trainables.process.errors import UsageError
from trainables.students.file import load_student

pytestmark = pytest.mark.study
SEEDS = 2


@pytest.fixture(scope="module")
def study(tmp_path_factory, run):
    """Ledger of a confirmed study with two seeds, named `planned`."""
    ledger, _ = confirmed_study(tmp_path_factory.mktemp("int8"), run, gains=GAINS[:SEEDS])
    ledger.plan.save()
    return ledger


@pytest.fixture(scope="module")
def folder(study):
    return study.plan.output_dir


def test_float_and_int8_are_compared_over_all_seeds_on_the_test_split(study, folder, command, tmp_path):
    out, before = tmp_path / "small.onnx", readings(study.plan).again
    done = command(main, "planned", "--int8", "--out", out, "--output-dir", folder, "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    found, test = told["int8"], load_dataset("digits", None).test
    assert [each["trial_id"] for each in found["seeds"]] == [e.trial_id for e, _ in confirmed_students(study)]
    for each, (_, path) in zip(found["seeds"], confirmed_students(study), strict=True):
        exact = (load_student(path).logits(test.images).argmax(dim=1) == test.labels).double().mean()
        assert each["float"] == pytest.approx(float(exact), abs=1e-9)
        assert abs(each["float"] - each["int8"]) < 0.1
    assert found["drop"]["n"] == found["float"]["test_accuracy"]["n"] == SEEDS
    assert found["drop"]["value"] == pytest.approx(
        sum(each["float"] - each["int8"] for each in found["seeds"]) / SEEDS, abs=1e-12
    )
    assert found["int8"]["size_bytes"] == told["bytes"] == out.stat().st_size
    assert (found["calibration_images"], found["calibration_seed"], found["latency_threads"]) == (512, 0, 1)
    for program in ("float", "int8"):
        for batch in (1, 32):
            assert found[program][f"latency_{batch}_runs"] >= 30
            assert found[program][f"latency_{batch}_seconds"] > 0
    card = out.with_suffix(".md").read_text()
    assert told["card"] == str(out.with_suffix(".md"))
    assert f"{out.stat().st_size:,}" in card
    assert all(each["trial_id"] in card for each in found["seeds"])
    facts = {each.key: each.value for each in onnx.load(out).metadata_props}
    assert "512 training images" in facts["int8"]
    assert json.loads(facts["class_names"]) == list("0123456789")
    assert readings(study.plan).again == before + SEEDS


def test_a_larger_loss_than_allowed_writes_nothing_but_the_reading(study, folder, command, tmp_path, monkeypatch):
    shares = iter([0.90, 0.85, 0.92, 0.89])  # float and int8 of each seed
    monkeypatch.setattr("trainables.students.int8.accuracy_of", lambda *_, **__: next(shares))
    out, before = tmp_path / "lossy.onnx", readings(study.plan).again
    done = command(main, "planned", "--int8", "--max-drop", "0.01", "--out", out, "--output-dir", folder)
    assert done.code == 1
    for words in (
        "loses +0.040",
        "float32 0.910 [0.783, 1.000]",
        "int8 0.870",
        "n = 2 seeds",
        "--max-drop 0.01: nothing was written",
    ):
        assert words in done.err
    assert not list(tmp_path.iterdir())
    assert readings(study.plan).again == before + SEEDS


def test_a_loss_as_large_as_allowed_is_accepted_and_python_does_the_same(study, folder, tmp_path, monkeypatch):
    own = pesfkd.open(folder / "planned")
    shares = iter([0.5, 0.25] * SEEDS)
    monkeypatch.setattr("trainables.students.int8.accuracy_of", lambda *_, **__: next(shares))
    path = own.export(tmp_path / "student.onnx", int8=True, max_drop=0.25, threads=1)
    assert "+0.250" in path.with_suffix(".md").read_text()
    with pytest.raises(UsageError, match="threads=0: give a whole number from 1"):
        own.export(tmp_path / "other.onnx", int8=True, threads=0)


def test_readings_after_the_confirmation_are_in_the_note_and_a_damaged_line_counts(study, folder):
    path = folder / "planned" / "test_readings.jsonl"
    kept = path.read_bytes() if path.exists() else b""
    path.write_text('{"trial_ids": ["a", "b", "c"]}\nbroken\n')
    assert readings(study.plan).again == 4
    path.write_bytes(kept)


def test_the_note_counts_trials_and_readings(monkeypatch, study):
    from study.plan import siblings

    monkeypatch.setattr(siblings, "readings", lambda _: siblings.Readings(20, ("a",), (), 10))
    assert "20 trials of 1 study in this folder (a), and 10 times more with their students" in readings_note(study.plan)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--int8", "--format", "torch-export"), "leave out --format torch-export"),
        (("--max-drop", "0.01"), "--max-drop is for --int8"),
        (("--threads", "2"), "--threads is for --int8"),
        (("--int8", "--max-drop", "1"), "give a loss of accuracy from 0 to below 1"),
        (("--int8", "--max-drop", "-0.1"), "give a loss of accuracy from 0 to below 1"),
        (("--int8", "--max-drop", "nan"), "give a loss of accuracy from 0 to below 1"),
        (("--int8", "--threads", "0"), "greater than or equal to 1"),
        (("--int8", "--threads", "100000"), "this process may use"),
        (("--int8", "--out", "student.int8"), "must end in .onnx"),
    ],
)
def test_wrong_input_is_refused_before_any_reading(study, folder, command, arguments, says):
    before = readings(study.plan).again
    done = command(main, "planned", *arguments, "--output-dir", folder)
    assert done.code == 2
    assert says in done.err
    assert readings(study.plan).again == before


def test_a_card_that_is_there_is_replaced_only_by_force(study, folder, command, tmp_path):
    (tmp_path / "student.md").write_text("mine")
    done = command(main, "planned", "--int8", "--out", tmp_path / "student.onnx", "--output-dir", folder)
    assert done.code == 2
    assert "replace both with --force" in done.err
    assert (tmp_path / "student.md").read_text() == "mine"


def test_students_of_text_are_refused(study):
    text = study.plan.model_copy(update={"base": study.plan.base.model_copy(update={"dataset": "glue:rte"})})
    with pytest.raises(ValueError, match="--int8 is for students of images, and glue:rte has text"):
        int8.check_int8(text, is_onnx=True, max_drop=None, threads=None)


def test_changed_data_are_refused_before_a_reading(study, folder, command, tmp_path, monkeypatch):
    data = load_dataset("digits", None)
    data.digest = "0" * 64
    monkeypatch.setattr(int8, "_dataset", lambda *_: data)
    before = readings(study.plan).again
    done = command(main, "planned", "--int8", "--out", tmp_path / "x.onnx", "--output-dir", folder)
    assert done.code == 1
    assert "have changed since" in done.err
    assert readings(study.plan).again == before
