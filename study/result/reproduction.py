"""Rerun of a recorded trial, compared with the record number by number.

The rerun uses the same config, data, teacher and teacher outputs as the study, and one thread, but the current process.
Nothing is written to the study: a missing teacher or missing teacher outputs are recomputed in a temporary folder. The
test split is not read again.
"""

import difflib
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from study.cli.request import existing_plan
from study.ledger.derivable import check_trial
from study.ledger.entry import TrialEntry
from study.ledger.gpus import gpus_used
from study.ledger.ledger import StudyLedger
from study.ledger.same_data import refuse_other_data
from study.plan.executor import executor_of
from study.plan.plan import StudyPlan
from trainables.costs.epoch import run_epoch
from trainables.display.failures import message_of
from trainables.process.errors import StudyError, UsageError
from trainables.storage.uris import is_uri

COMPARED: Final = ("train/", "val/")
_NEAREST: Final = 3

Say = Callable[[str], None]


class RerunFailedError(Exception):
    """A packed trial failed in the rerun. The message is the error as a study records it."""


@dataclass(frozen=True)
class Difference:
    """A measure's value that differs from the record.

    Args:
        epoch: epoch, from 1.
        measure: name of the measure.
        recorded: recorded value.
        again: value in the rerun; None if the rerun did not report the measure.
    """

    epoch: int
    measure: str
    recorded: float
    again: float | None

    @property
    def size(self) -> float:
        """Absolute difference; infinite if the rerun did not report the measure."""
        return float("inf") if self.again is None else abs(self.again - self.recorded)


@dataclass(frozen=True)
class Reproduction:
    """Rerun result.

    Args:
        entry: recorded trial.
        numbers: number of compared values.
        differences: differing values, by epoch and then in recorded order.
        error: the rerun's error, or None.
        error_compared: whether the errors in record and rerun are compared as well.
    """

    entry: TrialEntry
    numbers: int
    differences: tuple[Difference, ...]
    error: str | None = None
    error_compared: bool = True

    @property
    def errors_match(self) -> bool:
        """Whether rerun and record failed with the same error, or both did not fail."""
        return not self.error_compared or _essence(self.error) == _essence(self.entry.error)

    @property
    def matches(self) -> bool:
        """Whether all values are equal bit for bit, and the errors match."""
        return not self.differences and self.errors_match

    @property
    def largest(self) -> Difference | None:
        """Largest difference, or None."""
        return max(self.differences, key=lambda each: each.size, default=None)


def find_trial(trial_id: str, name: str | None, output_dir: Path) -> tuple[StudyPlan, TrialEntry]:
    """Find a recorded trial and the trial's study.

    Args:
        trial_id: identifier of the trial in the records.
        name: name of the study; derived from `trial_id` if None.
        output_dir: folder of the studies.

    Raises:
        UsageError: the study or trial does not exist (the message names the nearest ones), or nothing was recorded.
        StudyError: the journal has less data about the trial than the records.
    """
    study = _study_of(trial_id, output_dir) if name is None else name
    plan = existing_plan(study, output_dir)
    ledger = StudyLedger(plan, read_only=True)
    check_trial(ledger, trial_id)
    entries = ledger.entries
    if trial_id not in entries:
        raise UsageError(f"study {study!r} has no trial {trial_id!r}; {_nearest(trial_id, list(entries))}")
    entry = entries[trial_id]
    if not entry.epochs and not entry.failed_with_an_error:
        raise UsageError(f"trial {trial_id!r} has no recorded epoch, so there is nothing to compare")
    return plan, entry


def _studies(output_dir: Path) -> list[str]:
    return sorted(path.parent.name for path in output_dir.glob("*/plan.json"))


def _study_of(trial_id: str, output_dir: Path) -> str:
    """Return a trial's study. A trial identifier begins with the study's original name."""
    named, holding = trial_id.rpartition("-")[0], _studies_with(trial_id, output_dir)
    if len(set(holding.values())) > 1:  # copies of a study share an identifier
        raise UsageError(
            f"{len(holding)} studies have a trial {trial_id!r}, because one of them was renamed: name the study "
            f"with --name ({', '.join(holding)})"
        )
    if named in holding or named in _studies(output_dir):
        return named
    if not holding:
        raise UsageError(
            f"there is no trial {trial_id!r} under {output_dir}; {_nearest_anywhere(trial_id, output_dir)}"
        )
    return next(iter(holding))


def _studies_with(trial_id: str, output_dir: Path) -> dict[str, str]:
    """Return name and identifier of each study with a started trial that has this identifier."""
    begun, found = f'{{"event":"trial","trial_id":{json.dumps(trial_id)},'.encode(), {}
    for study in _studies(output_dir):
        with suppress(UsageError, OSError):  # studies from another version, or without a journal
            if begun in (output_dir / study / "journal.jsonl").read_bytes():
                found[study] = existing_plan(study, output_dir).study_id
    return found


