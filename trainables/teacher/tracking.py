"""Teacher training in MLflow: a separate run in the experiment `teachers`.

Epochs already in MLflow are not delivered again. A killed and resumed training is therefore one run with every epoch
once. MLflow errors do not stop a training. Missing data are delivered at the end, or later by the same command.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from trainables.storage.mlflow_store import TrackingError, find_experiment, open_client
from trainables.storage.uris import redact

# isort: split
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException

EXPERIMENT: Final = "teachers"
_METRICS_PER_BATCH: Final = 1000  # tracking server's maximum per request
_STEADY: Final = "val/accuracy"  # present in every epoch, so it shows the delivered epochs


class TeacherTracker:
    """MLflow run of one training.

    Args:
        uri: store or server URI.
        artifacts: artifact folder for a store in a file.
        teacher_id: ID for finding the run in later searches.
        name: run name.
        params: request values.
        tags: further run tags.

    Raises:
        TrackingError: the store cannot be used.
    """

    def __init__(
        self,
        uri: str,
        *,
        artifacts: Path,
        teacher_id: str,
        name: str,
        params: Mapping[str, Any],
        tags: Mapping[str, str],
    ) -> None:
        self._uri = uri
        self._client = open_client(uri)
        self._delivered = 0
        note = "Teachers trained by `python -m trainables.teacher`."
        try:
            experiment = find_experiment(self._client, uri, EXPERIMENT, artifacts=artifacts, note=note)
            found = self._client.search_runs([experiment], f"tags.teacher_id = '{teacher_id}'", max_results=1)
            if found:
                self.run_id: str = found[0].info.run_id
                if found[0].info.status != "FINISHED":
                    self._client.update_run(self.run_id, status="RUNNING")
                self._delivered = max(
                    (metric.step for metric in self._client.get_metric_history(self.run_id, _STEADY)), default=0
                )
            else:
                run = self._client.create_run(experiment, run_name=name, tags={"teacher_id": teacher_id, **tags})
                self.run_id = run.info.run_id
                given = [Param(key, str(value)) for key, value in params.items()]
                self._client.log_batch(self.run_id, params=given)
        except MlflowException as error:
            raise TrackingError(f"MLflow gave an unexpected answer: {redact(str(error), uri)}") from None

    def deliver(self, history: Sequence[Mapping[str, float]]) -> None:
        """Deliver all epochs still missing in MLflow.

        Args:
            history: each finished epoch's measures.

        Raises:
            TrackingError: MLflow did not accept the metrics.
        """
        now = int(time.time() * 1000)
        try:
            for epoch in range(self._delivered + 1, len(history) + 1):
                metrics = [Metric(name, value, now, epoch) for name, value in history[epoch - 1].items()]
                assert len(metrics) <= _METRICS_PER_BATCH
                self._client.log_batch(self.run_id, metrics=metrics)
                self._delivered = epoch
        except MlflowException as error:
            raise TrackingError(f"MLflow did not accept epoch {epoch}: {redact(str(error), self._uri)}") from None

    def finish(
        self, status: str, *, metrics: Mapping[str, float] | None = None, note: str = "", artifacts: Sequence[Path] = ()
    ) -> None:
        """End the run.

        Args:
            status: FINISHED, FAILED or KILLED.
            metrics: the finished teacher's metrics.
            note: Markdown for the run's page.
            artifacts: files to attach.

        Raises:
            TrackingError: MLflow did not accept the data.
        """
        now = int(time.time() * 1000)
        try:
            values = [Metric(name, value, now, self._delivered) for name, value in (metrics or {}).items()]
            tags = [RunTag("mlflow.note.content", note)] if note else []
            self._client.log_batch(self.run_id, metrics=values, tags=tags)
            for path in artifacts:
                self._client.log_artifact(self.run_id, str(path))
            self._client.set_terminated(self.run_id, status=status)
        except (MlflowException, OSError) as error:
            raise TrackingError(
                f"MLflow did not accept the end of the training: {redact(str(error), self._uri)}"
            ) from None

    @property
    def ended(self) -> bool:
        """Whether the run is finished in MLflow."""
        try:
            return bool(self._client.get_run(self.run_id).info.status == "FINISHED")
        except MlflowException as error:
            raise TrackingError(f"MLflow does not answer: {redact(str(error), self._uri)}") from None
