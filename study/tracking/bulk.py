"""Whole runs of ended trials, many of them in one transaction of MLflow's database.

MLflow's client writes a run in seven transactions with 35 statements, and creates an object for every value. Where
trials are short, most of them have ended before their first delivery. All rows are then known, so they are inserted
directly, with MLflow's own checks, into MLflow's own tables. Everything else goes through the client: servers,
databases with other tables than those known here, and trials in progress.
"""

import uuid
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunData, RunInfo, RunTag
from mlflow.store.tracking.dbmodels.models import SqlLatestMetric, SqlMetric, SqlParam, SqlRun, SqlTag
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.utils.uri import append_to_uri_path
from mlflow.utils.validation import _validate_batch_log_data
from sqlalchemy import insert

_ACTIVE: Final = "active"
_RUN_NAME: Final = "mlflow.runName"
_KNOWN: Final[dict[Any, frozenset[str]]] = {
    SqlRun: frozenset(
        (
            "run_uuid", "name", "source_type", "source_name", "entry_point_name", "user_id", "status", "start_time",
            "end_time", "deleted_time", "source_version", "lifecycle_stage", "artifact_uri", "experiment_id",
        )
    ),
    SqlTag: frozenset(("key", "value", "run_uuid")),
    SqlParam: frozenset(("key", "value", "run_uuid")),
    SqlMetric: frozenset(("key", "value", "timestamp", "step", "is_nan", "run_uuid")),
    SqlLatestMetric: frozenset(("key", "value", "timestamp", "step", "is_nan", "run_uuid")),
}  # fmt: skip
_Rows = dict[Any, list[dict[str, Any]]]


class NewRun(NamedTuple):
    """Run of an ended trial that MLflow does not have.

    Args:
        name: run name.
        status: MLflow status.
        started: milliseconds since 1970.
        ended: milliseconds since 1970.
        tags: tags of the run.
        params: params of the run.
        metrics: metrics of all epochs.
    """

    name: str
    status: str
    started: int
    ended: int
    tags: Sequence[RunTag]
    params: Sequence[Param]
    metrics: Sequence[Metric]


class BulkRuns:
    """Writer of whole runs to one experiment.

    Args:
        client: client of a store accepted by `open_bulk_runs`.
        experiment_id: experiment of the runs.
    """

    def __init__(self, client: MlflowClient, experiment_id: str) -> None:
        self._store: Any = client._tracking_client.store
        self._experiment_id = experiment_id

    def write(self, runs: Iterable[NewRun]) -> list[Run]:
        """Write all runs, or none of them.

        Returns:
            The runs with identifiers, without metrics, params and tags.

        Raises:
            MlflowException: the store rejects a run, or cannot be reached. Some of the runs may have arrived only if
                the connection was lost at the end.
        """
        experiment = self._store.get_experiment(self._experiment_id)
        self._store._check_experiment_is_active(experiment)
        rows: _Rows = {table: [] for table in _KNOWN}
        written = [self._add(run, experiment.artifact_location, rows) for run in runs]
        with self._store.ManagedSessionMaker(read_only=False) as session:
            for table, values in rows.items():
                if values:
                    session.execute(insert(table.__table__), values)
        return written

    def _add(self, run: NewRun, artifacts: str, rows: _Rows) -> Run:
        """Add the rows of one run."""
        metrics, params, tags = _validate_batch_log_data(
            run.metrics, run.params, [*run.tags, RunTag(_RUN_NAME, run.name)]
        )
        run_id = uuid.uuid4().hex
        place = append_to_uri_path(artifacts, run_id, SqlAlchemyStore.ARTIFACTS_FOLDER_NAME)
        rows[SqlRun].append({
            "run_uuid": run_id, "name": run.name, "source_type": "UNKNOWN", "source_name": "", "entry_point_name": "",
            "user_id": "unknown", "status": run.status, "start_time": run.started, "end_time": run.ended,
            "deleted_time": None, "source_version": "", "lifecycle_stage": _ACTIVE, "artifact_uri": place,
            "experiment_id": int(self._experiment_id),
        })  # fmt: skip
        rows[SqlTag] += [{"run_uuid": run_id, "key": key, "value": value} for key, value in _last_of(tags).items()]
        rows[SqlParam] += [{"run_uuid": run_id, "key": key, "value": value} for key, value in _last_of(params).items()]
        each, latest = self._metric_rows(run_id, metrics)
        rows[SqlMetric] += each
        rows[SqlLatestMetric] += latest
        info = RunInfo(
            run_id=run_id, experiment_id=self._experiment_id, user_id="unknown", status=run.status,
            start_time=run.started, end_time=run.ended, lifecycle_stage=_ACTIVE, artifact_uri=place, run_name=run.name,
        )  # fmt: skip
        return Run(info, RunData())

    def _metric_rows(self, run_id: str, metrics: Iterable[Metric]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Return the rows of all values, each once, and of the latest value of each metric, as MLflow defines it."""
        each: dict[tuple[Any, ...], dict[str, Any]] = {}
        latest: dict[str, dict[str, Any]] = {}
        for metric in metrics:
            is_nan, value = self._store.sanitize_metric_value(metric.value)
            row = {
                "run_uuid": run_id, "key": metric.key, "value": value, "timestamp": metric.timestamp,
                "step": metric.step, "is_nan": is_nan,
            }  # fmt: skip
            each[(metric.key, metric.timestamp, metric.step, value, is_nan)] = row
            known = latest.get(metric.key)
            if known is None or _age(row) > _age(known):
                latest[metric.key] = row
        return list(each.values()), list(latest.values())


def _age(row: dict[str, Any]) -> tuple[int, int, float]:
    return row["step"], row["timestamp"], row["value"]


def _last_of(pairs: Iterable[Any]) -> dict[str, str]:
    return {each.key: each.value for each in pairs}


def open_bulk_runs(client: MlflowClient, experiment_id: str) -> BulkRuns | None:
    """Return a writer of whole runs, or None for a server or a database with other tables than those known here."""
    if type(client._tracking_client.store) is not SqlAlchemyStore:
        return None
    if any({column.name for column in table.__table__.columns} != names for table, names in _KNOWN.items()):
        return None
    return BulkRuns(client, experiment_id)