def _nearest_anywhere(trial_id: str, output_dir: Path) -> str:
    studies = _studies(output_dir)
    if not studies:
        return "there is no study there"
    near = difflib.get_close_matches(trial_id.rpartition("-")[0] or trial_id, studies, n=_NEAREST, cutoff=0.0)
    known: list[str] = []
    for study in near:
        with suppress(UsageError, StudyError):  # studies from another version, or damaged
            known += StudyLedger(existing_plan(study, output_dir), read_only=True).entries
    return _nearest(trial_id, known)


def _nearest(trial_id: str, known: list[str]) -> str:
    near = difflib.get_close_matches(trial_id, known, n=_NEAREST, cutoff=0.0)
    return f"similar: {', '.join(near)}" if near else "the study has no trials"


def reproduce(plan: StudyPlan, entry: TrialEntry, say: Say) -> Reproduction:
    """Run a trial again for the recorded number of epochs.

    A failed trial runs until it fails again, or for one epoch more than recorded.

    Args:
        plan: study of the trial.
        entry: recorded trial; not modified.
        say: receives a line per epoch, and one for everything recomputed.

    Raises:
        StudyError: the trial cannot be run, or fails although the recorded trial did not.
    """
    from trainables.tune.cache import dataset_of
    from trainables.tune.session import describe_error, take_notes

    recorded = StudyLedger(plan, read_only=True).dataset
    error: str | None = None
    again: dict[int, dict[str, float]] = {}
    failed = entry.failed_with_an_error
    with tempfile.TemporaryDirectory(prefix="pesfkd-rerun-") as scratch:
        try:
            settings = _settings(plan, entry, Path(scratch), say)
            if recorded is not None:  # digest for the study's own split
                first = entry.config.with_numbers(teacher=0, split=0)
                own = dataset_of(first, settings["data_root"], settings["teacher_path"])
                refuse_other_data(plan, recorded["digest"], own.digest)
            for epoch, measures in _epochs(plan, entry, settings, max(entry.epochs, default=0) + failed):
                again[epoch] = measures
                say(_progress(entry, epoch, measures))
        except StudyError:
            raise
        except Exception as caught:
            error = str(caught) if isinstance(caught, RerunFailedError) else describe_error(caught)
            if not failed:
                raise StudyError(f"trial {entry.trial_id} could not be run again: {error}") from caught
        for note in take_notes():
            say(f"warning: {note}")
    differences = compare(entry.epochs, again)
    numbers = sum(len(_compared(measures)) for measures in entry.epochs.values())
    return Reproduction(entry, numbers, tuple(differences), error, error_compared=failed)


def _epochs(
    plan: StudyPlan, entry: TrialEntry, settings: dict[str, Any], count: int
) -> Iterator[tuple[int, dict[str, float]]]:
    """Yield epoch and measures of the trial, which trains alone, or in the recorded pack with the same trials."""
    from trainables.tune.cohort import Cohort
    from trainables.tune.session import begin_run

    if not entry.pack:
        run = begin_run(settings)
        while run.epoch < count and not run.finished:
            measures = run_epoch(run)
            yield run.epoch, measures
        return
    # Trials of another method never share a pack. A member lost from the journal is missing here, and the bits differ.
    entries = StudyLedger(plan, read_only=True).entries
    members = [entries[trial_id] for trial_id in entry.pack if trial_id in entries]
    cohort = Cohort(
        [
            {**settings, "trial_id": each.trial_id, "config": each.config.model_dump(mode="json"), "checkpoints": []}
            for each in members
            if each.config.method == entry.config.method
        ],
        begin=begin_run,
    )
    for reports in cohort.run():
        report = reports.get(entry.trial_id)
        if report is None:
            continue
        for epoch in report["epochs"]:
            if epoch["epoch"] <= count:
                yield epoch["epoch"], {name: value for name, value in epoch.items() if name != "epoch"}
        if report.get("failed"):
            raise RerunFailedError(report["failed"])
        if report["epoch"] >= count:
            return


def _progress(entry: TrialEntry, epoch: int, measures: dict[str, float]) -> str:
    of = f"epoch {epoch} of {max(entry.epochs, default=0)}"
    if epoch not in entry.epochs:
        return f"{of}: not recorded"
    different = sum(1 for _ in compare({epoch: entry.epochs[epoch]}, {epoch: measures}))
    return f"{of}: {f'{different} numbers differ' if different else 'the same'}"


def compare(recorded: dict[int, dict[str, float]], again: dict[int, dict[str, float]]) -> Iterator[Difference]:
    """Yield the recorded values with any bit different from the rerun. Costs and test measures are not compared.

    Args:
        recorded: recorded measures, by epoch.
        again: measures of the rerun, by epoch.
    """
    for epoch, measures in sorted(recorded.items()):
        now = _compared(again.get(epoch, {}))
        for name, value in _compared(measures).items():
            found = now.get(name)
            if found is None or found.hex() != value.hex():
                yield Difference(epoch, name, value, found)


