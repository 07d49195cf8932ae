"""Answer of the report: evidence used, method named, and no claim beyond the intervals."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis.figures.study import compute_gap_against_accuracy
from analysis.questions.confirmation_words import verdict
from analysis.questions.intervention import imposed_gaps
from analysis.reading.trials import EXAMPLES, compare_methods, summarise_configs
from analysis.report.answer import Answer, answer
from analysis.report.folder import StudyFolder, read_folder
from tests.analysis.planted import measured, records
from tests.analysis.report.studies import PLAN, SUMMARY, write_study
from tests.analysis.synthetic import epochs_table, trial, trials_table, whole_study

pytestmark = pytest.mark.study


def answer_of(study: StudyFolder) -> Answer:
    """Return the answer of the report on a study."""
    trials = study.records.trials
    found = compute_gap_against_accuracy(study.records)
    summarise = compare_methods if study.compares_methods else summarise_configs
    confirmed = study.confirmation()
    methods = compare_methods(trials, confirmed=True) if study.compares_methods and confirmed is not None else []
    return answer(study, summarise(trials), confirmed, methods, found, [])


def confirmed_study(folder: Path, *, better_by: float, trials: int, noise: float = 0.004) -> StudyFolder:
    """Return a study with the first choice confirmed against kd on ten seeds, or on fewer so far."""
    generator, rows = np.random.default_rng(0), []
    for replicate in range(11, 21):
        shared = 0.02 * generator.normal()
        for config, more in (("first", better_by), ("kd", 0.0)):
            accuracy = 0.8 + more + shared + noise * generator.normal()
            own = {"stage": "confirm", "config_id": config, "replicate": replicate}
            rows.append(trial(len(rows), **own, **{"test/accuracy": accuracy, "val/accuracy": accuracy + 0.05}))
    chosen: list[dict[str, Any]] = [
        {"config_id": "first", "label": "width 16", "rank": 1, "control": None, "winner": True, "search_score": 0.95},
        {"config_id": "kd", "label": "kd (T 4)", "rank": None, "control": "kd", "winner": False, "search_score": None},
    ]
    confirmation = {"configs": [each | {"bound": None} for each in chosen], "trials": {"planned": 20}}
    summary = SUMMARY | {"confirmation": confirmation}
    write_study(folder, trials_table(rows[:trials]), epochs_table([]), plan=PLAN, summary=summary)
    return read_folder(folder)


def test_a_confirmation_is_told_of_on_the_test_split(tmp_path: Path) -> None:
    study = confirmed_study(tmp_path / "s", better_by=0.05, trials=20)
    found = answer_of(study)
    assert found.basis == "confirmed"
    assert "test split" in found.rests_on
    confirmed = study.confirmation()
    assert confirmed is not None
    mean, difference = confirmed.configs[0].test_accuracy, confirmed.comparisons[0].difference
    assert (
        f"it reaches a test accuracy of {mean.value:.3f} [{mean.low:.3f}, {mean.high:.3f}] over 10 seeds"
        in found.verdict
    )
    assert found.verdict.startswith(
        "width 16 is better than kd (T 4): "
        f"{difference.value:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}] by seed, p = 0.002"
    )


@pytest.mark.parametrize(
    ("noise", "said"),
    [
        (0.004, "is no better and no worse than kd (T 4) by 0.005 or more: "),
        (0.02, "is not distinguishable from kd (T 4): "),
    ],
)
def test_a_tie_is_no_better_only_if_the_difference_is_shown_to_be_small(
    noise: float, said: str, tmp_path: Path
) -> None:
    found = answer_of(confirmed_study(tmp_path / "s", better_by=0.0, trials=20, noise=noise))
    assert f"width 16 {said}" in found.verdict


def test_the_highest_mean_is_named_if_it_is_not_that_of_the_first_choice(tmp_path: Path) -> None:
    found = answer_of(confirmed_study(tmp_path / "s", better_by=-0.05, trials=20))
    assert found.verdict.startswith("width 16 is worse than kd (T 4): −0.0")
    assert " The highest mean of 2 confirmed configs is that of kd (T 4), with 0.797 [" in found.verdict


def test_the_answer_of_a_confirmed_comparison_rests_on_the_confirmed_rows_alone() -> None:
    study = read_folder(EXAMPLES / "fashion-method-tuned")
    found = answer_of(study)
    rows = compare_methods(study.records.trials, confirmed=True, seed=study.seed)
    worse = [row.method for row in rows if row.against_baseline and row.against_baseline.high < 0]
    worse = [row.method for row in rows if row.method in worse and (row.corrected_p or 1) <= 0.05]
    # On the validation rows, which have other seeds, no method is worse.
    assert found.basis == "confirmed"
    assert found.verdict == (
        "No method is shown to be better than kd; of 19 other methods, 4 are worse than kd "
        f"({', '.join(worse)}), 15 are not distinguishable from kd, by p-values corrected by Holm."
    )
    best = max(rows, key=lambda row: row.accuracy.value)
    assert found.detail.startswith(f"Of 20 methods, {best.method} has the highest mean test accuracy, ")
    assert best.method == "ttm"
    assert "is not distinguishable from kd by the corrected p-value, though the interval" in found.detail
    confirmed = study.confirmation()
    assert confirmed is not None
    assert verdict(confirmed)[0].startswith("No method is shown to be better than kd; of 19 other methods, 4 are worse")
    assert verdict(confirmed)[1].startswith("Of 20 methods, ttm has the highest mean test accuracy")


def test_methods_that_were_not_confirmed_are_counted_on_the_validation_split() -> None:
    found = answer_of(read_folder(EXAMPLES / "sst2-pkd"))
    assert found.basis == "repeated"
    assert found.verdict.startswith("No method is shown to be better than kd; of 2 other methods, 2 are not disting")
    assert found.detail.startswith("Of 3 methods, ce has the highest mean validation accuracy, 0.839 [")


def test_a_confirmation_that_is_under_way_is_not_looked_at(tmp_path: Path) -> None:
    study = confirmed_study(tmp_path / "s", better_by=0.05, trials=19)
    found = answer_of(study)
    assert study.confirmation() is None
    assert found.basis == "nothing"
    assert "test accuracy" not in found.verdict


def test_repetitions_are_said_to_be_of_fresh_seeds_and_the_validation_split(tmp_path: Path) -> None:
    study = read_folder(write_study(tmp_path / "s", *whole_study(), plan=PLAN, summary=SUMMARY))
    found = answer_of(study)
    best = max(
        (c for c in summarise_configs(study.records.trials) if c.stage == "replicate"), key=lambda c: c.accuracy.value
    )
    assert found.basis == "repeated"
    assert "Repeated: validation split, on fresh seeds" in found.rests_on
    assert f"adapter width {best.varied['adapter_width']}" in found.verdict
    assert (
        f"{best.accuracy.value:.3f} [{best.accuracy.low:.3f}, {best.accuracy.high:.3f}] over 5 seeds" in found.verdict
    )
    assert "uncorrected" in found.verdict
    assert "rank correlation" in found.detail
    assert found.detail.endswith("exploratory, validation split, at epoch 5, the last epoch that all of them reached.")


def test_a_search_alone_has_no_interval(tmp_path: Path) -> None:
    rows = [trial(number, **{"val/accuracy": 0.5 + 0.01 * number}) for number in range(4)]
    found = answer_of(read_folder(write_study(tmp_path / "s", trials_table(rows), epochs_table([]))))
    assert found.basis == "searched"
    assert "The best of 4 finished configs scored 0.530 on one seed" in found.verdict
    assert "[" not in found.verdict
    assert "The correlation of gap and accuracy is undefined" in found.detail


@pytest.mark.parametrize("slope", [0.0, 0.05])
def test_the_gap_is_said_to_matter_only_where_its_interval_says_so(slope: float, tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    gaps = generator.normal(size=30)
    rows = [
        trial(number, **{"val/sharpness_gap": gap, "val/accuracy": 0.7 + slope * gap + 0.01 * generator.normal()})
        for number, gap in enumerate(gaps)
    ]
    made = records(rows)
    said = answer_of(read_folder(write_study(tmp_path / "s", made.trials, made.epochs))).detail
    assert ("a larger sharpness gap had the higher accuracy" in said) == bool(slope)
    assert ("no clear association" in said) == (not slope)


def test_arms_whose_targets_do_not_vary_are_not_answered_for_by_a_correlation_over_all_of_them(tmp_path: Path) -> None:
    rows = [
        trial(n, gap_control=control, gap_target=1.0, epochs=1, **measured(n, 0.5 + n / 50))
        for n, control in enumerate(["paper"] * 6 + ["placebo"] * 6)
    ]
    planted = records(rows)
    study = read_folder(write_study(tmp_path / "s", planted.trials, planted.epochs, plan=PLAN, summary=SUMMARY))
    found, arms = compute_gap_against_accuracy(study.records), imposed_gaps(study.records)
    assert np.isnan(found.correlation.value)
    told = answer(study, [], None, [], found, arms)
    assert told.detail == "The effect of the imposed gap on accuracy is undefined: no arm has different targets."
