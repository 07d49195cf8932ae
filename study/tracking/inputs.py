"""Inputs and system metrics for a study's MLflow run: dataset splits, and load on the driver's machine."""

import json
import logging
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from mlflow.entities import Dataset, DatasetInput, InputTag

from study.ledger.study_data import data_of
from study.plan.plan import StudyPlan
from trainables.spec.datasets import FOLDER_PREFIX
from trainables.spec.own_data import is_own_data, short_name, source_of

_DIGEST: Final = 16  # characters; MLflow accepts 36 and displays all of them
_SECONDS_TO_END: Final = 5.0
_SPLITS: Final = {"train": "training", "validation": "validation", "test": "testing"}


def dataset_inputs(plan: StudyPlan, dataset: Mapping[str, Any], *, reads_test: bool = False) -> list[DatasetInput]:
    """Return the dataset splits used by a study's trials as MLflow inputs.

    Args:
        plan: the study.
        dataset: `digest` (hexadecimal) and the number of samples in each split; see
            `study.ledger.study_data.described`.
        reads_test: whether the study has begun a confirmation trial. Only confirmation trials read the test split.
    """
    name, data = plan.base.dataset, None
    with suppress(ValueError):  # images are deleted, and an earlier version's journal does not describe them
        data = data_of(plan, dataset)
    sizes = {split: dataset[split] for split in ("train", "validation") if split in dataset}
    if reads_test and data is not None:
        sizes["test"] = data.split_sizes[-1]
    source = str(plan.data_root) if plan.data_root is not None else "scikit-learn"
    if name.startswith(FOLDER_PREFIX):
        source = name.removeprefix(FOLDER_PREFIX)
    elif is_own_data(name):
        source = source_of(name)
    named = {"class_names": list(data.class_names)} if data is not None and data.class_names else {}
    return [
        DatasetInput(
            Dataset(
                name=f"{short_name(name)}: {split}",
                digest=dataset["digest"][:_DIGEST],
                source_type="local",
                source=json.dumps({"uri": source}),
                profile=json.dumps({"num_rows": sizes[split], "sha256": dataset["digest"], **named}),
            ),
            [InputTag("mlflow.data.context", context)],
        )
        for split, context in _SPLITS.items()
        if split in sizes
    ]


class MachineWatch:
    """MLflow's system metrics (`system/…`) for this machine, logged every ten seconds until `end`.

    Without psutil nothing is logged.

    Args:
        run_id: run for the metrics.
        uri: tracking store or server.
    """

    def __init__(self, run_id: str, uri: str) -> None:
        # `Delivery` already reports an unreachable server, with a clearer message.
        logging.getLogger("mlflow.system_metrics").setLevel(logging.CRITICAL)
        self._monitor: Any = None
        try:
            from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

            self._monitor = SystemMetricsMonitor(run_id, resume_logging=True, tracking_uri=uri)
            self._monitor.start()
        except Exception:  # system metrics are optional: no failure to read them may stop a study
            self._monitor = None

    def end(self) -> None:
        """Stop logging. Wait at most five seconds for an unresponsive server."""
        if self._monitor is not None:
            ending = threading.Thread(target=self._monitor.finish, name="machine-watch-ends", daemon=True)
            ending.start()
            ending.join(_SECONDS_TO_END)
            self._monitor = None
