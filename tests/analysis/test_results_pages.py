"""Sentences with numbers on the pages of results are computed here from the shipped records.

The tables of these pages are compared in tests/analysis/reading/test_trials.py and tests/analysis/questions/.
"""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from analysis.questions.association import between_configs
from analysis.questions.costs import config_costs
from analysis.reading.landmark import at_landmark
from analysis.reading.trials import EXAMPLES, compare_methods, open_study, select, summarise_configs

pytestmark = pytest.mark.study

DOCS = EXAMPLES.parents[1] / "docs"
FIRST = EXAMPLES / "first-study"


def page(name):
    return words(DOCS / "results" / f"{name}.md")


def words(path):
    """Return the text of a page on one line, with hyphens for minus signs."""
    return " ".join(path.read_text(encoding="utf-8").replace("−", "-").split())


def scores(method, width=None):
    """Return the accuracies of a config of the first study on fresh seeds, by replicate."""
    rows = select(open_study(FIRST).trials, stages=["control", "replicate"]).to_pylist()
    own = [row for row in rows if row["method"] == method and (width is None or row["adapter_width"] == width)]
    return np.array([row["val/accuracy"] for row in sorted(own, key=lambda row: row["replicate"])])


def test_the_first_study_is_what_its_page_and_the_readme_show():
    text, readme = page("digits"), words(Path(DOCS.parent / "README.md"))
    configs = summarise_configs(open_study(FIRST).trials)
    assert len(configs) == 5
    for config in configs:
        accuracy, gap, against = config.accuracy, config.gap, config.against_baseline
        means = [
            f"{accuracy.value:.3f} ± {accuracy.high - accuracy.value:.3f}",
            f"{gap.value:.2f} ± {gap.high - gap.value:.2f}",
        ]
        cells = [str(accuracy.n), *means]
        if against is not None:
            cells += [f"{against.value:+.3f} [{against.low:+.3f}, {against.high:+.3f}]", f"{against.p_value:.3f}"]
            assert f"{against.value:+.3f}" in readme
        cells += [f"{config.search_accuracy:.3f}"] if config.search_accuracy is not None else []
        assert f"| {' | '.join(cells)} |" in text
        assert [mean for mean in means if mean not in readme] == []


def test_sentences_about_the_first_study_are_those_of_the_records():
    study = open_study(FIRST)
    text = page("digits")
    assert text.startswith("# Adapter width on digits")
    assert f"{study.trials.num_rows} trials take" in text
    (teacher,) = set(study.trials["val/accuracy_teacher"].to_pylist())
    assert f"reaches {teacher:.3f} on validation" in text
    kd, best = scores("kd"), scores("pesf_kd", 12)
    assert f"the standard deviation of plain distillation is {kd.std(ddof=1):.3f}" in text
    correlation = f"{np.corrcoef(kd, best)[0, 1]:.2f}"
    assert f"(correlation {correlation})" in text
    assert f"the paired differences have a standard deviation of {(best - kd).std(ddof=1):.3f}" in text
    estimate = between_configs(at_landmark(study, searched=True), "paper").estimate
    assert f"{estimate.value:+.2f} [{estimate.low:+.2f}, {estimate.high:+.2f}]" in text
    promising = [each for each in summarise_configs(study.trials) if each.search_accuracy is not None]
    for name in ("search_accuracy", "accuracy"):
        values = [getattr(each, name) for each in promising]
        values = [getattr(value, "value", value) for value in values]
        assert f"{min(values):.2f} to {max(values):.2f}" in text, name
    assert f"correlated by {correlation}" in words(DOCS / "concepts" / "seeds.md")


def test_the_drawing_of_seeds_has_the_numbers_of_the_first_study():
    kd, best = scores("kd"), scores("pesf_kd", 12)
    drawn = re.findall(r">([+−]?\d\.\d{3})<", (DOCS / "drawings" / "seeds.svg").read_text(encoding="utf-8"))
    shown = [f"{value:.3f}" for value in (*kd[:4], *best[:4])]
    shown += [f"{a - b:+.3f}".replace("-", "−") for a, b in zip(best[:4].round(3), kd[:4].round(3), strict=True)]
    assert drawn == shown
    text = words(DOCS / "drawings" / "seeds.svg")
    assert f"over 12 seeds: {kd.std(ddof=1):.3f}" in text
    assert f"of differences: {(best - kd).std(ddof=1):.3f}" in text


