"""Study tasks other than trials: prepare a teacher, read a dataset, fill teacher outputs. They need no Ray."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from trainables.costs.ledger import count_costs
from trainables.data.views import num_slots
from trainables.packing.pack import is_packable_run
from trainables.process.threads import use_one_thread
from trainables.spec.trial import TrialConfig
from trainables.teacher.files import (
    TeacherProgress,
    ensure_teacher,
    notes_on_given_teacher,
    stored_path,
)
from trainables.teacher_outputs.shard import Shard
from trainables.tune.cache import dataset_of, store_of, teacher_of, teacher_path_of
from trainables.tune.reports import FillReport, PreparedTeacher
from trainables.tune.session import begin_run, take_notes
from trainables.user_code.loading import errors_explained, remember_json

# Forward FLOPs of the student for a batch. `benchmarks/packing.py` measures 3 to 4 times the steps a second at 0.5 to 3
# million, 1.7 times at 37 million, and 1.1 times at 132 million.
MOST_FLOPS_PER_BATCH: Final = 50e6


def prepare_teacher(
    config: dict[str, Any],
    data_root: str | None,
    folder: str,
    progress: TeacherProgress | None = None,
    *,
    user_code: Sequence[Mapping[str, Any]] = (),
) -> PreparedTeacher:
    """Train a study's teacher, or find a teacher trained earlier or given by the user.

    Args:
        config: fields of a `TrialConfig` with this teacher.
        data_root: dataset folder.
        folder: folder with all teachers.
        progress: function to call after each training epoch.
        user_code: user code sources, as `Sources.to_json`.
    """
    use_one_thread()
    remember_json(user_code)
    trial = TrialConfig(**config)
    kept = stored_path(Path(folder), trial.teacher_digest) if trial.teacher_digest else None
    with errors_explained():
        dataset = dataset_of(trial, data_root, kept)
        path = ensure_teacher(trial, dataset, Path(folder), progress=progress)
    notes = notes_on_given_teacher(path, trial, dataset) if trial.teacher_digest else []
    return PreparedTeacher(str(path), notes)


def progress_to_file(path: str) -> TeacherProgress:
    """Return a function for writing training progress to a JSON file: `epoch`, `epochs`, `accuracy`."""

    def report_epoch(epoch: int, epochs: int, accuracy: float) -> None:
        text = json.dumps({"epoch": epoch, "epochs": epochs, "accuracy": accuracy})
        partial = Path(f"{path}.partial")
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)

    return report_epoch


def dataset_digest(
    config: dict[str, Any], data_root: str | None, folder: str, *, user_code: Sequence[Mapping[str, Any]] = ()
) -> str:
    """Read a study's dataset and return the digest of content and split.

    Args:
        config: fields of a `TrialConfig` in the study.
        data_root: dataset folder.
        folder: folder with all teachers and a given teacher's tokeniser.
        user_code: user code sources, as `Sources.to_json`.
    """
    use_one_thread()
    remember_json(user_code)
    trial = TrialConfig(**config)
    kept = stored_path(Path(folder), trial.teacher_digest) if trial.teacher_digest else None
    with errors_explained():
        return dataset_of(trial, data_root, kept).digest


def pack_size(settings: dict[str, Any], most: int) -> int:
    """Return how many trials like this one to pack: `most` for a small student, otherwise 1.

    Packing pays off where a step is dominated by the number of calls. The rule looks at the student's size rather than
    at the clock, so the packs of a study, and with them the rounding, do not depend on the load of the machine.

    Args:
        settings: settings of any trial in the study.
        most: largest number.
    """
    run = begin_run({**settings, "teacher_outputs": None})
    if not is_packable_run(run):
        return 1
    flops = count_costs(run).facts["cost/forward_flops_student"] * run.config.batch_size
    return most if flops <= MOST_FLOPS_PER_BATCH else 1


def fill_teacher_outputs(settings: dict[str, Any], shards: list[Shard] | None = None) -> FillReport:
    """Fill shards of the teacher outputs one by one; stop if a shard cannot be stored.

    Args:
        settings: trial settings. The trial's outputs are filled: the validation split and all slots of the trial's
            epochs.
        shards: shards to fill; if None, the first missing shard.
    """
    use_one_thread()
    remember_json(settings.get("user_code", ()))
    config = TrialConfig(**settings["config"])
    path = teacher_path_of(settings, config)
    assert path is not None
    with errors_explained():
        dataset = dataset_of(config, settings["data_root"], path)
        teacher = teacher_of(path, config, dataset)
        store = store_of(settings["teacher_outputs"], config, dataset, teacher, settings["device"])
        missing = store.missing(num_slots(store.tables.num_views, config.epochs)) if shards is None else []
        filled, forwards, began = [], 0, time.perf_counter()
        for shard in missing[:1] if shards is None else shards:
            done = store.fill(shard)
            forwards += done.forwards
            if not done.stored:
                break
            filled.append(shard)
    return FillReport(missing, filled, forwards, time.perf_counter() - began, take_notes())
