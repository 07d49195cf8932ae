"""Study execution from plan to result: prepare, search, collect.

New and resumed studies run the same code, and so do both executors (`study.running.executor`).
"""

import _thread
import itertools
import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

from study.cli.commands import resume_command
from study.cli.progress import StudyProgress
from study.ledger.derivable import check_records, set_aside
from study.ledger.entry import TrialEntry
from study.ledger.ledger import StudyLedger
from study.ledger.recording import complete_records, open_records
from study.ledger.rows import epoch_rows, trial_row
from study.ledger.run import StudyRun
from study.plan.executor import executor_of
from study.plan.folder import adopt_folder
from study.plan.lock import StudyLock
from study.plan.notes import describe_teacher_storage
from study.plan.objectives import measures_students
from study.plan.plan import StudyPlan
from study.plan.teacher_choice import describe_one_teacher, keep_teacher
from study.plan.travel import files_travel
from study.plan.user_code import sources_in
from study.records import RecordWriter
from study.running.data_check import check_data
from study.running.deployment import check_measurable, measure_students
from study.running.executor import Executor, TrialsToRun
from study.running.gpus import record_choice
from study.running.recorder import TrialRecorder
from study.running.start import Start
from study.running.stop import Stop
from study.running.teacher_fill import TeacherFill, check_outputs_location
from study.running.teacher_preparation import prepare_study_teacher, teacher_ahead
from study.running.tracker_opening import TrackerOpening
from study.running.travel import files_of_trials
from study.running.trial_storage import check_trial_storage
from study.search.optuna_mirror import Put, mirrored
from study.search.searcher import StudySearch
from study.stages.confirmation import describe_unfinished
from trainables.process.errors import ClusterLostError, StudyError
from trainables.spec.modality import is_text
from trainables.storage.files import is_no_room
from trainables.storage.uris import is_uri

if TYPE_CHECKING:
    from study.tracking.tracker import StudyTracker

# Each report takes Tune milliseconds in the driver, and all trials share this one thread. Short epochs are therefore
# reported together, unless a scheduler needs a report for each.
_SECONDS_BETWEEN_REPORTS: Final = 0.5
_SECONDS_TO_SAY_FAILED: Final = 5.0
_SECONDS_TO_REPEAT: Final = 0.05


def check_services(plan: StudyPlan) -> None:
    """Check, before any work, that all services used by the plan answer.

    Raises:
        StudyError: the cluster, the tracking server or a storage for teacher outputs or checkpoints does not answer.
    """
    from trainables.storage.mlflow_store import check_tracking_uri

    if plan.address != "local":
        from study.running.cluster import check_address  # imports Ray

        check_address(plan.address)
    check_measurable(plan)
    check_tracking_uri(plan.tracking_uri)
    check_outputs_location(plan)
    check_trial_storage(plan)