def test_sentences_about_the_tuned_methods_are_those_of_the_records():
    study, text = open_study(EXAMPLES / "fashion-method-tuned"), page("methods")
    compared = {each.method: each for each in compare_methods(study.trials, confirmed=True)}
    differences = {name: each.against_baseline for name, each in compared.items() if each.against_baseline}
    assert [name for name, each in differences.items() if each.low > 0] == ["ttm"]
    assert f"by {100 * differences['ttm'].value:.1f} of a point" in text
    below = [name for name, each in differences.items() if each.high < 0]
    assert (len(below), "pesf_kd" in below) == (12, True)
    confirmed = [name for name in below if compared[name].corrected_p <= 0.05]
    assert len(confirmed) == 4
    assert "Twelve intervals lie below; the corrected test confirms four of them. PESF-KD is one of the twelve." in text
    rows = select(study.trials, stages=["confirm"]).to_pylist()
    assert f"for these {len(rows)} trials" in text
    assert f"these {study.trials.num_rows} trials" in text
    (pesf_kd,) = {(row["adapter_width"], round(row["kd_weight"], 3)) for row in rows if row["method"] == "pesf_kd"}
    assert "(width {}, weight {})".format(*pesf_kd) in text
    assert f"TTM's students end {compared['ttm'].gap.value:.1f} nats from their teacher" in text
    assert abs(compared["kd"].gap.value) < 0.05


def test_sentences_about_the_published_methods_are_those_of_the_records():
    study, text = open_study(EXAMPLES / "fashion-method"), page("methods")
    rows = select(study.trials, stages=["confirm"]).to_pylist()
    collapsed = [row["test/accuracy"] for row in rows if row["method"] == "ttm" and row["test/accuracy"] < 0.11]
    assert len(collapsed) == 4
    assert "TTM's student collapsed to chance on four of five seeds" in text
    adapted = {
        method: np.mean([row["val/accuracy_adapted"] for row in rows if row["method"] == method and row["adapter"]])
        for method in ("dkd", "dist")
    }
    (teacher,) = {round(row["val/accuracy_teacher"], 2) for row in rows if row["method"] == "kd"}
    assert f"falls from {teacher} to {adapted['dkd']:.2f} and {adapted['dist']:.2f} on validation" in text
    assert f"The {study.trials.num_rows} trials took an hour and a half" in text
    assert 80 < json.loads((EXAMPLES / "fashion-method" / "summary.json").read_bytes())["seconds"] / 60 < 100
    ratios = {}
    for name in ("fashion-method", "fashion-method-tuned"):
        records = open_study(EXAMPLES / name)
        costs = config_costs(records)
        for each in compare_methods(records.trials, confirmed=True):
            ratios.setdefault(each.method, []).append(costs[each.config_id].flops_to_ce)
    least, most = sorted(ratios["pesf_kd"])
    assert f"PESF-KD takes {least:.2f} to {most:.2f} times the FLOPs of cross-entropy" in text
    costly = [ratio for name in ("dml", "kdcl", "full_teacher") for ratio in ratios[name]]
    assert {round(ratio) for ratio in costly} == {15}
    assert {round(ratio / most) for ratio in costly} == {14}
    assert "take 15 times, 14 times as much as PESF-KD" in text


def test_sentences_about_the_text_studies_are_those_of_the_records():
    text = page("sst2")
    for name, minutes in (("sst2-adapter-width", 35), ("sst2-method", 37)):
        assert round(json.loads((EXAMPLES / name / "summary.json").read_bytes())["seconds"] / 60) == minutes
    assert "They took 35 and 37 minutes" in text
    study = open_study(EXAMPLES / "sst2-adapter-width")
    (teacher,) = {round(value, 3) for value in study.trials["val/accuracy_teacher"].to_pylist()}
    rows = select(study.trials, stages=["confirm"]).to_pylist()
    alone = np.mean([row["val/accuracy"] for row in rows if row["method"] == "ce"])
    assert f"The student alone reaches {alone:.3f} on validation and the teacher {teacher}" in text
    compared = compare_methods(open_study(EXAMPLES / "sst2-method").trials, confirmed=True)
    assert {each.corrected_p for each in compared if each.against_baseline} == {1.0}


def test_sentences_about_fashion_mnist_are_those_of_the_records():
    text = page("fashion_mnist")
    for name in ("adapter_width", "temperature", "joint"):
        trials = open_study(EXAMPLES / f"fashion-{name}").trials
        (teacher,) = {round(value, 2) for value in trials["val/accuracy_teacher"].to_pylist()}
        assert f"(15 epochs, {teacher:.3f} on validation)" in text
        (alone,) = {f"{each.accuracy.value:.3f}" for each in summarise_configs(trials) if each.method == "ce"}
        assert f"reaches {alone} alone" in text
