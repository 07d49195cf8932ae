"""Typed views of the records of a study."""

import math
import os
from pathlib import Path

import pyarrow.compute as pc
import pytest
from scipy import stats

from analysis.figures.curves import compute_learning_curves
from analysis.reading.trials import (
    EXAMPLE,
    ConfigSummary,
    find_study,
    markdown_table,
    numbers,
    open_study,
    select,
    summarise_configs,
    survivor_note,
    varied_fields,
    within_reach,
)
from analysis.statistics.estimates import Estimate
from tests.analysis.synthetic import epochs_table, trial, trials_table, whole_study, write_records

RESULTS = Path(__file__).parents[3] / "docs" / "results"


def accuracy(value: float | None) -> dict[str, float | None]:
    return {"val/accuracy": value}


def repeated(number: int, replicate: int, value: float, **changes: object) -> dict[str, object]:
    row = {"stage": "replicate", "replicate": replicate, "config_id": "A", "name": f"w8-T4.0-s{replicate}"}
    return trial(number, **{**row, **accuracy(value), **changes})


def control(number: int, replicate: int, value: float, method: str = "kd") -> dict[str, object]:
    changes = {
        "stage": "control",
        "method": method,
        "config_id": method,
        "name": f"{method}-T4.0-s{replicate}",
    }
    return repeated(number, replicate, value, **changes)


def test_a_null_measure_reads_as_nan() -> None:
    values = numbers(trials_table([trial(0, **accuracy(0.5)), trial(1)]), "val/accuracy")
    assert values[0] == 0.5
    assert math.isnan(values[1])


def test_trials_are_selected_by_stage_and_status() -> None:
    table = trials_table([trial(0), trial(1, status="pruned"), control(2, 1, 0.5)])
    assert select(table)["trial_id"].to_pylist() == ["s-0000", "s-0002"]
    assert select(table, stages=["search"], statuses=None)["trial_id"].to_pylist() == ["s-0000", "s-0001"]


def test_the_varied_fields_are_those_of_the_search_and_no_seed_among_them() -> None:
    rows = [trial(0, adapter_width=2, data_seed=1), trial(1, adapter_width=4), control(2, 1, 0.5)]
    rows[2]["temperature"] = 9.0
    assert varied_fields(trials_table(rows)) == ("adapter_width",)


def test_a_configs_mean_leaves_out_the_search_trial_that_it_was_picked_by() -> None:
    rows = [
        trial(0, config_id="A", adapter_width=8, **accuracy(0.99)),
        trial(1, adapter_width=2, **accuracy(0.1)),
    ]
    rows += [repeated(2, 1, 0.60, adapter_width=8), repeated(3, 2, 0.70, adapter_width=8)]
    (summary,) = summarise_configs(trials_table(rows))
    assert summary.accuracy.value == pytest.approx(0.65)
    assert summary.accuracy.n == 2
    assert summary.search_accuracy == 0.99
    assert summary.varied == {"adapter_width": 8}
    assert summary.name == "w8-T4.0"
    assert summary.against_baseline is None
    assert summary.test_accuracy.n == 0


def test_configs_are_compared_with_the_baseline_within_shared_finished_replicates() -> None:
    rows = [
        repeated(0, 1, 0.6),
        repeated(1, 2, 0.8),
        repeated(2, 3, 0.9),
        repeated(3, 4, 0.1, status="failed"),
    ]
    rows += [control(4, 2, 0.5), control(5, 1, 0.4), control(6, 4, 0.9), control(7, 1, 0.3, method="ce")]
    kd, ce, promising = summarise_configs(trials_table(rows))
    assert (kd.method, ce.method, promising.config_id) == ("kd", "ce", "A")
    assert kd.against_baseline is None
    assert promising.against_baseline is not None
    assert promising.against_baseline.n == 2
    assert promising.against_baseline.value == pytest.approx(0.25)
    assert promising.accuracy.n == 3
    assert ce.against_baseline is not None
    assert ce.against_baseline.value == pytest.approx(-0.1)