def run_study(
    plan: StudyPlan,
    *,
    progress: StudyProgress,
    command: str,
    versions: dict[str, str],
    retry_failed: bool = False,
    sets_aside: bool = False,
    start: Start | None = None,
) -> tuple[StudyRun, "StudyTracker"]:
    """Run the remaining work of a study. The caller closes the tracker once the result is complete.

    Args:
        plan: the study. The study folder exists.
        progress: progress display for the user.
        command: command line typed by the user, for the record.
        versions: code versions, for the record.
        retry_failed: whether to start failed trials again.
        sets_aside: whether to move away records missing from the journal. If False, the study is refused in this case.
        start: receives the beginning of work. Default: work has already begun.

    Raises:
        StudyError: Ray or the tracking store is unusable, the disk refuses to write, or the journal has lost trials.
        UsageError: another process runs this study.
        KeyboardInterrupt: the user interrupted the study at once, or before any work.
    """
    began = time.monotonic()
    with (
        Stop(plan.time_budget) as stop,
        StudyLock(plan.directory),
        TrackerOpening(lambda: _open_tracker(plan, command, versions, progress, ledger)) as opening,
        mirrored(plan, progress.warn) as mirror,
    ):
        stop.start = start or Start()
        adopt_folder(plan.directory)
        ledger = StudyLedger(
            plan,
            lambda entry: _on_end(plan, entry, records, opening, mirror, stop),
            read_only=True,
            sets_aside=sets_aside,
        )
        account_for_records(ledger, progress.say, sets_aside=sets_aside)
        ledger.begin_writing()
        stop.ledger = ledger
        if retry_failed:
            _retry(ledger, progress)
        records = open_records(plan, ledger, progress.say)
        for entry in ledger.in_stage("search"):
            mirror(entry)
        stop.last_words = _last_words(plan, ledger, records, opening)
        with _interruptible(stop, progress):
            try:
                if _work_is_left(ledger):
                    _search(plan, ledger, opening, mirror, progress, stop)
            except KeyboardInterrupt:
                if opening.opened is not None:
                    opening.opened.abandon()
                raise
            except ClusterLostError:
                stop.last_words()
                raise
            except StudyError:
                if opening.opened is not None:
                    opening.opened.finish("FAILED", patience=_SECONDS_TO_SAY_FAILED)
                raise
        tracker = opening.result()
        if stop.failure is not None:
            tracker.finish("FAILED", patience=_SECONDS_TO_SAY_FAILED)
            raise StudyError(
                f"the study cannot be written down: {stop.failure}. Mend that, then:\n  {resume_command(plan)}"
            ) from stop.failure
        complete_records(plan, ledger, records)
        tracker.catch_up(ledger)
        out_of_time = stop.out_of_time and _work_is_left(ledger)
        failed_alike = stop.failing_alike and _work_is_left(ledger)
        ledger.close()
    run = StudyRun(ledger, stop.interrupted.is_set(), out_of_time, time.monotonic() - began, failed_alike)
    return run, tracker


@contextmanager
def recorded_run(
    plan: StudyPlan, report: Callable[[str], None] = lambda _: None, *, sets_aside: bool = False
) -> Iterator[StudyRun]:
    """Yield a study as stored on disk, with complete records. Nothing is run. The study is locked.

    Args:
        plan: the study.
        report: receives messages about damage and about rewritten records.
        sets_aside: whether to move away records missing from the journal. If False, the study is refused in this case.

    Raises:
        UsageError: another process runs this study.
        StudyError: the study folder cannot be read or written, or the journal has lost trials.
    """
    with StudyLock(plan.directory):
        adopt_folder(plan.directory)
        ledger = StudyLedger(plan, read_only=True, sets_aside=sets_aside)
        try:
            account_for_records(ledger, report, sets_aside=sets_aside)
            open_records(plan, ledger, report)
        except OSError as error:
            raise StudyError(f"the study's folder cannot be written: {error}") from error
        yield StudyRun(ledger, describe_unfinished(ledger) is not None, False, _seconds_taken(plan, ledger))


def _seconds_taken(plan: StudyPlan, ledger: StudyLedger) -> float:
    """Return the duration of the study's last run, read from the summary.

    Without a summary, return the time from the first start to the last end of a trial.
    """
    try:
        return float(json.loads((plan.directory / "summary.json").read_text(encoding="utf-8"))["seconds"])
    except (OSError, ValueError, KeyError):
        started = [entry.started for entry in ledger.entries.values()]
        ended = [entry.ended for entry in ledger.entries.values() if entry.ended is not None]
        return max(ended) - min(started) if ended else 0.0


def _open_tracker(
    plan: StudyPlan, command: str, versions: dict[str, str], progress: StudyProgress, ledger: StudyLedger
) -> "StudyTracker":
    from study.tracking.tracker import open_tracker

    return open_tracker(plan, command=command, versions=versions, report=progress.say, watched=True, ledger=ledger)


def _on_end(
    plan: StudyPlan,
    entry: TrialEntry,
    records: RecordWriter,
    opening: TrackerOpening,
    mirror: Put,
    stop: Stop,
) -> None:
    mirror(entry)
    try:
        records.write(trial_row(plan, entry), epoch_rows(entry))
    except OSError as error:
        stop.failure = error
    opening.result().deliver(entry)


