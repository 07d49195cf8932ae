"""Executor of a study, and the trials that may be packed: the choice if the plan leaves it open, and the checks."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, Protocol

from study.plan.gpus import may_use_gpus
from study.plan.options import OPTIONS
from study.plan.ray_only import RAY_ONLY
from trainables.spec.architectures import is_known_to_draw_nothing, is_packable
from trainables.spec.modality import is_text
from trainables.spec.trial import TrialConfig
from trainables.storage.uris import is_uri
from trainables.user_code.reference import is_canonical

AUTO: Final = "auto"
ExecutorUsed = Literal["ray", "processes", "in-process"]


class ExecutedPlan(Protocol):
    """Study plan with the attributes needed here; implemented by `study.plan.plan.StudyPlan`."""

    @property
    def executor(self) -> Literal["auto", "ray", "processes", "in-process"]:
        """What runs the trials."""

    @property
    def address(self) -> str:
        """Address of the Ray cluster, or `local`."""

    @property
    def gpus_per_trial(self) -> float | Literal["auto"]:
        """GPUs per trial."""

    @property
    def workers_per_trial(self) -> int:
        """Processes per trial."""

    @property
    def ship_code(self) -> bool:
        """Whether the nodes receive the code."""

    @property
    def storage_path(self) -> str | None:
        """Folder or URI for checkpoints."""

    @property
    def pack(self) -> int | Literal["auto"] | None:
        """Number of trials in a pack."""

    @property
    def trial_timeout(self) -> float | None:
        """Seconds until a hanging trial ends."""

    @property
    def base(self) -> TrialConfig:
        """Base config."""

    @property
    def overrides(self) -> Mapping[str, Any]:
        """Fields set for all trials."""

    @property
    def compared(self) -> Sequence[object]:
        """Compared methods."""

    @property
    def own_methods(self) -> Sequence[str]:
        """The user's own methods."""

    @property
    def given_bounds(self) -> Sequence[object]:
        """Bounds given by the user."""

    @property
    def students(self) -> Sequence[str]:
        """Student architectures."""


def executor_of(plan: ExecutedPlan) -> ExecutorUsed:
    """Return the executor for a plan's trials. `auto` is `processes` unless the plan needs Ray."""
    if plan.executor != AUTO:
        return plan.executor
    return "processes" if not reason_for_ray(plan) else "ray"


def reason_for_ray(plan: ExecutedPlan) -> str:
    """Return which part of the plan only Ray can do, or an empty text."""
    if sys.platform != "linux":
        return "forked workers need Linux"
    if plan.address != "local":
        return f"the trials run on the cluster at {plan.address}"
    if plan.gpus_per_trial != 0:
        return "the trials use GPUs"
    if plan.workers_per_trial != 1:
        return "a trial has several workers"
    if plan.ship_code:
        return "the code is sent to nodes"
    if plan.storage_path is not None and is_uri(plan.storage_path):
        return "the checkpoints are at a URI"
    return ""


def packs_by_default(plan: ExecutedPlan) -> bool:
    """Return whether a study without --pack may pack trials: known networks and methods, one method per study.

    Packs are then limited to trials that no other trial's result decides about.
    """
    base = plan.base
    return (
        plan.pack in (None, AUTO)
        and executor_of(plan) == "processes"
        and plan.trial_timeout is None
        and not plan.compared
        and not plan.own_methods
        and not is_text(base.dataset)
        and base.has_plain_steps
        and len(plan.students) == 1
        and is_packable(base.student)
        and not plan.overrides.get("adapter_dropout")
        and (base.method_spec.companion is None or is_known_to_draw_nothing(getattr(base, base.method_spec.companion)))
    )


def check_packing(plan: ExecutedPlan) -> None:
    """Check that the trials of a plan with a given --pack can be packed.

    Raises:
        ValueError: with the option to leave out.
    """
    if plan.pack not in (1, None) and may_use_gpus(plan.gpus_per_trial):
        raise ValueError("packed trials run only on CPUs: leave out --pack or --gpus-per-trial")
    if plan.pack not in (1, None) and plan.trial_timeout is not None:
        raise ValueError(
            "packed trials stop together, so it is unknown which of them hangs: leave out --pack or --trial-timeout"
        )
    if plan.pack not in (1, None, "auto") and (is_text(plan.base.dataset) or not plan.base.has_plain_steps):
        raise ValueError(
            "packed trials need image data, and SGD with one learning rate per epoch and without gradient "
            "clipping: leave out --pack"
        )
    if plan.pack not in (1, None, "auto") and is_canonical(plan.base.student):
        raise ValueError(
            f"students {plan.base.student} cannot be packed, because it is unknown whether a network of your own "
            "keeps channels apart: leave out --pack"
        )
    if plan.pack not in (1, None, "auto") and not plan.given_bounds and not is_packable(plan.base.student):
        raise ValueError(
            f"students of architecture {plan.base.student!r} cannot be packed, because their layers mix channels: "
            "leave out --pack"
        )
    if plan.pack not in (1, None, "auto") and plan.overrides.get("adapter_dropout"):
        raise ValueError("packed trials cannot keep the random numbers of adapter_dropout separate: leave out --pack")
    companion = plan.base.method_spec.companion
    if (
        plan.pack not in (1, None)
        and companion is not None
        and not is_known_to_draw_nothing(getattr(plan.base, companion))
    ):
        raise ValueError(
            f"method {plan.base.method!r} trains {getattr(plan.base, companion)} along with each student, and it "
            "may draw random numbers, which packed trials cannot keep separate: leave out --pack"
        )


def check_executor(plan: ExecutedPlan) -> None:
    """Check that a plan's executor can do everything in the plan.

    Raises:
        ValueError: with the option to leave out.
    """
    if plan.executor == "in-process":
        for name, (accepted, why) in RAY_ONLY.items():
            if getattr(plan, name) not in accepted:
                raise ValueError(f"--executor in-process {why}: leave out {OPTIONS[name].long_flag}")
        if plan.storage_path is not None and is_uri(plan.storage_path):
            raise ValueError(
                "--executor in-process writes checkpoints to a folder of this machine: name a folder as "
                "--storage-path, or leave it out"
            )
    if plan.executor == "processes" and (why := reason_for_ray(plan)):
        raise ValueError(f"--executor processes: {why}, so the study needs Ray: leave out --executor")
