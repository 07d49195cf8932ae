"""Choice of the GPUs per trial: as given, or by `--gpus-per-trial auto` from the nodes' GPUs and cores.

With `auto`, k trials share each GPU. k is limited by the cores per GPU and by memory on the smallest GPU. A trial's
memory is measured on one GPU per node (`trainables.tune.gpu_probe`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from study.cli.progress import StudyProgress
from study.ledger.gpus import gpus_used
from study.ledger.ledger import StudyLedger
from study.plan.gpu_notes import idle_note
from study.plan.gpus import share_of
from study.plan.plan import StudyPlan
from study.plan.resolve import load_plan
from study.plan.teacher_storage import bytes_on_device
from trainables.display.numbers import counted
from trainables.process.errors import StudyError
from trainables.process.gpu import GpuReading

MOST_SHARING: Final = 99
# Memory limit for all trials together, and the factor for effects not visible in one step: fragmentation, later steps.
USABLE: Final = 0.95
MARGIN: Final = 1.2
# A process context takes some hundred MiB. More used memory belongs to other programs.
BUSY: Final = 2 * 2**30
_ON_CPUS: Final = "or give --gpus-per-trial 0 to train on CPUs"


@dataclass(frozen=True)
class GpuNode:
    """Node with GPUs.

    Args:
        node_id: Ray's node identifier.
        cores: cores of the node.
        gpus: GPUs of the node.
    """

    node_id: str
    cores: float
    gpus: int


@dataclass(frozen=True)
class GpuChoice:
    """GPUs for the trials of one run.

    Args:
        per_trial: GPUs per trial; 0 for trials on CPUs.
        gpus: number of GPUs on the nodes.
        idle: GPUs not used by any trial.
        words: message for the user about the choice; may be empty.
    """

    per_trial: float
    gpus: int
    idle: int
    words: str

    @property
    def device(self) -> str:
        """Device for trials."""
        return "cuda" if self.per_trial > 0 else "cpu"


def given_choice(plan: StudyPlan, per_trial: float, gpus: int) -> GpuChoice:
    """Return the choice for a given number of GPUs per trial, with a note if all GPUs stay idle.

    Args:
        plan: the study.
        per_trial: GPUs per trial.
        gpus: number of GPUs on the nodes.
    """
    if per_trial > 0 or not gpus:
        return GpuChoice(per_trial, gpus, 0, "")
    return GpuChoice(0.0, gpus, gpus, idle_note(plan, gpus))


def without_gpus() -> GpuChoice:
    """Return the choice for `auto` if no node has a GPU."""
    return GpuChoice(0.0, 0, 0, "no node has a GPU: trials run on CPUs (--gpus-per-trial auto)")


def whole_gpus(gpus: int, why: str) -> GpuChoice:
    """Return the choice with one GPU per trial.

    Args:
        gpus: number of GPUs on the nodes.
        why: reason why trials do not share GPUs.
    """
    return GpuChoice(1.0, gpus, 0, f"{counted(gpus, 'GPU')} found, one trial on each: {why} (--gpus-per-trial auto)")


def with_enough_cores(plan: StudyPlan, nodes: Sequence[GpuNode]) -> list[GpuNode]:
    """Return all nodes with a GPU and enough cores for one trial."""
    return [node for node in nodes if node.gpus and node.cores + 1e-9 >= plan.cpus_per_trial]


def choose_share(plan: StudyPlan, nodes: Sequence[GpuNode], probed: Sequence[GpuReading | str]) -> GpuChoice:
    """Return the choice with as many trials per GPU as fit.

    Args:
        plan: the study.
        nodes: nodes with GPUs, each with enough cores for a trial. At least one node.
        probed: one GPU reading per node, or the reason for a missing reading.

    Raises:
        StudyError: a trial does not fit on a free GPU.
    """
    gpus = sum(node.gpus for node in nodes)
    for node, each in zip(nodes, probed, strict=True):
        if isinstance(each, str):
            return whole_gpus(gpus, each)
        if each.in_use > BUSY:
            return whole_gpus(gpus, f"{_size(each.in_use)} of {each.name} are in use by other programs")
        if each.out_of_memory:
            raise StudyError(_too_large(each, node))
    readings = [each for each in probed if not isinstance(each, str)]
    outputs = bytes_on_device(plan)
    smallest = min(readings, key=lambda each: _fitting(each, outputs))
    by_memory = _fitting(smallest, outputs)
    by_cores = min(int(node.cores / node.gpus / plan.cpus_per_trial + 1e-9) for node in nodes)
    limits = {
        f"memory for {by_memory}": by_memory,
        f"cores for {by_cores}": by_cores,
        f"{MOST_SHARING} trials at most": MOST_SHARING,
    }
    if plan.max_concurrent is not None:
        limits[f"--max-concurrent {plan.max_concurrent}"] = math.ceil(plan.max_concurrent / gpus)
    together = max(1, min(limits.values()))
    limit = min(limits, key=lambda name: limits[name])
    per_trial = share_of(together)
    return GpuChoice(
        per_trial, gpus, 0,
        f"{counted(together, 'trial')} on each of {counted(gpus, 'GPU')} (--gpus-per-trial auto, {per_trial:g} each), "
        f"limited by {limit}. Measured on {smallest.name}, {_size(smallest.total)}: {smallest.largest} takes "
        f"{_size(smallest.reserved)} and {_size(smallest.context)} for the process, stored outputs take "
        f"{_size(outputs)}; reckoned as {_size(_per_trial(smallest, outputs))} per trial with a margin of "
        f"{MARGIN - 1:.0%}, and {1 - USABLE:.0%} of the GPU stay free",
    )  # fmt: skip


def with_idle_gpus(plan: StudyPlan, choice: GpuChoice, nodes: Sequence[GpuNode]) -> GpuChoice:
    """Add the idle GPUs to the choice: trials cannot use a GPU on a node with too few cores.

    Args:
        plan: the study.
        choice: GPUs for the trials.
        nodes: all nodes with GPUs.
    """
    if not choice.per_trial:
        return choice
    gpus = sum(node.gpus for node in nodes)
    trials = [int(node.cores / plan.cpus_per_trial + 1e-9) for node in nodes]
    most = [min(node.gpus, count * max(1, int(choice.per_trial))) for node, count in zip(nodes, trials, strict=True)]
    if (idle := gpus - sum(most)) <= 0:
        return choice
    note = (
        f"{idle} of {counted(gpus, 'GPU')} {'is' if idle == 1 else 'are'} idle, because the nodes have too few cores: "
        f"lower --cpus-per-trial ({plan.cpus_per_trial:g})"
    )
    return replace(choice, gpus=gpus, idle=idle, words=". ".join(filter(None, [choice.words, note])))


def _per_trial(reading: GpuReading, outputs: int) -> int:
    return math.ceil(MARGIN * (reading.reserved + outputs)) + reading.context


def _fitting(reading: GpuReading, outputs: int) -> int:
    return int(USABLE * reading.total / max(1, _per_trial(reading, outputs)))


def _too_large(reading: GpuReading, node: GpuNode) -> str:
    return (
        f"a trial of {reading.out_of_memory} does not fit on {reading.name} with {_size(reading.total)} "
        f"(node {node.node_id[:8]}): it ran out of memory in its first step, with {_size(reading.reserved)} reserved "
        f"before. Lower the batch size (--set batch_size=...), choose a smaller --student, {_ON_CPUS}"
    )


def _size(number: int) -> str:
    return f"{number / 2**30:.2f}GiB" if number >= 2**30 else f"{number / 2**20:.0f}MiB"


def record_choice(choice: GpuChoice, ledger: StudyLedger, progress: StudyProgress) -> None:
    """Report the GPUs per trial to the user, and write them to the journal.

    Args:
        choice: GPUs in this run.
        ledger: study ledger. Without GPUs on the nodes and in the plan, nothing is written.
        progress: progress display for the user.
    """
    if choice.words:
        progress.say(choice.words)
    if ledger.entries and (before := gpus_used(load_plan(ledger.plan.directory), ledger)) != choice.per_trial:
        progress.say(
            f"earlier trials of this study used {before:g} GPU each, those of this run use {choice.per_trial:g}"
            + ("; results on CPUs and GPUs differ in rounding" if (before > 0) != (choice.per_trial > 0) else "")
        )
    found = {"per_trial": choice.per_trial, "gpus": choice.gpus, "idle": choice.idle, "words": choice.words}
    says_nothing = ledger.gpus is None and not choice.per_trial and not choice.words
    if not says_nothing and found != ledger.gpus:
        ledger.record_gpus(found)