def _retry(ledger: StudyLedger, progress: StudyProgress) -> None:
    again = ledger.retry_failed()
    names = ", ".join(entry.trial_id for entry in again[:5]) + (", ..." if len(again) > 5 else "")
    progress.say(f"running {len(again)} trials that failed again: {names}" if again else "no trial has failed")


def _work_is_left(ledger: StudyLedger) -> bool:
    search = StudySearch(ledger, {})
    return bool(ledger.unfinished) or search.has_more


def _search(
    plan: StudyPlan,
    ledger: StudyLedger,
    opening: TrackerOpening,
    mirror: Put,
    progress: StudyProgress,
    stop: Stop,
) -> None:
    if measures_students(plan):
        opening.wait_for_import()  # nothing else may run during the measurement
        measure_students(plan, ledger, progress)
    _end_if_interrupted(stop)
    with _executor(plan, progress, stop) as executor:
        executor.check_resources()
        if is_text(plan.base.dataset):
            keep_teacher(plan)  # the teacher's tokeniser splits the sentences; a refused study leaves this copy
        check_data(executor, ledger)
        _end_if_interrupted(stop)
        gpus = executor.choose_gpus()
        _end_if_interrupted(stop)
        if gpus is None:
            return
        record_choice(gpus, ledger, progress)
        with teacher_ahead(plan, executor):
            tracker = opening.result()  # a store without write access ends the study
        keep_teacher(plan)
        stop.start.begin_work()
        prepared = _prepare_teachers(plan, executor, progress)
        if prepared is None:
            return
        own, *further = prepared
        teachers = dict(own["paths"])
        settings = {
            "data_root": str(plan.data_root) if plan.data_root is not None else None,
            "teacher_path": teachers.pop("", None),
            "own_teachers": teachers,
            "further_teachers": further,
            "teacher_outputs": _teacher_outputs(plan, executor),
            "device": gpus.device,
            "seconds_between_reports": _SECONDS_BETWEEN_REPORTS if plan.scheduler == "none" else 0.0,
        }
        if files_travel(plan):
            settings["travelling"] = executor.share(files_of_trials(plan, prepared))
        if code := sources_in(plan):
            settings["user_code"] = executor.share(code)
        progress.say(f"teacher {describe_teacher_storage(plan)}")
        if settings["teacher_outputs"] is not None and not _filled(plan, settings, executor, ledger, progress, stop):
            return
        recorder = TrialRecorder(ledger, tracker, mirror, progress, stop)
        progress.say(f"searching: {ledger.planned} trials, {len(ledger.entries)} of them begun before")
        with progress:
            try:
                executor.run_trials(TrialsToRun(ledger, settings, recorder))
            except Exception as error:  # a full disk also fails the executor's own files
                stop.failure = stop.failure or ledger.failure or (error if is_no_room(error) else None)
                if stop.failure is None:
                    raise


def _end_if_interrupted(stop: Stop) -> None:
    """End a new study interrupted before any work. Nothing is left behind."""
    if stop.interrupted.is_set() and not stop.start.has_begun:
        raise KeyboardInterrupt


def _prepare_teachers(plan: StudyPlan, executor: Executor, progress: StudyProgress) -> list[dict[str, Any]] | None:
    """Find or train all teachers.

    Returns:
        For each pair of teacher and split, the two numbers and the `paths`, keyed as in `plan.teachers`; the study's
        own teachers come first. None if the study must end first.
    """
    prepared: list[dict[str, Any]] = []
    for trials in (plan.teachers, *plan.further_teachers):
        paths: dict[str, str] = {}
        for method, trial in trials.items():
            described = describe_one_teacher(plan, method, trial)
            progress.say(f"preparing the teacher on {plan.base.dataset}: {described}")
            found = prepare_study_teacher(executor, plan, trial, progress)
            if found is None:
                return None
            paths[method] = found.path
        any_trial = next(iter(trials.values()), plan.base)
        numbers = {name: getattr(any_trial, name) for name in ("teacher_number", "split_number")}
        prepared.append({**numbers, "paths": paths})
    return prepared


