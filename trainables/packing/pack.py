"""Training of several trials at once: the students form one network with grouped convolutions.

A small network's step is dominated by the number of calls, not by the computation in each call. K packed trials need
one set of calls. Each trial remains a `DistillationRun` and gives the same result as alone, up to rounding from a
different order of summation. Initial weights, batches, views, BatchNorm statistics, learning rates and epochs are the
trial's own. Weights and momenta are views of the pack's memory. Between epochs, a trial's state can be read or saved,
and a trial can be removed to continue alone, without effect on the other trials.

The speed-up depends on the network. On one core, 8 networks on 8 × 8 images make 2.7 to 4.5 times as many steps per
second as trained one after another (2.1 to 3.2 times with a batch size of 256). For 4 networks on 28 × 28 images, the
factor is 0.9 to 1.6. Narrow networks gain most; networks for CIFAR gain nothing.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch

from trainables.costs.energy import energy_meter
from trainables.costs.epoch import epoch_costs
from trainables.data.dataset import Dataset
from trainables.packing.network import PackingError, check_packable
from trainables.packing.step import SHARED_FIELDS, PackedStep
from trainables.run.run import DistillationRun
from trainables.spec.architectures import is_known_to_draw_nothing
from trainables.spec.trial import TrialConfig
from trainables.steps.loss_log import NonFiniteLossError
from trainables.teacher_outputs.batch import TeacherOutputs

if TYPE_CHECKING:
    from trainables.teacher_outputs.frozen import FrozenTeacher


class PackEpoch(NamedTuple):
    """Result of one epoch.

    Args:
        measures: measures of each trial with a completed epoch, by trial name.
        failures: error of each trial removed from the pack after a failure, by trial name.
    """

    measures: dict[str, dict[str, float]]
    failures: dict[str, NonFiniteLossError]


class Pack:
    """Trials in progress, trained together.

    Args:
        runs: trials by name, fresh or resumed, at any epoch, all on one device.

    Raises:
        PackingError: with the field or module preventing packing.
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
        teacher_outputs: Sequence[TeacherOutputs] | None = None,
    ) -> "Pack":
        """Build a pack with fresh trials, named `"0"`, `"1"`, ...

        Args:
            configs: trial configs.
            dataset: shared dataset.
            teacher: shared teacher.
            teacher_outputs: one source per trial; sources may share one store.

        Raises:
            PackingError: see `Pack`. If the configs differ in a shared field, no network is built.
        """
        check_alike(configs)
        outputs = teacher_outputs if teacher_outputs is not None else [None] * len(configs)
        return cls(
            {
                str(number): DistillationRun(config, dataset, teacher, teacher_outputs=own)
                for number, (config, own) in enumerate(zip(configs, outputs, strict=True))
            }
        )

    @property
    def members(self) -> tuple[str, ...]:
        """Names of the trials in this pack."""
        return tuple(self._members)

    def run_of(self, name: str) -> DistillationRun:
        """Return a trial by name, including former members. Current members must not be trained separately."""
        if name not in self._runs:
            raise ValueError(f"there is no trial {name!r} in the pack; it had {', '.join(map(repr, self._runs))}")
        return self._runs[name]

    def set_members(self, runs: Mapping[str, DistillationRun]) -> None:
        """Set the trials to train from the next epoch on; missing members are removed, new trials are added.

        Raises:
            PackingError: if the trials do not fit. The pack is then unchanged.
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
        """Remove a trial from the pack, with the full state. The trial can then continue alone.

        Raises:
            ValueError: for an unknown name.
        """
        run = self.run_of(name)
        if name in self._members:
            self._leave([name])
        return run

    def run_epoch(self) -> PackEpoch:
        """Train every trial's next epoch and evaluate; epoch numbers may differ between trials.

        Returns:
            The measures from `trainables.costs.epoch.run_epoch`. `cost/seconds` and the energy are the pack's values
            divided by the trial count. Examples per second and seconds per step are computed from this share. Teacher
            forward passes shared by several trials are counted for the first of these trials.
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
        """Train every member with epochs left for one epoch and remove the finished members.

        Returns:
            The measures from `DistillationRun.train_epoch`. A trial with a non-finite loss fails; the others continue.
        """
        self._leave([name for name in self._members if self.run_of(name).finished])
        if not self._members:
            return PackEpoch({}, {})
        started = time.perf_counter()
        runs, names = self._training(), self.members
        losses = self._step.train_epoch()
        share = (time.perf_counter() - started) / len(runs)
        measures: dict[str, dict[str, float]] = {}
        failures: dict[str, NonFiniteLossError] = {}
        for number, (name, run) in enumerate(zip(names, runs, strict=True)):
            try:
                epoch = run.epoch + 1
                measures[name] = losses.of_trial(number).means(epoch, run.config.epochs)
            except NonFiniteLossError as error:
                failures[name] = _named(name, error)
                continue
            run.epoch = epoch
            run.training_seconds = share
        self._leave(failures)
        return PackEpoch(measures, failures)

    @torch.no_grad()
    def evaluate(self) -> PackEpoch:
        """Evaluate every member on the validation split.

        Returns:
            The measures from `DistillationRun.evaluate`. A trial with a non-finite measure fails; the others continue.
        """
        runs, names = self._training(), self.members
        measures: dict[str, dict[str, float]] = {}
        failures: dict[str, NonFiniteLossError] = {}
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
        _check_dropout(first.config)
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


def is_packable_run(run: DistillationRun) -> bool:
    """Return whether a trial can be a member of a pack."""
    try:
        check_packable(run.student, run.config.student)
        _check_companion(run.config)
        _check_dropout(run.config)
        _check_steps(run.config)
    except PackingError:
        return False
    return True


def check_alike(configs: Sequence[TrialConfig]) -> None:
    """Check that the configs agree in all shared fields, as packing requires.

    Raises:
        PackingError: with the first differing shared field.
    """
    for name in SHARED_FIELDS:
        values = sorted({repr(getattr(config, name)) for config in configs})
        if len(values) > 1:
            raise PackingError(
                f"trials of a pack share one {name}, these have {', '.join(values)}. "
                f"All trials of a pack need the same: {', '.join(SHARED_FIELDS)}"
            )


def _check_companion(config: TrialConfig) -> None:
    beside = config.method_spec.companion
    if beside is not None and not is_known_to_draw_nothing(architecture := getattr(config, beside)):
        raise PackingError(
            f"{architecture} is trained with the students, and its random numbers (dropout) cannot be drawn separately "
            "for each trial of a pack"
        )


def _check_dropout(config: TrialConfig) -> None:
    if config.draws_in_adapter:
        raise PackingError(
            "the dropout of an adapter cannot be drawn separately for each trial of a pack: set adapter_dropout=0, or "
            "leave out packing"
        )


def _check_steps(config: TrialConfig) -> None:
    if not config.has_plain_steps:
        raise PackingError(
            "packed trials make steps of SGD at one rate an epoch: leave out AdamW, clip_norm and linear schedules"
        )


def _named(name: str, error: NonFiniteLossError) -> NonFiniteLossError:
    return NonFiniteLossError(f"trial {name}: {error}")
