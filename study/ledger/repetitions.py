"""Repetitions of a study with `--replicates auto`: seeds are added until each comparison is decided.

The comparisons are the same as in the study's table: every repeated config against the control `kd`, or every method
against `kd`, on the validation split. Methods with several searches are compared by the mean of their repeated configs.
The rule is the same as for a sequential confirmation (`study.ledger.sequential`). The looks need the promising configs,
so they begin when the search has ended.
"""

import re
from typing import Any, Protocol

from study.ledger.promising import Trials, promising_configs
from study.ledger.sequential import Looks, Progress, Side, decisions_in_words, find_progress_of
from study.plan.methods import BASELINE, row_name
from study.plan.stages import Stage
from trainables.spec.trial import TrialConfig


class Repeated(Trials, Protocol):
    """Study trials with the state of search and repetitions; implemented by the study's ledger."""

    @property
    def searching(self) -> bool:
        """Whether search trials remain."""

    @property
    def repetition_progress(self) -> Progress | None:
        """State of the repetitions."""


def find_repetition_progress(ledger: Repeated) -> Progress | None:
    """Work out which repetitions are due; None for a fixed number, or while the search runs.

    Args:
        ledger: study ledger.
    """
    plan = ledger.plan
    if plan.replicates_detect is None or ledger.searching:
        return None
    stages: dict[Stage, list[TrialConfig]] = {"control": plan.fixed_configs, "replicate": promising_configs(ledger)}
    configs: dict[str, tuple[Stage, TrialConfig]] = {}
    for stage, own in stages.items():
        for config in own:  # a promising config that is a control already runs as the control
            configs.setdefault(config.config_id, (stage, config))
    sides = _sides(ledger, configs)
    baseline = [side for side, name in sides if name == BASELINE]
    pairs = [
        (side, against)
        for against in baseline
        for side, name in sides
        if name != BASELINE and _student(configs, side) == _student(configs, against)
    ]
    entries = [entry for stage in stages for entry in ledger.in_stage(stage)]
    scores: dict[str, dict[int, float]] = {}
    for entry in entries:
        if entry.status == "finished":
            scores.setdefault(entry.config.config_id, {})[entry.replicate] = entry.score
    return find_progress_of(
        Looks(plan.replicates_detect, plan.replicates, first=1),
        pairs,
        configs,
        {(entry.config.config_id, entry.replicate) for entry in entries if entry.status is not None},
        scores,
        study_seed=plan.seed,
    )


def _student(configs: dict[str, tuple[Stage, TrialConfig]], side: Side) -> str:
    return configs[side.config_ids[0]][1].student


def _sides(ledger: Repeated, configs: dict[str, tuple[Stage, TrialConfig]]) -> list[tuple[Side, str]]:
    """Return the sides of the comparisons, each with a name. The baseline's name is `kd`."""
    plan = ledger.plan
    if plan.compared:
        of_methods: dict[str, list[str]] = {}
        for config_id, (_, config) in configs.items():
            of_methods.setdefault(row_name(config), []).append(config_id)
        return [(Side(name, tuple(own)), name) for name, own in of_methods.items()]
    searched = {entry.config.config_id: re.sub(r"-s\d+$", "", entry.name) for entry in ledger.in_stage("search")}
    sides = []
    for config_id, (stage, config) in configs.items():
        name = config.method if stage == "control" else searched.get(config_id, config_id)
        sides.append((Side(name, (config_id,)), config.method if stage == "control" else ""))
    return sides


def repetition_texts(ledger: Repeated) -> list[str]:
    """Return the decisions of complete sequential repetitions in words; empty for others."""
    progress, detect = ledger.repetition_progress, ledger.plan.replicates_detect
    if progress is None or detect is None or not progress.complete or not progress.decided:
        return []
    return decisions_in_words(progress, detect, ledger.plan.replicates, of_searches=ledger.plan.searches_per_method > 1)


def repetition_summary(ledger: Repeated) -> dict[str, Any]:
    """Return the decisions as JSON values; empty for a fixed number of repetitions."""
    progress = ledger.repetition_progress
    if progress is None:
        return {}
    return {
        "repetitions": {
            "detect": ledger.plan.replicates_detect,
            "most": ledger.plan.replicates,
            "complete": progress.complete,
            "decisions": [each._asdict() for each in progress.decided],
        }
    }
