"""Output at the end of a study."""

import io
from dataclasses import replace

from rich.console import Console

from analysis.questions.costs import ConfigCost
from analysis.reading.trials import compare_methods, summarise_configs
from study.result.terminal import comparison_table, result_table
from tests.analysis.synthetic import trial, trials_table


def shown(configs, *, of=comparison_table, width=80):
    """Return a table as printed on a terminal."""
    unknown = dict.fromkeys(ConfigCost.__dataclass_fields__)
    costs = {each.config_id: ConfigCost(**unknown | {"flops_to_ce": 5.063, "n": 1}) for each in configs}
    console = Console(file=io.StringIO(), width=width)
    console.print(of(configs, costs, width))
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
    heads = ("(Holm)", "search", "accuracy", "- kd", "x ce")
    for part in (*heads, "5.06", "(baseline)", "0.654", "0.125", "−15.00", "± 2.05"):
        assert part in text
    against = configs[1].against_baseline
    value, *bounds = (f"{each:+.3f}".replace("-", "−") for each in (against.value, against.low, against.high))
    assert f"[{', '.join(bounds)}]" in text
    assert max(map(len, text.splitlines())) <= 80
    # No word is broken inside, only after an underscore or a plus.
    assert [line.split()[0] for line in text.splitlines() if "standardisation" in line] == ["standardisation+"]
    assert value in text
    text = shown(configs, width=120)
    assert "logit_standardisation+adapter" in text
    assert f"{value} [{', '.join(bounds)}]" in text
    text = shown([replace(config, search_accuracy=None) for config in configs])
    assert "search" not in text
    assert "(Holm)" in text


def test_the_table_of_a_search_names_every_parameter_in_full_and_fits_80_columns():
    varied = {"ce_weight": 0.3, "adapter_ce_weight": 0.15, "adapter_learning_rate": 0.0123}
    rows = [
        trial(number, stage="replicate", replicate=number + 1, config_id="c",
              **{"val/accuracy": 0.8 + 0.01 * number, "val/sharpness_gap": -12.5 * number})
        for number in range(2)
    ]  # fmt: skip
    configs = [replace(config, varied=varied) for config in summarise_configs(trials_table(rows))]
    text = shown(configs, of=result_table)
    assert max(map(len, text.splitlines())) <= 80
    names = " ".join(line[: text.splitlines()[1].index("n ")].strip() for line in text.splitlines())
    for name in ("pesf_kd", " ce weight 0.3,", "adapter ce weight 0.15,", "adapter learning rate 0.0123"):
        assert name in names
