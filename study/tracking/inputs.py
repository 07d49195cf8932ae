"""What a study's run in MLflow has beside its trials: the data as inputs, and how busy the driver's machine is."""

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

_DIGEST: Final = 16  # characters; MLflow takes 36, and shows them all
_SECONDS_TO_END: Final = 5.0
_SPLITS: Final = {"train": "training", "validation": "validation", "test": "testing"}


def dataset_inputs(plan: StudyPlan, dataset: Mapping[str, Any], *, reads_test: bool = False) -> list[DatasetInput]:
    """The splits that the trials of a study learn from and are measured on, as MLflow's inputs.

    Args:
        plan: the study.
        dataset: `digest`, hexadecimal, and the samples of each split; see `study.ledger.study_data.described`.
        reads_test: whether a trial of the confirmation is among them, which alone reads the test split.
    """
    name, data = plan.base.dataset, None
    with suppress(ValueError):  # the images are gone, and the journal of an earlier version does not describe them
        data = data_of(plan, dataset)
    sizes = {split: dataset[split] for split in ("train", "validation") if split in dataset}
    if reads_test and data is not None:
        sizes["test"] = data.split_sizes[-1]
    source = str(plan.data_root) if plan.data_root is not None else "scikit-learn"
    if name.startswith(FOLDER_PREFIX):
        source = name.removeprefix(FOLDER_PREFIX)
    named = {"class_names": list(data.class_names)} if data is not None and data.class_names else {}
    return [
        DatasetInput(
            Dataset(
                name=f"{name}: {split}",
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
    """MLflow's own measures of a machine, `system/…`, every ten seconds until it is ended; nothing without psutil.

    Args:
        run_id: of the run that has them.
        uri: of the store or server.
    """

    def __init__(self, run_id: str, uri: str) -> None:
        # A server that is away is told of elsewhere, in words that say what that means.
        logging.getLogger("mlflow.system_metrics").setLevel(logging.CRITICAL)
        self._monitor: Any = None
        try:
            from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

            self._monitor = SystemMetricsMonitor(run_id, resume_logging=True, tracking_uri=uri)
            self._monitor.start()
        except Exception:  # whatever of a machine cannot be read: no study needs it
            self._monitor = None

    def end(self) -> None:
        """Measure no more; a server that does not answer is not waited for."""
        if self._monitor is not None:
            ending = threading.Thread(target=self._monitor.finish, name="machine-watch-ends", daemon=True)
            ending.start()
            ending.join(_SECONDS_TO_END)
            self._monitor = None