def test_a_mean_of_few_seeds_is_shown_within_what_is_possible_and_says_so() -> None:
    rows = [repeated(0, 1, 0.97), repeated(1, 2, 0.99)]
    rows += [control(number + 2, number + 1, value) for number, value in enumerate((0.60, 0.61))]
    for row in rows:
        row["test/accuracy"] = row["val/accuracy"] - 0.96 if row["config_id"] == "A" else 0.5
    kd, near_one = summarise_configs(trials_table(rows))
    uncut = stats.t.interval(0.95, 1, 0.98, 0.01)
    assert uncut[1] > 1
    assert (near_one.accuracy.value, near_one.accuracy.low) == pytest.approx((0.98, uncut[0]))
    assert near_one.accuracy.high == 1.0
    assert near_one.test_accuracy.value == pytest.approx(0.02)
    assert (near_one.test_accuracy.low, near_one.test_accuracy.high) == (0.0, pytest.approx(0.02 + 0.98 - uncut[0]))
    assert near_one.accuracy.method.endswith("cut to the possible range, 0 to 1")
    assert "cut" not in kd.accuracy.method


def test_a_correlation_may_be_negative_and_a_gap_has_no_range() -> None:
    rows = [
        repeated(number, number + 1, 0.5, dataset="glue:cola", **{"val/matthews": value, "val/sharpness_gap": gap})
        for number, (value, gap) in enumerate([(0.02, -0.5), (0.10, 2.5)])
    ]
    (summary,) = summarise_configs(trials_table(rows))
    assert summary.accuracy.low < 0
    assert "cut" not in summary.accuracy.method
    assert summary.gap.high > 10
    rows[1]["val/matthews"] = 0.9
    (wide,) = summarise_configs(trials_table(rows))
    assert (wide.accuracy.low, wide.accuracy.high) == (-1.0, 1.0)
    assert wide.accuracy.method.endswith("cut to the possible range, −1 to 1")


def test_a_difference_is_cut_to_what_scores_can_differ_by_and_never_without_a_word() -> None:
    unbounded = Estimate(-0.1, -math.inf, 0.1, 6, "difference, no lower bound: a reason; a test", 0.2)
    of_accuracy, of_matthews = within_reach(unbounded, "val/accuracy"), within_reach(unbounded, "val/matthews")
    assert (of_accuracy.low, of_accuracy.value, of_accuracy.high) == (-1.0, -0.1, 0.1)
    assert (of_matthews.low, of_matthews.high) == (-2.0, 0.1)
    expected = "difference, no lower bound: a reason, cut to the possible range, −1 to 1; a test"
    assert of_accuracy.method == expected
    within = Estimate(-0.1, -0.2, 0.1, 6, "difference; a test", 0.2)
    assert within_reach(within, "val/f1") == within


def test_controls_come_first_and_then_the_best() -> None:
    trials, _ = whole_study()
    summaries = summarise_configs(trials)
    assert [summary.stage for summary in summaries] == ["control"] * 2 + ["replicate"] * 3
    means = [summary.accuracy.value for summary in summaries[2:]]
    assert means == sorted(means, reverse=True)


def test_a_method_with_an_adapter_that_it_could_do_without_is_another_method() -> None:
    rows = [
        trial(0, method="dkd", adapter=True, config_id="with"),
        repeated(1, 1, 0.6, method="dkd", adapter=True, config_id="with"),
        repeated(2, 1, 0.5, method="dkd", adapter=False, stage="control", config_id="alone"),
    ]
    assert [summary.method for summary in summarise_configs(trials_table(rows))] == ["dkd", "dkd+adapter"]
    epochs = epochs_table([{"trial_id": row["trial_id"], "epoch": 1, "val/accuracy": 0.5} for row in rows])
    curves = compute_learning_curves(trials_table(rows), epochs)
    assert {(curve.method, curve.n) for curve in curves} == {("dkd", 1), ("dkd+adapter", 1)}


def test_survivors_are_spoken_of_only_where_some_trials_did_not_finish() -> None:
    assert survivor_note(trials_table([trial(0), repeated(1, 1, 0.5, status="failed")])) is None
    note = survivor_note(trials_table([trial(0), trial(1, status="pruned"), trial(2, status="failed")]))
    assert note is not None
    assert "of 3 search trials, 1 stopped early and 1 failed" in note


