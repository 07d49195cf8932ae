"""Differences over several studies: which runs count, how they are combined, and recovery of planted differences."""

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from analysis.pooling import differences_across, pool_studies
from analysis.questions.across import differences_in_words
from analysis.reading.trials import EXAMPLES, StudyRecords, compare_methods, open_study
from analysis.statistics.meta import random_effects_mean
from tests.analysis.synthetic import epochs_table, trial, trials_table, write_records

NO_EPOCHS = epochs_table([]).append_column("study", pa.array([], pa.string()))
POOL = [EXAMPLES / f"fashion-{space}" for space in ("adapter_width", "temperature", "joint")]


def study(name: str, kd: list[float], pesf: list[float], *, first_seed: int) -> list[dict[str, object]]:
    """Return the rows of a study with both methods on seeds that no other study has."""
    return [
        trial(len(kd) * number + replicate, study=name, trial_id=f"{name}-{method}-{replicate}", stage="control",
              method=method, config_id=method, replicate=replicate, seed=first_seed + replicate,
              data_seed=first_seed + replicate, adapter=False, **{"val/accuracy": score})
        for number, (method, scores) in enumerate({"kd": kd, "pesf_kd": pesf}.items())
        for replicate, score in enumerate(scores, start=1)
    ]  # fmt: skip


def pool_of(*studies: list[dict[str, object]]) -> StudyRecords:
    return StudyRecords(trials_table([row for rows in studies for row in rows]), NO_EPOCHS)


def test_independent_studies_are_combined_with_the_errors_of_their_paired_differences() -> None:
    scores = {
        "a": ([0.80, 0.82, 0.81, 0.83], [0.82, 0.83, 0.84, 0.84]),
        "b": ([0.70, 0.72, 0.73, 0.71], [0.70, 0.73, 0.72, 0.72]),
        "c": ([0.90, 0.91, 0.92, 0.93], [0.93, 0.95, 0.94, 0.95]),
    }
    pool = pool_of(*(study(name, *own, first_seed=100 * at) for at, (name, own) in enumerate(scores.items())))
    (found,) = differences_across(pool)
    differences = [np.subtract(pesf, kd) for kd, pesf in scores.values()]
    expected = random_effects_mean(
        [each.mean() for each in differences], [each.std(ddof=1) / 2 for each in differences]
    )
    assert found.combined.mean.value == pytest.approx(expected.mean.value)
    assert (found.combined.mean.low, found.combined.tau) == pytest.approx((expected.mean.low, expected.tau))
    assert (found.method, found.left_out, found.shared) == ("pesf_kd", {}, ())
    assert found.studies["a"].value == pytest.approx(differences[0].mean())
    said = differences_in_words([found])
    assert f"| pesf_kd | 3 | +{100 * expected.mean.value:.2f} [" in said
    assert "share seeds" not in said


def test_a_run_counts_once_and_studies_without_a_spread_or_with_two_seeds_are_named() -> None:
    kd, pesf = [0.80, 0.82, 0.81, 0.83], [0.82, 0.83, 0.84, 0.84]
    pool = pool_of(
        study("a", kd, pesf, first_seed=0),
        study("again", kd, pesf, first_seed=0),
        study("b", [0.70, 0.72, 0.73], [0.70, 0.73, 0.72], first_seed=100),
        study("few", [0.70, 0.72], [0.70, 0.73], first_seed=200),
        study("even", [0.70, 0.71, 0.72], [0.75, 0.76, 0.77], first_seed=300),
    )
    (found,) = differences_across(pool)
    assert list(found.studies) == ["a", "b"]
    assert found.left_out == {
        "again": "its runs repeat those of a",
        "few": "it has fewer than 3 paired seeds",
        "even": "its differences are all equal",
    }
    assert "- pesf_kd: again is left out, because its runs repeat those of a." in differences_in_words([found])
    assert "| unknown from two studies |" in differences_in_words([found])


def test_of_several_configs_the_one_that_the_search_preferred_is_taken() -> None:
    def config(name: str, promised: float, scores: list[float]) -> list[dict[str, object]]:
        of = {"study": "a", "method": "pesf_kd", "config_id": name, "adapter": False}
        rows = [trial(50, trial_id=f"a-{name}-search", **of, **{"val/accuracy": promised})]
        return rows + [
            trial(60 + r, trial_id=f"a-{name}-{r}", stage="replicate", replicate=r, seed=r, data_seed=r, **of,
                  **{"val/accuracy": score})
            for r, score in enumerate(scores, start=1)
        ]  # fmt: skip

    controls = [row for row in study("a", [0.80, 0.81, 0.82], [0, 0, 0], first_seed=0) if row["method"] == "kd"]
    preferred, better = config("preferred", 0.95, [0.79, 0.81, 0.80]), config("better", 0.9, [0.9, 0.92, 0.93])
    pool = pool_of([*controls, *better, *preferred], study("b", [0.7, 0.72, 0.73], [0.7, 0.73, 0.72], first_seed=9))
    (found,) = differences_across(pool)
    assert found.studies["a"].value == pytest.approx(-0.01)


def test_studies_with_equal_seeds_are_named_and_shared_runs_left_out() -> None:
    found = {each.method: each for each in differences_across(pool_studies(POOL), methods=["ce", "pesf_kd"])}
    assert found["pesf_kd"].shared == tuple(path.name for path in POOL)
    # All three studies have the same controls, so there is one observation of ce.
    assert list(found["ce"].left_out.values()) == ["its runs repeat those of fashion-adapter_width"] * 2
    assert math.isnan(found["ce"].combined.mean.value)
    rows = compare_methods(open_study(POOL[0]).trials)
    (ce,) = (row for row in rows if row.method == "ce")
    assert ce.against_baseline is not None
    assert found["ce"].studies[POOL[0].name].value == pytest.approx(ce.against_baseline.value)
    said = differences_in_words([*found.values()])
    assert "share seeds and therefore batches" in said
    assert "| ce |" not in said


def test_a_method_that_was_not_compared_is_refused_and_one_study_has_nothing_to_combine(tmp_path: Path) -> None:
    write_records(tmp_path / "a", trials_table(study("a", [0.7, 0.72], [0.7, 0.73], first_seed=0)), epochs_table([]))
    pool = pool_studies([tmp_path / "a"])
    with pytest.raises(ValueError, match="no study compared 'dkd' with 'kd' on equal seeds; compared were: pesf_kd"):
        differences_across(pool, methods=["dkd"])
    assert differences_across(pool) == []
    assert differences_in_words([]).startswith("No method was compared")


@pytest.mark.slow
def test_the_planted_mean_over_studies_is_covered() -> None:
    generator, pools, covered = np.random.default_rng(6), 80, 0
    for _ in range(pools):
        studies = []
        for number in range(5):
            effect = 0.01 + 0.01 * generator.normal()
            kd = 0.8 + 0.02 * generator.normal(size=5)
            pesf = kd + effect + 0.01 * generator.normal(size=5)
            studies.append(study(f"s{number}", kd.tolist(), pesf.tolist(), first_seed=100 * number))
        (found,) = differences_across(pool_of(*studies))
        covered += found.combined.mean.low <= 0.01 <= found.combined.mean.high
    # 0.95 minus three standard errors of 0.024.
    assert covered / pools >= 0.877