def _executor(plan: StudyPlan, progress: StudyProgress, stop: Stop) -> AbstractContextManager[Executor]:
    used = executor_of(plan)
    if used == "processes":
        from study.running.on_processes import executor_on_processes

        return executor_on_processes(plan, progress, stop)
    if used == "in-process":
        from study.running.in_process import executor_in_process

        return executor_in_process(plan, progress, stop)
    from study.running.on_ray import executor_on_ray  # imports Ray

    return executor_on_ray(plan, progress, stop)


def _last_words(
    plan: StudyPlan, ledger: StudyLedger, records: RecordWriter, opening: TrackerOpening
) -> Callable[[], None]:
    """Return a function for completing records and MLflow after a cluster loss. Only the first call has an effect."""
    begun = threading.Lock()

    def say() -> None:
        if begun.acquire(blocking=False):
            complete_records(plan, ledger, records)
            if (tracker := opening.opened) is not None:
                tracker.catch_up(ledger)
                tracker.finish("FAILED", patience=_SECONDS_TO_SAY_FAILED)

    return say


def _teacher_outputs(plan: StudyPlan, executor: Executor) -> Any:
    if plan.teacher_outputs_used == "live":
        return None
    location = plan.teacher_outputs_location
    return executor.wrap_secrets(
        {
            "location": location if is_uri(location) else str(Path(location).absolute()),
            "dtype": plan.teacher_outputs_dtype,
        }
    )


def _filled(
    plan: StudyPlan,
    settings: dict[str, Any],
    executor: Executor,
    ledger: StudyLedger,
    progress: StudyProgress,
    stop: Stop,
) -> bool:
    """Fill the teacher outputs before the trials. Return False if the study must end first."""
    longest = max(plan.base.epochs, plan.confirm_epochs)  # a longer trial uses further slots
    teachers = [trial for trials in (plan.teachers, *plan.further_teachers) for trial in trials.values()]
    for trial, augmentation in itertools.product(teachers, plan.augmentations):
        config = {**trial.model_dump(mode="json"), "epochs": longest, "augmentation": augmentation}
        fill = TeacherFill(
            executor.fill_tasks(),
            {**settings, "config": config},
            progress,
            entered=lambda report: ledger.record_fill(report.forwards, len(report.filled), report.seconds),
            stopped=stop.stop_all,
        )
        fill.run()
    return not stop.stop_all()


@contextmanager
def _interruptible(stop: Stop, progress: StudyProgress) -> Iterator[None]:
    """End the study cleanly at the first Ctrl-C or SIGTERM, and at once at the second.

    Only a process's main thread receives signals. In other threads, nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_signal(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        if stop.interrupted.is_set():
            raise KeyboardInterrupt
        stop.interrupted.set()
        progress.say("stopping after the steps that are running; once more to stop at once")

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with _no_interrupt_ignored():
            yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # None: a handler not set by Python, which cannot be restored
                signal.signal(number, handler)


@contextmanager
def _no_interrupt_ignored() -> Iterator[None]:
    """Repeat a Ctrl-C that came while a destructor ran.

    Python prints and drops exceptions from destructors, and Ray's run all the time.
    """
    hook, timers = sys.unraisablehook, []

    def on_unraisable(unraisable: "sys.UnraisableHookArgs") -> None:
        if unraisable.exc_type is KeyboardInterrupt:
            # Not at once: the signal would be handled in this function, and its exception dropped as well.
            timer = threading.Timer(_SECONDS_TO_REPEAT, _thread.interrupt_main)
            timer.daemon = True
            timers.append(timer)
            timer.start()
        else:
            hook(unraisable)

    sys.unraisablehook = on_unraisable
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for timer in timers:
            timer.cancel()


def account_for_records(ledger: StudyLedger, say: Callable[[str], None], *, sets_aside: bool) -> None:
    """Check the journal for completeness: it must contain all recorded trials.

    With `sets_aside`, move away the records missing from the journal before the check.
    """
    if sets_aside:
        from study.tracking.tracker import delivered_trials

        folder = set_aside(ledger, delivered_trials(ledger.plan))
        say(f"the old records are in {folder}" if folder is not None else "the journal accounts for all records")
    check_records(ledger)
    if (damage := ledger.describe_damage()) is not None:
        say(f"{damage}. Trials that it has lost run again")