def test_the_table_shows_every_estimate_with_n_and_names_the_methods() -> None:
    trials, _ = whole_study()
    lines = markdown_table(summarise_configs(trials)).splitlines()
    assert lines[0].count("|") == lines[1].count("|") == lines[2].count("|") == 9
    assert "test accuracy" in lines[0]
    assert lines[2].startswith("| kd (config-kd) | control | 5 | 0.")
    assert any("Student t interval" in line for line in lines)
    assert any("not corrected" in line for line in lines)


def test_the_table_leaves_out_a_test_split_that_was_not_read() -> None:
    table = markdown_table(summarise_configs(trials_table([repeated(0, 1, 0.5)])))
    assert "test accuracy" not in table
    assert "| 1 | 0.500 |" in table


def test_a_study_that_repeated_nothing_says_so_in_the_tables_place() -> None:
    assert "No config was repeated" in markdown_table(summarise_configs(trials_table([trial(0)])))


def test_a_study_is_opened_from_its_folder(tmp_path: Path) -> None:
    write_records(tmp_path, *whole_study())
    records = open_study(tmp_path)
    assert records.trials.num_rows == 24 + 25
    assert records.epochs.num_rows > 400


def test_a_folder_without_records_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="contains no records"):
        open_study(tmp_path)


def test_the_named_study_is_found_and_without_a_name_the_one_written_to_last(tmp_path: Path) -> None:
    for name, at in (("old", 1_000), ("newest", 3_000), ("older", 2_000)):
        folder = tmp_path / name / "records" / "trials"
        folder.mkdir(parents=True)
        os.utime(folder, (at, at))
    assert find_study(None, tmp_path) == tmp_path / "newest"
    assert find_study("elsewhere", tmp_path) == Path("elsewhere")


def test_without_any_study_it_is_the_example(tmp_path: Path) -> None:
    assert find_study(None, tmp_path) == EXAMPLE


@pytest.mark.parametrize("study", ["adapter_width", "temperature", "joint"])
def test_the_examples_are_real_studies_whose_results_the_documentation_shows(study: str) -> None:
    folder = EXAMPLE.with_name(f"fashion-{study}")
    records = open_study(folder)
    assert records.epochs.num_rows == 8 * records.trials.num_rows
    assert set(records.trials["dataset"].to_pylist()) == {"fashion_mnist"}
    assert set(records.trials["status"].to_pylist()) == {"finished"}
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 1_000_000
    configs = summarise_configs(records.trials)
    assert len(configs) == 4
    page = (RESULTS / "fashion_mnist.md").read_text(encoding="utf-8")
    assert [figures for figures in map(figures_on_page, configs) if figures not in page] == []


def test_the_shipped_text_study_is_what_the_documentation_shows() -> None:
    """Means of the confirmed trials, computed here from the records."""
    confirmed = select(open_study(EXAMPLE.with_name("sst2-adapter-width")).trials, stages=["confirm"])
    assert set(confirmed["dataset"].to_pylist()) == {"glue:sst2"}
    page = (RESULTS / "sst2.md").read_text(encoding="utf-8")
    configs = set(confirmed["config_id"].to_pylist())
    assert len(configs) == 5
    for config in configs:
        rows = confirmed.filter(pc.equal(confirmed["config_id"], config))
        cells = [str(rows.num_rows)]
        for name, digits in (("test/accuracy", 3), ("val/accuracy", 3), ("val/sharpness_gap", 2)):
            values = numbers(rows, name)
            low, high = stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values))
            cells.append(f"{values.mean():.{digits}f} ± {(high - low) / 2:.{digits}f}".replace("-", "−"))
        assert f"| {' | '.join(cells)} |" in page


def figures_on_page(config: ConfigSummary) -> str:
    """Return the cells of a repeated config in the table of the results, after the name."""
    accuracy, gap, against = config.accuracy, config.gap, config.against_baseline
    cells = [
        str(accuracy.n),
        f"{accuracy.value:.3f} ± {accuracy.high - accuracy.value:.3f}",
        f"{gap.value:.2f} ± {gap.high - gap.value:.2f}",
        f"{against.value:+.3f} [{against.low:+.3f}, {against.high:+.3f}]" if against else "",
        f"{against.p_value:.2f}" if against else "",
        f"{config.search_accuracy:.3f}" if config.search_accuracy is not None else "",
    ]
    return ("| " + " | ".join(cells) + " |").replace("-", "−").replace("|  |", "| |").replace("|  |", "| |")
