"""Output at the end of a study."""

import io
from dataclasses import replace

from rich.console import Console

from analysis.questions.costs import ConfigCost
from analysis.reading.trials import compare_methods
from study.result.terminal import comparison_table
from tests.analysis.synthetic import trial, trials_table


def shown(configs):
    """Return the comparison table as printed on a terminal of 80 columns."""
    unknown = dict.fromkeys(ConfigCost.__dataclass_fields__)
    costs = {each.config_id: ConfigCost(**unknown | {"flops_to_ce": 5.063, "n": 1}) for each in configs}
    console = Console(file=io.StringIO(), width=80)
    console.print(comparison_table(configs, costs))
    return console.file.getvalue()


def test_a_comparison_is_shown_whole_on_a_terminal_of_80_columns():
    rows = [
        trial(number, stage="control", method=method, adapter=adapter, config_id=f"{method}{adapter}",
              replicate=replicate,
              **{"val/accuracy": value + 0.01 * replicate**2 * (1 + adapter), "val/sharpness_gap": -12.5 - replicate})
        for number, (method, adapter, replicate, value) in enumerate(
            (method, adapter, replicate, value)
            for method, adapter, value in (("kd", False, 0.6), ("logit_standardisation", True, 0.123))
            for replicate in (1, 2, 3, 4)
        )
    ]  # fmt: skip
    configs = [replace(config, search_accuracy=0.654) for config in compare_methods(trials_table(rows))]
    text = shown(configs)
    heads = ("(Holm)", "search", "accuracy - kd", "x ce")
    for part in (*heads, "5.06", "(baseline)", "0.654", "0.125", "−15.00 ± 2.05"):
        assert part in text
    against = configs[1].against_baseline
    value, *bounds = (f"{each:+.3f}".replace("-", "−") for each in (against.value, against.low, against.high))
    assert f"[{', '.join(bounds)}]" in text
    assert "".join(text.split()).count("logit_standard") == 1
    text = shown([replace(config, search_accuracy=None) for config in configs])
    assert "search" not in text
    assert f"{value} [{', '.join(bounds)}]" in text
    assert "(Holm)" in text
