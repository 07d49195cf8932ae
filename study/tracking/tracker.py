"""MLflow tracking of studies: one experiment per dataset and question, a parent run per study, a child run per trial.

The tracker also feeds the files of `study.tracking.trial_files`, if the plan asks for them.

Only the driver writes to MLflow. One background thread delivers the trials. A slow store never delays a trial, and an
unreachable store receives everything later (`study.tracking.delivery`). Delivering a trial twice is harmless. A run is
created only if no run with the same `trial_id` tag exists, so a killed and resumed study still has one run per trial.
Ray's own MLflow callback costs ten times as much and cannot do this.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from trainables.storage import mlflow_store  # before mlflow, which reads environment variables at import

# isort: split
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunStatus, RunTag
from mlflow.exceptions import MlflowException

from study.cli.start_command import start_command
from study.ledger.derivable import check_delivered
from study.ledger.entry import TrialEntry
from study.ledger.gpus import gpus_used
from study.ledger.ledger import StudyLedger
from study.plan.plan import StudyPlan
from study.tracking.bulk import NewRun, open_bulk_runs
from study.tracking.confirmed_models import log_confirmed_models
from study.tracking.delivery import PATIENCE, Delivery, RefusedError, first_line
from study.tracking.experiment import earlier_name, experiment_name
from study.tracking.groups import group_metrics, groups_of
from study.tracking.inputs import MachineWatch, dataset_inputs
from study.tracking.note import experiment_note, note_text
from study.tracking.trial_files import TrialFiles, make_writers
from study.tracking.trial_run import epoch_metrics, known_costs, study_params, trial_params, trial_tags
from study.tracking.view import NOTE_FIGURES, artifact_links, command_block, links, saved_views
from trainables.process.errors import StudyError
from trainables.storage.uris import redact, redact_place

# Maximum per request to a tracking server: 1000 metrics, params and tags together, and 100 params.
METRICS_PER_BATCH: Final = 800
PARAMS_PER_BATCH: Final = 100
_FEWEST_TOGETHER: Final = 2
_NOTE: Final = "mlflow.note.content"
_REPORT: Final = "report.html"
_LONGEST_NOTE: Final = 8_000  # characters; MLflow cuts a longer note at an arbitrary place
_REST_ELSEWHERE: Final = "*The full result is in `report.html`, among this run's artifacts.*"
_FIRST_SHOWN: Final = (
    "pareto_front",
    "gap_against_accuracy",
    "methods",
    "against_accuracy",
)  # order of the figures in a study's note
_ATTEMPT: Final = "attempt"
_TRY_AGAIN: Final = frozenset({408, 429})  # temporary HTTP client errors
_log = logging.getLogger(__name__)


def open_tracker(plan: StudyPlan, **options: Any) -> "StudyTracker":
    """Return a `StudyTracker` with these options.

    Raises:
        StudyError: the store rejects all writes.
    """
    try:
        return StudyTracker(plan, **options)
    except MlflowException as error:
        raise StudyError(
            f"MLflow at {redact_place(plan.tracking_uri)} accepts nothing ({first_line(error, plan.tracking_uri)}): "
            "fix it, or give another --tracking-uri"
        ) from None


def delivered_trials(plan: StudyPlan) -> dict[str, int]:
    """Return the attempt of each trial ended according to MLflow, by trial identifier.

    Raises:
        StudyError: the store cannot be opened or does not answer.
    """
    client = mlflow_store.open_client(plan.tracking_uri)
    try:
        parent = _find_study(client, plan)
        if parent is None:
            return {}
        return _delivered(_search_children(client, parent.info.experiment_id, parent.info.run_id))
    except MlflowException as error:
        why = redact(first_line(error))
        raise StudyError(f"MLflow at {redact(plan.tracking_uri)} does not respond ({why})") from None


def _find_study(client: MlflowClient, plan: StudyPlan) -> Run | None:
    """Return a study's run, also from an earlier version's experiment, or None."""
    for name in dict.fromkeys((experiment_name(plan), earlier_name(plan))):
        experiment = client.get_experiment_by_name(name)
        parent = _find_parent(client, experiment.experiment_id, plan) if experiment is not None else None
        if parent is not None:
            return parent
    return None


def _find_parent(client: MlflowClient, experiment_id: str, plan: StudyPlan) -> Run | None:
    query = f"tags.study_id = '{plan.study_id}' and tags.kind = 'study'"
    found = client.search_runs([experiment_id], query, max_results=1)
    return found[0] if found else None


def _search_children(client: MlflowClient, experiment_id: str, parent_id: str, *conditions: str) -> Iterator[Run]:
    """Yield the runs of all trials in a study, or of those that meet all conditions in MLflow's query language."""
    token = None
    query = " and ".join([f"tags.mlflow.parentRunId = '{parent_id}'", *conditions])
    while True:
        page = client.search_runs([experiment_id], query, max_results=1000, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _delivered(runs: Iterable[Run]) -> dict[str, int]:
    """Return the attempt of each ended trial among the runs, by trial identifier."""
    return {
        tags["trial_id"]: int(tags.get(_ATTEMPT, 1))
        for run in runs
        if "trial_id" in (tags := run.data.tags) and "status" in tags and run.info.end_time
    }


class StudyTracker:
    """Delivery of one study to MLflow.

    Args:
        plan: the study.
        command: command line typed by the user, for the record.
        versions: tags with the code versions (`git.commit`, `ray.version`, ...).
        report: receives one line when the store becomes unreachable and one when the store is back.
        patience: seconds to wait for an unreachable store after the study has ended.
        watched: whether to log this machine's system metrics to the study's run.
        ledger: the study's trials. Runs for trials not in the ledger are left unchanged.

    Raises:
        StudyError: MLflow has trials missing from the journal, or a library for files cannot be imported. Nothing is
            changed.
    """

    def __init__(
        self,
        plan: StudyPlan,
        *,
        command: str,
        versions: dict[str, str],
        report: Callable[[str], None] = lambda _: None,
        patience: float = PATIENCE,
        watched: bool = False,
        ledger: StudyLedger | None = None,
    ) -> None:
        self._plan = plan
        self._ledger = ledger
        writers = make_writers(plan)  # before the store is created: a library may not work
        self._client = mlflow_store.open_client(plan.tracking_uri)
        parent = _find_study(self._client, plan)
        self.experiment_id = self._find_experiment() if parent is None else parent.info.experiment_id
        gpu_tags = {} if ledger is None else {"gpus_per_trial": f"{gpus_used(plan, ledger):g}"}
        tags = {
            "kind": "study",
            "study": plan.name,
            "study_id": plan.study_id,
            "space": plan.space,
            "question": plan.search_space.question,
            "sampler": plan.sampler,
            "scheduler": plan.scheduler,
            "study_seed": str(plan.seed),
            "plan_digest": plan.digest,
            "workers_per_trial": str(plan.workers_per_trial),
            **gpu_tags,
            "command": command,
            "mlflow.source.name": "study.launch",
            "mlflow.source.type": "LOCAL",
            **versions,
        }
        found = [] if parent is None else list(_search_children(self._client, self.experiment_id, parent.info.run_id))
        if ledger is not None:
            check_delivered(ledger, _delivered(found))
        if parent is None:
            parent = self._client.create_run(self.experiment_id, tags=tags, run_name=plan.name)
        else:
            self._client.update_run(parent.info.run_id, status=RunStatus.to_string(RunStatus.RUNNING))
            for name, value in gpu_tags.items():  # other nodes, or none before
                if parent.data.tags.get(name, "0") != value:
                    self._client.set_tag(parent.info.run_id, name, value)
            if parent.data.tags.get("study") != plan.name:  # the study folder was renamed
                self._client.set_tag(parent.info.run_id, "study", plan.name)
                self._client.set_tag(parent.info.run_id, "mlflow.runName", plan.name)
        self.parent_id: str = parent.info.run_id
        self._log_params(parent, study_params(plan))
        self._write_note()
        self._save_views()
        self._dataset: dict[str, Any] | None = None
        self._known_dataset: dict[str, Any] | None = None
        self._reads_test = False
        self._runs = {run.data.tags["trial_id"]: run for run in found if "trial_id" in run.data.tags}
        self._ended = _delivered(found)
        self._delivered: dict[str, int] = {}
        self._uncertain: set[str] = set()
        self._files = [TrialFiles(writer, report=report) for writer in writers]
        self._bulk = open_bulk_runs(self._client, self.experiment_id)
        self._delivery = Delivery(
            self._deliver_entry, send_together=self._deliver_together, report=report, patience=patience
        )
        self._watch = MachineWatch(self.parent_id, plan.tracking_uri) if watched else None

    def _write_note(self, *result: str) -> None:
        """Write the note at the top of the study's run page. MLflow folds a long note after the first lines.

        A result longer than MLflow's limit is cut after a whole paragraph or table, followed by a pointer to the
        report.
        """
        command = command_block(start_command(self._plan))
        before = [note_text(self._plan), links(self._plan, self.experiment_id)]
        paragraphs = [each for part in result for each in part.split("\n\n")]
        whole = _joined([*before, *paragraphs, command])
        kept = len(paragraphs)
        while len(whole) > _LONGEST_NOTE and kept:
            kept -= 1
            whole = _joined([*before, *paragraphs[:kept], _REST_ELSEWHERE, command])
        self._client.set_tag(self.parent_id, _NOTE, whole)

    def _save_views(self, collapsed: Iterable[str] = ()) -> None:
        """Save the study's views in the experiment, and link to them in the experiment's note.

        If the server rejects a view, the page shows the trials as a table.

        Args:
            collapsed: groups shown as one row each.
        """
        try:
            for tag, view in saved_views(self._plan, self.parent_id, collapsed).items():
                self._client.set_experiment_tag(self.experiment_id, tag, view)
            tags = self._client.get_experiment(self.experiment_id).tags
            note = experiment_note(tags.get(_NOTE, ""), self._plan.search_space.question, tags, self.experiment_id)
            if note != tags.get(_NOTE):
                self._client.set_experiment_tag(self.experiment_id, _NOTE, note)
        except MlflowException as error:
            _log.warning("MLflow rejected the saved views of the study: %s", redact(str(error)))

    def _log_params(self, run: Run, params: Mapping[str, Any]) -> None:
        """Log a run's missing params. Runs from earlier versions have fewer params."""
        missing = _missing_params(run, params)
        for start in range(0, len(missing), PARAMS_PER_BATCH):
            self._client.log_batch(run.info.run_id, params=missing[start : start + PARAMS_PER_BATCH])

    def register_dataset(self, dataset: dict[str, Any]) -> None:
        """Register the dataset for all trials. The dataset becomes an input of the study's run with the next delivery.

        Args:
            dataset: see `study.tracking.inputs.dataset_inputs`.
        """
        self._dataset = self._known_dataset = dataset

    def deliver(self, entry: TrialEntry) -> None:
        """Queue a started, progressed or ended trial. Returns at once."""
        self._delivery.put(entry)
        for files in self._files:
            files.put(entry)

    def abandon(self) -> None:
        """Stop delivering, without waiting for the queued trials; see `study.tracking.delivery.Delivery.abandon`."""
        if self._watch is not None:
            self._watch.end()
        self._delivery.abandon()
        for files in self._files:
            files.abandon()

    def catch_up(self, ledger: StudyLedger) -> None:
        """Queue every ended trial if MLflow lacks the end or some params, as after a resume."""
        if ledger.dataset is not None:
            self.register_dataset(ledger.dataset)
        for entry in ledger.entries.values():
            if entry.status is not None and not self._is_complete(entry):
                self._delivery.put(entry)
        for files in self._files:
            files.catch_up(ledger.entries.values())

    def _is_complete(self, entry: TrialEntry) -> bool:
        """Return whether MLflow has a trial's end and all params. Runs from earlier versions lack some params."""
        if self._ended.get(entry.trial_id) != entry.attempt:
            return False
        return trial_params(self._plan, entry).keys() <= self._runs[entry.trial_id].data.params.keys()

    def finish(
        self,
        status: str,
        *,
        result_note: str = "",
        metrics: dict[str, float] | None = None,
        artifacts: Sequence[Path] = (),
        patience: float | None = None,
    ) -> Exception | None:
        """Wait for pending deliveries, close every run, and end the parent run.

        Args:
            status: the parent's MLflow status: FINISHED, FAILED or KILLED.
            result_note: Markdown, shown under the question on the parent's page.
            metrics: metrics for the whole study, for the table of studies.
            artifacts: files and folders to attach to the parent.
            patience: seconds to wait for an unreachable store; the value given at construction by default.

        Returns:
            The error if a delivery failed, or None.
        """
        if self._watch is not None:
            self._watch.end()
        if patience is not None:
            self._delivery.patience = patience
        failure = self._delivery.close()
        for files in self._files:
            files.close(patience)
        if failure is not None and not isinstance(failure, RefusedError):
            return failure
        try:
            self._delivery.send_until_accepted(
                lambda: _raising_refusals(lambda: self._end(status, result_note, metrics or {}, artifacts))
            )
        except (RefusedError, MlflowException, OSError) as error:
            return error
        return failure

    def _end(self, status: str, result_note: str, metrics: dict[str, float], artifacts: Sequence[Path]) -> None:
        # A list: with ended runs, later pages of the same query would begin further on.
        for run in [*self._children("attributes.status = 'RUNNING'")]:
            if self._is_ours(run):
                self._client.set_terminated(run.info.run_id, status="KILLED")
        self._log_dataset()
        self._log_groups()
        self._log_models()
        if result_note:
            shown = artifact_links(
                self.experiment_id, self.parent_id, _figures(artifacts), report=_REPORT in [a.name for a in artifacts]
            )
            self._write_note(result_note, shown)
        now = int(time.time() * 1000)
        self._client.log_batch(self.parent_id, metrics=[Metric(name, value, now, 0) for name, value in metrics.items()])
        for path in artifacts:
            log = self._client.log_artifacts if path.is_dir() else self._client.log_artifact
            log(self.parent_id, str(path), *([path.name] if path.is_dir() else []))
        self._client.set_terminated(self.parent_id, status=status)

    def _log_groups(self) -> None:
        """Log mean and interval over seeds to each repeated config's runs, and show one row per config."""
        if self._ledger is None:
            return
        groups, now = groups_of(self._ledger.entries.values()), int(time.time() * 1000)
        for entries in groups.values():
            found = group_metrics(entries)
            for run in (self._runs[entry.trial_id] for entry in entries if entry.trial_id in self._runs):
                if any(run.data.metrics.get(name) != value for name, value in found.items()):
                    # The step is the number of seeds, because the last step counts as the current value.
                    metrics = [Metric(name, value, now, len(entries)) for name, value in found.items()]
                    self._client.log_batch(run.info.run_id, metrics=metrics)
        if groups:
            self._save_views(groups)

    def _log_models(self) -> None:
        """Log the models of confirmed trials. A server without support for logged models still has the trials."""
        if self._ledger is None:
            return
        entries = list(self._ledger.entries.values())
        try:
            _raising_refusals(
                lambda: log_confirmed_models(self._client, self._plan, self.experiment_id, entries, self._runs)
            )
        except RefusedError as error:
            _log.warning("MLflow rejected the models of the confirmed trials: %s", error)

    def _is_ours(self, run: Run) -> bool:
        """Return whether the run's trial is in the journal. Other runs are left unchanged."""
        return self._ledger is None or run.data.tags.get("trial_id") in self._ledger.entries

    def _find_experiment(self) -> str:
        return mlflow_store.find_experiment(
            self._client,
            self._plan.tracking_uri,
            experiment_name(self._plan),
            artifacts=self._plan.output_dir / "mlartifacts",
            note=self._plan.search_space.question,
        )

    def _children(self, *conditions: str) -> Iterator[Run]:
        """Yield the runs of all trials, or of those that meet all conditions."""
        return _search_children(self._client, self.experiment_id, self.parent_id, *conditions)

    def _log_dataset(self) -> None:
        dataset, self._dataset = self._dataset, None
        if dataset is None:
            return
        try:
            inputs = dataset_inputs(self._plan, dataset, reads_test=self._reads_test)
            _raising_refusals(lambda: self._client.log_inputs(self.parent_id, datasets=inputs))
        except RefusedError as error:  # must not prevent the delivery of trials
            _log.warning("MLflow rejected the dataset as an input of the study: %s", error)
        except Exception:
            self._dataset = dataset
            raise

    def _deliver_together(self, entries: list[TrialEntry]) -> list[TrialEntry]:
        """Deliver the ended trials without a run in one transaction. Return the trials to deliver one by one."""
        new = {
            entry.trial_id: entry
            for entry in entries
            if entry.status is not None and entry.trial_id not in self._runs.keys() | self._uncertain
        }
        if self._bulk is None or len(new) < _FEWEST_TOGETHER:
            return entries
        self._uncertain |= new.keys()
        try:
            for entry in new.values():
                self._log_dataset_for(entry)
            runs = self._bulk.write([self._new_run(entry) for entry in new.values()])
        except Exception as error:  # one by one, the trial at fault is found, or the store is waited for
            _log.debug("MLflow did not accept %s trials together: %s", len(new), redact(str(error)))
            return entries
        for entry, run in zip(new.values(), runs, strict=True):
            self._runs[entry.trial_id] = run
            self._delivered[entry.trial_id] = max(entry.epochs, default=0)
            self._ended[entry.trial_id] = entry.attempt
        self._uncertain -= new.keys()
        return [entry for entry in entries if entry.trial_id not in new]

    def _new_run(self, entry: TrialEntry) -> NewRun:
        epochs = sorted(entry.epochs)
        costs, tags = known_costs(entry) if epochs else ({}, [])
        tags += [RunTag(*each) for each in trial_tags(self._plan, entry, self.parent_id).items()] + _end_tags(entry)
        params = {**trial_params(self._plan, entry), **costs}
        return NewRun(
            name=entry.name,
            status=_run_status(entry),
            started=int(entry.started * 1000),
            ended=int((entry.ended or time.time()) * 1000),
            tags=tags,
            params=[Param(name, str(value)) for name, value in params.items()],
            metrics=epoch_metrics(entry, epochs, self._plan.objective),
        )

    def _log_dataset_for(self, entry: TrialEntry) -> None:
        """Log the dataset as an input of the study if it is not logged, or not with the split read by this trial."""
        if entry.stage == "confirm" and not self._reads_test:
            self._reads_test, self._dataset = True, self._known_dataset
        self._log_dataset()

    def _deliver_entry(self, entry: TrialEntry) -> None:
        try:
            self._log_dataset_for(entry)
            _raising_refusals(lambda: self._deliver(entry, self._delivered))
        except Exception:
            self._uncertain.add(entry.trial_id)
            raise
        self._uncertain.discard(entry.trial_id)

    def _run_of(self, entry: TrialEntry) -> Run | None:
        """Return the trial's run, or None.

        The result may be a run created by a request with a lost response.
        """
        run = self._runs.get(entry.trial_id)
        if run is None and entry.trial_id in self._uncertain:
            run = next(self._children(f"tags.trial_id = '{entry.trial_id}'"), None)
            if run is not None:
                self._runs[entry.trial_id] = run
        return run

    def _deliver(self, entry: TrialEntry, delivered: dict[str, int]) -> None:
        run = self._run_of(entry)
        if run is None:
            run = self._client.create_run(
                self.experiment_id,
                start_time=int(entry.started * 1000),
                tags=trial_tags(self._plan, entry, self.parent_id),
                run_name=entry.name,
            )
            self._runs[entry.trial_id] = run
        elif self._ended.get(entry.trial_id) == entry.attempt:
            self._log_params(run, trial_params(self._plan, entry))
            return
        elif run.info.status != "RUNNING" and entry.trial_id not in delivered:
            self._client.update_run(run.info.run_id, status="RUNNING")
        run_id = run.info.run_id
        done, status = delivered.get(entry.trial_id, 0), entry.status
        epochs = sorted(epoch for epoch in list(entry.epochs) if epoch > done)
        metrics = epoch_metrics(entry, epochs, self._plan.objective)
        wanted = trial_params(self._plan, entry) if entry.trial_id not in delivered else {}
        costs, tags = known_costs(entry) if epochs and not done else ({}, [])
        params = _missing_params(run, wanted | costs)
        tags += _end_tags(entry) if status is not None else []
        # Send the excess first: the tag `status` then marks a complete run.
        while len(metrics) > METRICS_PER_BATCH or len(params) > PARAMS_PER_BATCH:
            self._client.log_batch(run_id, metrics=metrics[:METRICS_PER_BATCH], params=params[:PARAMS_PER_BATCH])
            metrics, params = metrics[METRICS_PER_BATCH:], params[PARAMS_PER_BATCH:]
        if metrics or params or tags:
            self._client.log_batch(run_id, metrics=metrics, params=params, tags=tags)
        delivered[entry.trial_id] = max(epochs, default=done)
        if status is not None:
            ended = int((entry.ended or time.time()) * 1000)
            self._client.set_terminated(run_id, status=_run_status(entry), end_time=ended)
            self._ended[entry.trial_id] = entry.attempt


def _missing_params(run: Run, params: Mapping[str, Any]) -> list[Param]:
    return [Param(name, str(value)) for name, value in params.items() if name not in run.data.params]


def _joined(parts: Sequence[str]) -> str:
    return "\n\n".join(part for part in parts if part)


def _raising_refusals(send: Callable[[], None]) -> None:
    """Call `send`, and distinguish a refusal from an unreachable, slow or broken server.

    Raises:
        RefusedError: the server would reject the request again, or the error is in this code.
        MlflowException: the request may succeed later. The same holds for an `OSError`.
    """
    try:
        send()
    except MlflowException as error:
        status = error.get_http_status_code()
        if 400 <= status < 500 and status not in _TRY_AGAIN:
            raise RefusedError(redact(str(error))) from error
        raise
    except OSError:
        raise
    except Exception as error:
        raise RefusedError(f"{type(error).__name__}: {redact(str(error))}") from error


def _figures(artifacts: Sequence[Path]) -> list[tuple[str, str]]:
    """Return title and path for each PNG figure among the artifacts, most informative first."""
    folder = next((path for path in artifacts if path.name == "figures" and path.is_dir()), None)
    found = sorted((folder / NOTE_FIGURES).glob("*.png"), key=_rank) if folder is not None else []
    return [(path.stem.replace("_", " "), f"figures/{NOTE_FIGURES}/{path.name}") for path in found]


def _rank(figure: Path) -> tuple[int, str]:
    ranks = (rank for rank, part in enumerate(_FIRST_SHOWN) if part in figure.stem)
    return next(ranks, len(_FIRST_SHOWN)), figure.stem


def _run_status(entry: TrialEntry) -> str:
    return "FAILED" if entry.status == "failed" else "FINISHED"


def _end_tags(entry: TrialEntry) -> list[RunTag]:
    tags = [RunTag("status", str(entry.status))]
    tags += [RunTag(_ATTEMPT, str(entry.attempt))] if entry.attempt > 1 else []
    if entry.error or entry.attempt > 1:  # on a retry, clear the earlier attempt's error
        tags.append(RunTag("error", (entry.error or "")[:5000]))
    return tags
