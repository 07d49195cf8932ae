"""Trial resources: one slot per trial, several slots per trial, or several trials packed into one slot."""

import math
from typing import Any

import ray
from ray import tune

from study.cli.progress import StudyProgress
from study.plan.plan import StudyPlan
from study.running.cluster import Slots


class Packing:
    """Trainable and resources for a study's trials.

    Args:
        plan: the study.
        settings: settings for every trial, in addition to the config.
        progress: reports how many trials are packed.

    Attributes:
        count: trials per pack; 1 without packing.
        slots: number of trials that fit on the cluster at once.
        trial_settings: `settings` plus the settings for packed trials or for several workers.
        trainable: the trainable for Tune, with resources.
    """

    def __init__(self, plan: StudyPlan, settings: dict[str, Any], progress: StudyProgress) -> None:
        self.count = _tried_out(plan, settings, progress) if plan.pack == "auto" else plan.pack or 1
        # Ray rounds resources to ten-thousandths.
        share = math.floor(10_000 * plan.cpus_per_trial / self.count) / 10_000
        cpus = plan.cpus_per_trial if self.count == 1 else share
        assert plan.gpus_per_trial != "auto", "the executor has chosen a number"
        self._workers, gpus = plan.workers_per_trial, plan.gpus_per_trial
        self.slots = Slots(cpus=cpus, gpus=gpus, at_most=plan.max_concurrent, workers=self._workers)
        self.trial_settings = settings
        resources: Any = {"cpu": cpus, "gpu": gpus}
        if self._workers > 1:
            each = {"cpus": cpus, "gpus": gpus}
            self.trial_settings = {**settings, "workers": {"count": self._workers, **each}}
            bundle = {name: amount for name, amount in (("CPU", cpus), ("GPU", gpus)) if amount}
            resources = tune.PlacementGroupFactory([bundle] * self._workers, strategy="PACK")
        self.trainable = tune.with_resources(self._trainable(), resources)

    def _trainable(self) -> Any:
        if self._workers > 1:
            from trainables.tune.parallel import ParallelTrainable

            return ParallelTrainable
        if self.count == 1:
            from trainables.tune.trainable import DistillationTrainable

            return DistillationTrainable
        from trainables.tune.packed import PackedTrainable, start_desk

        desk, self._desk = start_desk(self.count)
        self.trial_settings = {**self.trial_settings, "desk": desk}
        return PackedTrainable


def _tried_out(plan: StudyPlan, settings: dict[str, Any], progress: StudyProgress) -> int:
    from trainables.tune.packed import probe_pack

    progress.say("trying out how many trials to pack")
    task: Any = ray.remote(num_cpus=min(1.0, plan.cpus_per_trial), max_retries=2)(probe_pack)
    config = plan.example_config.model_dump(mode="json")
    count: int
    count, gains = ray.get(task.remote({**settings, "config": config}, settings["teacher_outputs"] is not None))
    tried = ", ".join(f"{gain:.2f} x by {number}" for number, gain in gains.items()) or "they cannot be"
    progress.say(f"{'packed by ' + str(count) if count > 1 else 'not packed'} (steps a second: {tried})")
    return count
