"""Model card of a confirmed student."""

from pathlib import Path

import pytest

from study.ledger.students import first_confirmed, student_path
from study.ledger.study_data import data_of
from study.tracking.student_card import card_of, card_path
from tests.study.confirmed import confirmed_study
from trainables.data import load_dataset
from trainables.models.taken_weights import FoundWeights, TakenWeights
from trainables.run.run import DistillationRun
from trainables.spec.trial import TrialConfig

pytestmark = pytest.mark.study


@pytest.fixture(scope="module")
def run():
    return DistillationRun(TrialConfig(method="ce", epochs=1), load_dataset("digits", None), None)


@pytest.fixture
def written(tmp_path, run):
    """Return a model card, the ledger entry, the config and the result of a confirmation."""
    ledger, result = confirmed_study(tmp_path, run)
    entry = first_confirmed(ledger)
    entry.last["val/accuracy_teacher"] = 0.987
    entry.last["test/accuracy"] = 0.85
    first = next(config for config in result.configs if config.rank == 1)
    data = data_of(ledger.plan, None)
    card = card_of(ledger.plan, entry, first, result, data=data, registered_as="pesfkd-digits-cnn_3_4")
    return card, entry, first, result


def test_a_card_says_what_it_is_and_what_it_learnt_from(written):
    card, entry, *_ = written
    assert card.startswith("# cnn_3_4 on digits, distilled from cnn_32_64 by pesf_kd\n")
    for words in (
        "- data: `digits` (scikit-learn's load_digits",
        "10 classes; 1,077, 360, 360 images to train, validate and test, split seed 0",
        "- teacher: `cnn_32_64`, trained for",
        "accuracy 0.9870 on the validation split",
        f"adapter_width {entry.config.adapter_width}",
        "## Limits",
    ):
        assert words in card


def test_a_card_names_the_weights_that_a_given_teacher_has(tmp_path, run):
    ledger, result = confirmed_study(tmp_path, run)
    base = ledger.plan.base.model_copy(update={"teacher_digest": "0123456789abcdef"})
    taken = TakenWeights("ema", "model_ema", (FoundWeights("raw", "model"),))
    plan = ledger.plan.model_copy(update={"base": base, "teacher_weights": taken})
    first = next(config for config in result.configs if config.rank == 1)
    card = card_of(plan, first_confirmed(ledger), first, result, data=data_of(plan, None), registered_as="a-name")
    assert (
        "- teacher: `cnn_32_64`, given as a checkpoint, digest `0123456789abcdef`, EMA weights under 'model_ema'; the "
        "file also has raw weights under 'model' (--teacher-weights raw)"
    ) in card


def test_every_accuracy_has_its_interval_and_n(written):
    card, _, first, result = written
    test, validation = first.test_accuracy, first.accuracy
    for split, accuracy in (("test", test), ("validation", validation)):
        row = f"| {split} | {accuracy.value:.3f} | [{accuracy.low:.3f}, {accuracy.high:.3f}] | 6 seeds |"
        assert f"| the config, over seeds {row}" in card
    # Wilson's interval, by hand: (0.85 + z²/720 ± z · sqrt(0.85 · 0.15/360 + z²/(4 · 360²))) / (1 + z²/360).
    assert "| these weights | test | 0.8500 | [0.8094, 0.8832] | 360 images |" in card
    own = [each for each in result.comparisons if each.config_id == first.config_id]
    assert own
    for each in own:
        assert f"| {each.against_label} | {each.difference.value:+.3f} [" in card


def test_a_card_says_how_to_load_the_student(written):
    card, entry, *_ = written
    digits = "pixels 0 to 240 (scikit-learn's 0 to 16, times 15)"
    assert f"Takes uint8 images (batch, 1, 8, 8), {digits}, not normalised; returns logits (batch, classes)." in card
    assert "Classes, in the order of the logits: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9." in card
    assert 'mlflow.pyfunc.load_model("models:/pesfkd-digits-cnn_3_4@ALIAS").predict(images)' in card
    assert f'load_student(Path("{entry.trial_id}.safetensors"))' in card


def test_commands_name_the_folder_that_the_study_lies_in_unless_it_is_the_usual_one(tmp_path, run):
    ledger, result = confirmed_study(tmp_path / "a place", run)
    entry, first = first_confirmed(ledger), result.first
    for plan, where in (
        (ledger.plan, f" --output-dir '{tmp_path}/a place'"),
        (ledger.plan.model_copy(update={"output_dir": Path("study_results")}), ""),
    ):
        card = card_of(plan, entry, first, result, data=data_of(plan, None), registered_as="pesfkd-digits-cnn_3_4")
        assert f"`python -m study.rerun {entry.trial_id}{where}`" in card
        assert f"`python -m study.export planned --format onnx{where}` (or" in card


def test_a_card_is_one_page(written):
    card, *_ = written
    assert len(card) < 5_000  # the limit of a description in MLflow's stores
    assert len(card.splitlines()) < 60


def test_a_card_lies_beside_the_weights(tmp_path, run):
    ledger, _ = confirmed_study(tmp_path, run, name="v1.2")
    path = student_path(ledger.plan, "v1.2-0003")
    assert card_path(path) == path.parent / "v1.2-0003.md"
