"""Measurement of the GPU memory used by a study's trials, before the study has a teacher."""

import gc
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from trainables.data.dataset import Dataset
from trainables.models import build_model
from trainables.process.gpu import CudaMemory, GpuMemory, GpuReading
from trainables.process.randomness import seeded
from trainables.process.threads import use_one_thread
from trainables.run.run import DistillationRun
from trainables.spec.modality import is_text
from trainables.spec.teacher_trial import teacher_trial
from trainables.spec.trial import TrialConfig
from trainables.steps.loss_log import LossLog
from trainables.teacher.files import stored_path
from trainables.teacher_outputs.frozen import FrozenTeacher
from trainables.tune.cache import dataset_of
from trainables.user_code.loading import errors_explained, remember_json

ReadGpu = Callable[[], GpuMemory]


def probe_gpu(
    configs: Sequence[Mapping[str, Any]],
    data_root: str | None,
    folder: str,
    *,
    user_code: Sequence[Mapping[str, Any]] = (),
    read: ReadGpu = CudaMemory,
) -> GpuReading:
    """Train each trial for one step, evaluate, and return the largest memory reserved by a trial.

    The study's data are used, and the teacher has random weights. The teacher is on the GPU and computes outputs, even
    for trials with stored outputs.

    Args:
        configs: `TrialConfig` fields for each trial.
        data_root: dataset folder.
        folder: folder with all teachers and a given teacher's tokeniser.
        user_code: user code sources, as `Sources.to_json`.
        read: opens the GPU's memory.

    Raises:
        RuntimeError: PyTorch finds no GPU.
    """
    use_one_thread()
    remember_json(user_code)
    gpu = read()
    in_use = gpu.in_use()
    context, largest, most = in_use, "", 0
    for each in configs:
        trial = TrialConfig(**each)
        kept = stored_path(Path(folder), trial.teacher_digest) if trial.teacher_digest else None
        gc.collect()
        gpu.begin_trial()
        try:
            with errors_explained():
                _make_step(trial, dataset_of(trial, data_root, kept), gpu.device)
            now, peak = gpu.reserved()
        except torch.OutOfMemoryError:
            with suppress(torch.OutOfMemoryError):
                most = max(most, gpu.reserved()[1])
            return GpuReading(gpu.name, gpu.total, in_use, context, most, largest, _in_words(trial))
        context = max(context, gpu.in_use() - now)
        if peak > most:
            largest, most = _in_words(trial), peak
    return GpuReading(gpu.name, gpu.total, in_use, context, most, largest)


def _in_words(trial: TrialConfig) -> str:
    return f"{trial.student} with {trial.method} in batches of {trial.batch_size}"


def _make_step(trial: TrialConfig, dataset: Dataset, device: str) -> None:
    """Train a trial for one step, and evaluate."""
    with seeded(0):
        run = DistillationRun(trial, dataset, FrozenTeacher(_random_teacher(trial, dataset)), device=device)
    run.begin_drawing()
    for trainer in run.trainers.values():
        trainer.module.train()
        trainer.begin_epoch(0)
    log = LossLog(run.closed_form)
    for batch in run.batches.of_epoch(0, None):
        run.train_batch(batch, log)
        break
    run.epoch = 1
    run.evaluate()


def _random_teacher(trial: TrialConfig, dataset: Dataset) -> Any:
    if is_text(trial.dataset):  # the vocabulary depends on the data
        return DistillationRun(teacher_trial(trial), dataset, None).student
    return build_model(trial.teacher, num_classes=dataset.num_classes, in_channels=dataset.info.channels)
