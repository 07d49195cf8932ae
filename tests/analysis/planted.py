"""Simulated studies with planted effects."""

import math
from typing import Any

import numpy as np

from analysis.reading.trials import StudyRecords
from tests.analysis.synthetic import epochs_table, trial, trials_table


def records(rows: list[dict[str, Any]], epochs: list[dict[str, Any]] | None = None) -> StudyRecords:
    """Return a study with these trials. Without `epochs`, every epoch of a trial has the measures of the last one."""
    if epochs is None:
        epochs = [
            {"trial_id": row["trial_id"], "epoch": epoch, **{n: row[n] for n in row if n.startswith("val/")}}
            for row in rows
            for epoch in range(1, row["epochs"] + 1)
        ]
    return StudyRecords(trials_table(rows), epochs_table(epochs))


def measured(gap: float, accuracy: float) -> dict[str, float]:
    """Return the measures of a trial. All kinds of gap have the same value."""
    gaps = dict.fromkeys(("val/sharpness_gap", "val/sharpness_gap_centred", "val/sharpness_gap_tempered"), gap)
    return {"val/accuracy": accuracy, "val/entropy_student": 1.0 + gap, "val/entropy_adapted": 1.0, **gaps}


def searched(
    generator: np.random.Generator,
    configs: int,
    *,
    width_on_gap: float = 0.0,
    gap_on_accuracy: float = 0.0,
    width_on_accuracy: float = 0.0,
    rate_on_both: float = 0.0,
    noise: float = 1.0,
) -> StudyRecords:
    """Return a search with linear effects of log2(width), gap and log2(rate).

    The noise of the gap has a standard deviation of 1 nat, that of accuracy of `noise`.
    """
    rows = []
    for number in range(configs):
        width, rate = int(np.round(2 ** generator.uniform(1, 8))), float(2 ** generator.uniform(-10, -4))
        gap = width_on_gap * np.log2(width) + rate_on_both * np.log2(rate) + generator.normal()
        accuracy = gap_on_accuracy * gap + width_on_accuracy * np.log2(width) + rate_on_both * np.log2(rate)
        accuracy += noise * generator.normal()
        varied = {"adapter_width": width, "adapter_learning_rate": rate}
        rows.append(trial(number, **varied, **measured(gap, accuracy), epochs=2, epochs_planned=2))
    return records(rows)


def repeated(
    generator: np.random.Generator,
    configs: int,
    seeds: int,
    *,
    between: float = 0.0,
    within: float = 0.0,
    config_noise: float = 1.0,
    seed_noise: float = 1.0,
    shared: float = 0.0,
) -> StudyRecords:
    """Return configs on fresh seeds, with one effect of the gap between configs and another within configs.

    The share `shared` of the variance of the gap within configs depends on the seed alone and is the same for all
    configs. If it is 0, every trial has a different seed.
    """
    rows = []
    common = generator.normal(size=(2, seeds + 1)) if shared else np.zeros((2, seeds + 1))
    for config in range(configs):
        mean_gap, own = generator.normal(), config_noise * generator.normal()
        for replicate in range(1, seeds + 1):
            own_part = generator.normal(size=2)
            deviation, noise = math.sqrt(shared) * common[:, replicate] + math.sqrt(1 - shared) * own_part
            accuracy = between * mean_gap + within * deviation + own + seed_noise * noise
            of_config = {"config_id": f"config{config}", "stage": "replicate", "replicate": replicate}
            gap = mean_gap + deviation
            row = trial(len(rows), **of_config, **measured(gap, accuracy), epochs=2, epochs_planned=2)
            rows.append(row | {"seed": replicate} if shared else row)
    return records(rows)


def imposed(generator: np.random.Generator, configs: int, **effects: float) -> StudyRecords:
    """Return `configs` trials per arm, with an effect of the target on accuracy. Trials reach half of the target."""
    rows = []
    for control, effect in effects.items():
        for target in generator.uniform(0, 2, size=configs):
            gap, accuracy = 0.5 * target + 0.1 * generator.normal(), effect * target + generator.normal()
            controlled = {"gap_control": control, "gap_target": float(target), "gap_weight": 1.0}
            rows.append(trial(len(rows), epochs=1, **controlled, **measured(gap, accuracy)))
    return records(rows)
