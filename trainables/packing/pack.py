"""Several trials trained at once: their students as one network whose convolutions run in groups.

A step of a small net takes as long as the calls that it is made of, however little each computes; K trials packed make
one set of calls. Each trial stays a `DistillationRun` that is exactly what it is alone, up to the rounding of sums
taken in another order: its own initial weights, batches, views, batch norm statistics, rates and epochs. Its weights
and momenta are views of the pack's memory, so at any time between epochs its state can be read, saved, replaced, or
taken out to go on alone, and the others do not notice.

What this gains depends on the net. On one core 8 nets of 8 × 8 images make 2.7 to 4.5 times as many steps a second as
one after the other (2.1 to 3.2 in batches of 256), 4 of 28 × 28 images 0.9 to 1.6 times, the narrower the more; nets of
CIFAR's sizes gain nothing.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch

from trainables.costs.energy import energy_meter
from trainables.costs.epoch import epoch_costs
from trainables.data.dataset import Dataset
from trainables.packing.network import PackingError, check_packable
from trainables.packing.step import SHARED_FIELDS, PackedStep
from trainables.run.run import DistillationRun
from trainables.spec.architectures import is_known_to_draw_nothing
from trainables.spec.trial import TrialConfig
from trainables.steps.loss_log import NonFiniteLossError, means_of_parts
from trainables.teacher_outputs.batch import TeacherOutputs

if TYPE_CHECKING:
    from trainables.teacher_outputs.frozen import FrozenTeacher

__all__ = ["Pack", "PackEpoch", "PackingError", "check_alike"]


class PackEpoch(NamedTuple):
    """What became of an epoch.

    Args:
        measures: of each trial that went through it, by the trial's name.
        failures: of each that did not; it has left the pack.
    """

    measures: dict[str, dict[str, float]]
    failures: dict[str, NonFiniteLossError]


class Pack:
    """Trials in progress that train together.

    Args:
        runs: by name, each begun, resumed or fresh, in any epoch; all on one device.

    Raises:
        PackingError: naming the field or the module, where they cannot train as one.
    """

    def __init__(self, runs: Mapping[str, DistillationRun]) -> None:
        if not runs:
            raise PackingError("a pack needs at least one trial")
        self._runs = dict(runs)
        self._members = list(runs)
        self._check(runs.values())
        self._step = PackedStep(self._training())

    @classmethod
    def of_configs(
        cls,
        configs: Sequence[TrialConfig],
        dataset: Dataset,
        teacher: "FrozenTeacher | None",
        *,
        device: torch.device | str = "cpu",
        teacher_outputs: Sequence[TeacherOutputs] | None = None,
    ) -> "Pack":
        """A pack of fresh trials, named by their numbers from `"0"`.

        Args:
            configs: of the trials.
            dataset: theirs.
            teacher: theirs.
            device: where everything runs.
            teacher_outputs: one for each trial; they may be of one store.

        Raises:
            PackingError: see `Pack`; nothing was built then.
        """
        check_alike(configs)
        outputs = teacher_outputs if teacher_outputs is not None else [None] * len(configs)
        return cls(
            {
                str(number): DistillationRun(config, dataset, teacher, device=device, teacher_outputs=own)
                for number, (config, own) in enumerate(zip(configs, outputs, strict=True))
            }
        )

    @property
    def members(self) -> tuple[str, ...]:
        """The names of the trials that train in this pack."""
        return tuple(self._members)

    def run_of(self, name: str) -> DistillationRun:
        """A trial by its name, one that has left too; a member must not be trained by itself."""
        if name not in self._runs:
            raise ValueError(f"there is no trial {name!r} in the pack; it had {', '.join(map(repr, self._runs))}")
        return self._runs[name]

    def add(self, name: str, run: DistillationRun) -> None:
        """Let another trial join from the next epoch on.

        Raises:
            PackingError: where it does not fit; the pack is as it was then.
            ValueError: for a name that is taken.
        """
        if name in self._members:
            raise ValueError(f"the pack has a trial {name!r} already")
        self.set_members({member: self._runs[member] for member in self._members} | {name: run})

    def set_members(self, runs: Mapping[str, DistillationRun]) -> None:
        """Let these trials train from the next epoch on: who is not named leaves, who is new joins.

        Raises:
            PackingError: where they do not fit; the pack is as it was then.
        """
        now = {name: self._runs[name] for name in self._members}
        if all(now.get(name) is run for name, run in runs.items()) and len(now) == len(runs):
            return
        if runs:
            self._check(runs.values())
        for name in self._members:
            if runs.get(name) is not now[name]:
                now[name].own_its_memory()
        self._runs |= runs
        self._members = list(runs)
        if runs:
            self._step = PackedStep(self._training())

    def remove(self, name: str) -> DistillationRun:
        """Let a trial leave, and go on alone if it likes; it keeps everything that it has.

        Raises:
            ValueError: for a trial that is not there.
        """
        run = self.run_of(name)
        if name in self._members:
            self._leave([name])
        return run

    def state_of(self, name: str) -> dict[str, Any]:
        """A trial's state, as `DistillationRun.state_dict` gives it and as a lone trial can load it."""
        return self.run_of(name).state_dict()

    def load_state_of(self, name: str, state: dict[str, Any]) -> None:
        """Let a trial go on from a state of its own, saved in a pack or alone.

        Raises:
            ValueError: see `DistillationRun.load_state_dict`.
        """
        run = self.run_of(name)
        run.load_state_dict(state)
        if name in self._members:
            self._step.move_in(self._members.index(name))  # momenta came in memory of their own

    def run_epoch(self) -> PackEpoch:
        """Train an epoch of every trial, each its own next one, and evaluate.

        Returns:
            The measures of `trainables.costs.epoch.run_epoch`. `cost/seconds` is a trial's share of the pack's time,
            and so is its energy of the pack's; the speed, and the time of a step, are what its share comes to;
            teacher's forwards that serve several count for the first of them.
        """
        started, meter = time.perf_counter(), energy_meter(next(iter(self._runs.values())).device)
        energy = meter.read()
        trained = self.train_epoch()
        evaluated = self.evaluate()
        sharers = max(1, len(trained.measures) + len(trained.failures))
        share = (time.perf_counter() - started) / sharers
        joules = {name: joules / sharers for name, joules in meter.since(energy).items()}
        measures = {
            name: trained.measures[name]
            | evaluated.measures[name]
            | epoch_costs(self.run_of(name), share)
            | joules
            | self.run_of(name).test_at_the_end()
            for name in evaluated.measures
        }
        return PackEpoch(measures, trained.failures | evaluated.failures)

    def train_epoch(self) -> PackEpoch:
        """Train an epoch of every member that has one left; who has none leaves.

        Returns:
            The measures of `DistillationRun.train_epoch`. A trial whose loss is not finite has failed, and no other.
        """
        self._leave([name for name in self._members if self.run_of(name).finished])
        if not self._members:
            return PackEpoch({}, {})
        started = time.perf_counter()
        runs, names = self._training(), self.members
        parts, values, sizes = self._step.train_epoch()
        share = (time.perf_counter() - started) / len(runs)
        measures: dict[str, dict[str, float]] = {}
        failures: dict[str, NonFiniteLossError] = {}
        for number, (name, run) in enumerate(zip(names, runs, strict=True)):
            try:
                epoch = run.epoch + 1
                measures[name] = means_of_parts(parts, values[:, number], sizes, epoch, run.config.epochs)
            except NonFiniteLossError as error:
                failures[name] = _named(name, error)
                continue
            run.epoch = epoch
            run.training_seconds = share
        self._leave(failures)
        return PackEpoch(measures, failures)

    @torch.no_grad()
    def evaluate(self, split: Literal["validation", "test"] = "validation") -> PackEpoch:
        """Evaluate every member.

        Returns:
            The measures of `DistillationRun.evaluate`, or of `evaluate_test`. A trial with one that is not finite
            has failed, and no other.
        """
        runs, names = self._training(), self.members
        measures: dict[str, dict[str, float]] = {}
        failures: dict[str, NonFiniteLossError] = {}
        if split == "test":
            return PackEpoch({name: run.evaluate_test() for name, run in zip(names, runs, strict=True)}, failures)
        logits = self._step.logits(runs[0].evaluation_batches(runs[0].dataset.validation)) if runs else ()
        for own_logits, name, run in zip(logits, names, runs, strict=True):
            try:
                measures[name] = run.evaluate(own_logits)
            except NonFiniteLossError as error:
                failures[name] = _named(name, error)
        self._leave(failures)
        return PackEpoch(measures, failures)

    def _training(self) -> list[DistillationRun]:
        return [self._runs[name] for name in self._members]

    def _check(self, runs: Iterable[DistillationRun]) -> None:
        runs = list(runs)
        check_alike([run.config for run in runs])
        check_packable(runs[0].student, runs[0].config.student)
        first = runs[0]
        _check_companion(first.config)
        for run in runs:
            _check_steps(run.config)
        for run in runs:
            if run.device != first.device:
                raise PackingError(f"trials of a pack run on one device, these on {first.device} and {run.device}")
            for name in ("dataset", "teacher"):
                if run.identity[name] != first.identity[name]:
                    raise PackingError(f"trials of a pack share one {name}: here are two with different digests")

    def _leave(self, names: Iterable[str]) -> None:
        leaving = set(names)
        self.set_members({name: self._runs[name] for name in self._members if name not in leaving})


def check_alike(configs: Sequence[TrialConfig]) -> None:
    """Whether trials with these configs could be of one pack, as far as configs tell.

    Raises:
        PackingError: naming the first field that differs and may not.
    """
    for name in SHARED_FIELDS:
        values = sorted({repr(getattr(config, name)) for config in configs})
        if len(values) > 1:
            raise PackingError(
                f"trials of a pack share one {name}, these have {', '.join(values)}. "
                f"What must be the same: {', '.join(SHARED_FIELDS)}"
            )


def _check_companion(config: TrialConfig) -> None:
    beside = config.method_spec.companion
    if beside is not None and not is_known_to_draw_nothing(architecture := getattr(config, beside)):
        raise PackingError(
            f"{architecture} learns beside the students, and what it may draw at random (dropout) is not drawn apart "
            "for each trial of a pack"
        )


def _check_steps(config: TrialConfig) -> None:
    if not config.has_plain_steps:
        raise PackingError(
            "packed trials make steps of SGD at one rate an epoch: leave out AdamW, clip_norm and linear schedules"
        )


def _named(name: str, error: NonFiniteLossError) -> NonFiniteLossError:
    return NonFiniteLossError(f"trial {name}: {error}")
