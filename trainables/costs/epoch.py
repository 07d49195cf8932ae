"""Costs of an epoch: time, memory, energy, and the number of trainable parameters."""

import time

from trainables.costs.energy import energy_meter
from trainables.process.memory import peak_memory
from trainables.run.run import DistillationRun
from trainables.spec.batch_sizes import count_batches
from trainables.steps.sgd import count_parameters


def run_epoch(run: DistillationRun) -> dict[str, float]:
    """Train one epoch, evaluate, and return all the method's measures, including the costs.

    `cost/seconds` is the wall time for training and evaluation. `cost/examples_per_second` covers training only.
    `cost/teacher_forwards` is the number of samples passed through the teacher since the previous epoch (see
    `DistillationRun.take_forwards`). Methods without an adapter have 0 adapter parameters. No cost includes the test
    split, which a trial with `reads_test` evaluates in the last epoch.

    Args:
        run: the trial.

    Raises:
        NonFiniteLossError: see `DistillationRun.train_epoch`.
    """
    started, meter = time.perf_counter(), energy_meter(run.device)
    energy = meter.read()
    measures = run.train_epoch() | run.evaluate()
    costs = epoch_costs(run, time.perf_counter() - started) | meter.since(energy)
    return measures | costs | run.test_at_the_end()


def epoch_costs(run: DistillationRun, seconds: float) -> dict[str, float]:
    """Return `cost/*` of the last epoch, except the energy.

    Args:
        run: the trial, after training and evaluating the epoch.
        seconds: wall time for training and evaluation.
    """
    examples = len(run.dataset.train)
    costs = {
        "cost/seconds": seconds,
        "cost/seconds_per_step": run.training_seconds / count_batches(examples, run.config.batch_size),
        "cost/examples_per_second": examples / run.training_seconds,
        "cost/teacher_forwards": float(run.take_forwards()),
        "cost/trainable_parameters": float(count_parameters(run.trainable.values())),
        "cost/adapter_parameters": float(count_parameters([run.adapter] if run.adapter is not None else [])),
        "cost/peak_memory_bytes": float(peak_memory(run.device)),
        "cost/workers": float(run.workers.size if run.workers is not None else 1),
    }
    if run.method.spec.needs_teacher and run.teacher is not None and run.teacher.training_seconds is not None:
        costs["cost/teacher_training_seconds"] = run.teacher.training_seconds
    return costs
