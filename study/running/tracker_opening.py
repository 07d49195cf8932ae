"""Opening of MLflow for a study, once the study is certain to run."""

import importlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from study.tracking.tracker import StudyTracker


class TrackerOpening:
    """Study tracker, opened by the first call to `result`.

    Importing MLflow takes as long as starting Ray, so the import starts at once in another thread. Importing changes
    nothing in the store: a refused study leaves neither an experiment nor a run.

    Args:
        open_tracker: opens the tracker.

    Attributes:
        opened: the tracker, or None before the first call to `result`.
    """

    def __init__(self, open_tracker: "Callable[[], StudyTracker]") -> None:
        self.opened: StudyTracker | None = None
        self._open = open_tracker
        self._opening = threading.Lock()
        self._pool = ThreadPoolExecutor(1, "mlflow-import")
        self._imported = self._pool.submit(importlib.import_module, "study.tracking.tracker")

    def __enter__(self) -> "TrackerOpening":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pool.shutdown()

    def wait_for_import(self) -> None:
        """Wait until MLflow is imported. Afterwards, nothing else runs in this process."""
        self._imported.result()

    def result(self) -> "StudyTracker":
        """Return the tracker.

        Raises:
            StudyError: the store cannot be opened or rejects all writes.
        """
        self.wait_for_import()
        with self._opening:
            if self.opened is None:
                self.opened = self._open()
            return self.opened