def _compared(measures: dict[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in measures.items() if name.startswith(COMPARED)}


def _essence(error: str | None) -> str | None:
    """Return an error message without source line and traceback."""
    return None if error is None else message_of(error)


def reasons_to_differ(plan: StudyPlan, device: str, entry: TrialEntry | None = None) -> list[str]:
    """Return harmless reasons for a difference between rerun and record.

    Args:
        plan: the study.
        device: the rerun's device.
        entry: recorded trial. Default: any trial in the study's last run.
    """
    reasons = [
        "Trials that ran on another machine, with other versions of the libraries, on more threads or packed may "
        "differ in rounding, which grows from epoch to epoch."
    ]
    if executor_of(plan) == "ray" and plan.pack not in (1, None):
        reasons.append(
            f"The trials of this study were packed (--pack {plan.pack}), so results are not equal bit for bit."
        )
    if entry is not None and entry.pack and plan.scheduler == "asha":
        reasons.append(
            "ASHA stopped members of the trial's pack, which changes the rounding of the others from then on."
        )
    if plan.workers_per_trial != 1:
        reasons.append(f"The study used {plan.workers_per_trial} workers per trial, so sums are rounded differently.")
    if _used_gpus(plan, entry):
        where = "a GPU, and some GPU kernels are not deterministic" if device == "cuda" else "the CPU"
        reasons.append(f"The trials of the study ran on GPUs, this one on {where}.")
    return reasons


def device_of(plan: StudyPlan, entry: TrialEntry | None = None) -> str:
    """Return the device for a rerun: `cuda` if the trial used a GPU and one is available here, else `cpu`.

    Args:
        plan: the study.
        entry: recorded trial. Default: any trial in the study's last run.
    """
    import torch

    return "cuda" if _used_gpus(plan, entry) and torch.cuda.is_available() else "cpu"


def _used_gpus(plan: StudyPlan, entry: TrialEntry | None) -> bool:
    started = None if entry is None else entry.started
    return gpus_used(plan, StudyLedger(plan, read_only=True), at=started) > 0


def _settings(plan: StudyPlan, entry: TrialEntry, scratch: Path, say: Say) -> dict[str, Any]:
    """Return the trial settings, as passed by Tune in a study.

    See `trainables.tune.trainable.DistillationTrainable`.
    """
    outputs = None
    if plan.teacher_outputs_used != "live":
        outputs = {"location": str(_linked_outputs(plan, scratch / "outputs")), "dtype": plan.teacher_outputs_dtype}
    return {
        "config": entry.config.model_dump(mode="json"),
        "data_root": str(plan.data_root) if plan.data_root is not None else None,
        "teacher_path": _teacher(plan, entry, scratch, say),
        "teacher_outputs": outputs,
        "device": device_of(plan, entry),
    }


def _teacher(plan: StudyPlan, entry: TrialEntry, scratch: Path, say: Say) -> str | None:
    """Return the path to the trial's teacher, or None without a teacher. A missing file is recreated in `scratch`."""
    from study.plan.teacher_choice import keep_teacher
    from trainables.data import load_dataset
    from trainables.spec.modality import is_text
    from trainables.teacher.files import ensure_teacher, find_tokeniser, stored_path, teacher_digest

    trial = plan.teachers.get(entry.config.method, plan.teachers.get(""))
    if trial is None:
        return None
    own = entry.config
    trial = trial.with_numbers(teacher=own.teacher_number, split=own.split_number)
    given = stored_path(plan.teachers_folder, trial.teacher_digest) if is_text(trial.dataset) else None
    tokeniser = find_tokeniser(trial, given)
    load = partial(load_dataset, trial.dataset, plan.data_root, seed=trial.split_seed, tokeniser=tokeniser)
    if (recorded := StudyLedger(plan, read_only=True).dataset) is not None:
        refuse_other_data(plan, recorded["digest"], load().digest)  # before a missing teacher is trained
    dataset = load(split_number=trial.split_number)
    path = stored_path(plan.teachers_folder, teacher_digest(trial, dataset))
    if path.exists():
        return str(path)
    say(f"the teacher of the study is no longer at {path}: training it again for this run")
    elsewhere = plan.model_copy(update={"output_dir": scratch})
    keep_teacher(elsewhere)
    return str(ensure_teacher(trial, dataset, elsewhere.teachers_folder))


def _linked_outputs(plan: StudyPlan, folder: Path) -> Path:
    """Return a folder with links to the study's stored teacher outputs.

    Missing outputs are written to this folder and not to the study.
    """
    from trainables.storage.remote_folder import node_cache

    location = plan.teacher_outputs_location
    stored = node_cache() / "teacher_outputs" if is_uri(location) else Path(location)
    for path in stored.glob("*/*.arrow"):
        link = folder / path.relative_to(stored)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path.absolute())
    return folder
