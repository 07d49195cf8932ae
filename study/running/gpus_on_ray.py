"""Choice of the GPUs per trial on a Ray cluster. A trial's memory is measured on one GPU per node."""

import time
from collections.abc import Sequence
from typing import Any, Final

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from study.cli.progress import StudyProgress
from study.plan.gpu_notes import largest_configs
from study.plan.gpus import AUTO
from study.plan.plan import StudyPlan
from study.plan.user_code import sources_in
from study.running.gpus import (
    GpuChoice,
    GpuNode,
    choose_share,
    given_choice,
    whole_gpus,
    with_enough_cores,
    with_idle_gpus,
    without_gpus,
)
from study.running.stop import Stop
from trainables.display.numbers import counted
from trainables.process.errors import StudyError
from trainables.process.gpu import CudaMemory, GpuReading

# Opens the GPU memory in a node's process.
READ_GPU: Any = CudaMemory
_SECONDS_TO_MEASURE: Final = 180.0
_SECONDS_BETWEEN_LOOKS: Final = 0.25


def gpu_nodes() -> list[GpuNode]:
    """Return all cluster nodes with GPUs."""
    alive = [node for node in ray.nodes() if node["Alive"]]
    found = [
        (node["NodeID"], node["Resources"].get("CPU", 0.0), int(node["Resources"].get("GPU", 0))) for node in alive
    ]
    return [GpuNode(*each) for each in found if each[2]]


def choose_on_ray(plan: StudyPlan, progress: StudyProgress, stop: Stop) -> GpuChoice | None:
    """Return the GPUs per trial on the connected Ray cluster, or None if the study stops.

    Raises:
        StudyError: a trial does not fit on a GPU, or PyTorch on a node with a GPU finds none.
    """
    nodes = gpu_nodes()
    if plan.gpus_per_trial != AUTO:
        choice: GpuChoice | None = given_choice(plan, plan.gpus_per_trial, sum(node.gpus for node in nodes))
    else:
        choice = _choose(plan, nodes, progress, stop)
    return choice if choice is None else with_idle_gpus(plan, choice, nodes)


def _choose(plan: StudyPlan, nodes: Sequence[GpuNode], progress: StudyProgress, stop: Stop) -> GpuChoice | None:
    if not nodes:
        return without_gpus()
    fitting = with_enough_cores(plan, nodes)
    if not fitting:
        raise StudyError(
            f"a trial needs {plan.cpus_per_trial:g} cores, and the nodes with GPUs have at most "
            f"{max(node.cores for node in nodes):g}: lower --cpus-per-trial, or give --gpus-per-trial 0"
        )
    gpus = sum(node.gpus for node in fitting)
    if plan.workers_per_trial > 1:
        if gpus < plan.workers_per_trial:
            raise StudyError(
                f"a trial has {plan.workers_per_trial} workers with a GPU each, and the nodes have "
                f"{counted(gpus, 'GPU')}: lower --workers-per-trial, or give --gpus-per-trial 0"
            )
        return whole_gpus(gpus, "each worker of a trial uses a GPU of its own")
    progress.say(f"measuring on {counted(len(fitting), 'GPU')} how much memory a trial takes")
    probed = _probe(plan, fitting, stop)
    return None if probed is None else choose_share(plan, fitting, probed)


def _probe(plan: StudyPlan, nodes: Sequence[GpuNode], stop: Stop) -> list[GpuReading | str] | None:
    """Return one GPU reading per node, or the reason for a missing reading; None if the study stops."""
    from trainables.tune.gpu_probe import probe_gpu

    task: Any = ray.remote(probe_gpu)
    configs = [config.model_dump(mode="json") for config in largest_configs(plan)]
    data_root = str(plan.data_root) if plan.data_root is not None else None
    code, folder = sources_in(plan), str(plan.teachers_folder)
    running = [
        task.options(
            num_cpus=min(1.0, plan.cpus_per_trial),
            num_gpus=1,
            max_retries=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node.node_id, soft=False),
        ).remote(configs, data_root, folder, user_code=code, read=READ_GPU)
        for node in nodes
    ]
    until = time.monotonic() + _SECONDS_TO_MEASURE
    waiting = list(running)
    while waiting and time.monotonic() < until and not stop.stop_all():
        waiting = ray.wait(waiting, num_returns=len(waiting), timeout=_SECONDS_BETWEEN_LOOKS)[1]
    for task in waiting:
        ray.cancel(task, force=True)
    if waiting and stop.stop_all():
        return None
    late = f"no GPU was free, or the measurement took longer than {_SECONDS_TO_MEASURE:g} s"
    return [late if each in waiting else _reading(each, node) for each, node in zip(running, nodes, strict=True)]


def _reading(task: Any, node: GpuNode) -> GpuReading | str:
    try:
        reading: GpuReading = ray.get(task)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, RuntimeError) and "finds no GPU" in str(error.cause):
            raise StudyError(
                f"node {node.node_id[:8]} has {counted(node.gpus, 'GPU')}, but {error.cause} there: install a build of "
                "PyTorch for this GPU and its driver on the node, or give --gpus-per-trial 0 to train on CPUs"
            ) from None
        reason = (str(error.cause).splitlines() or [""])[0]
        return f"the measurement of the memory failed ({type(error.cause).__name__}: {reason})"
    except ray.exceptions.RayError as error:
        return f"the measurement of the memory failed ({type(error).__name__})"
    return reading
