"""What an epoch of a trial cost, but for its energy: time, memory, and who had to be there for it."""

from typing import TYPE_CHECKING

from trainables.batch_sizes import count_batches
from trainables.compute import peak_memory
from trainables.optimisation import count_parameters

if TYPE_CHECKING:
    from trainables.training import DistillationRun


def epoch_costs(run: "DistillationRun", *, seconds: float, teacher_forwards: int) -> dict[str, float]:
    """`cost/*` of the epoch that was trained and evaluated last.

    Args:
        run: the trial.
        seconds: what training and evaluation took.
        teacher_forwards: samples that went through the teacher itself.
    """
    examples = len(run.dataset.train)
    costs = {
        "cost/seconds": seconds,
        "cost/seconds_per_step": run.training_seconds / count_batches(examples, run.config.batch_size),
        "cost/examples_per_second": examples / run.training_seconds,
        "cost/teacher_forwards": float(teacher_forwards),
        "cost/trainable_parameters": float(count_parameters(each.module for each in run.trainers.values())),
        "cost/adapter_parameters": float(count_parameters([run.adapter] if run.adapter is not None else [])),
        "cost/peak_memory_bytes": float(peak_memory(run.device)),
        "cost/workers": float(run.workers.size if run.workers is not None else 1),
    }
    if run.method.needs_teacher and run.teacher is not None and run.teacher.training_seconds is not None:
        costs["cost/teacher_training_seconds"] = run.teacher.training_seconds
    return costs
