"""Time and memory until MLflow's pages are usable: a study's own tracking against Ray's MLflowLoggerCallback.

Both arms log the same simulated trials with the same measures, each into a separate store with a separate server.
Headless Chromium opens the pages of both arms in turns. Table: first row. Charts: first plot with points. Compare: plot
with 100 selected runs. Study: note with the result, available only in the study's own tracking. Each visit is a first
visit, without a cache. Processor time covers browser and server until the page is usable. Other load on the machine
changes processor time less than wall time. Memory is the page's JavaScript heap after garbage collection.

A study delivers its ended trials to a database together. The callback's runs are gathered and written in the same way,
which changes no content and takes minutes for thousands of trials instead of half an hour. Needs Chromium and
playwright (extra `dev`).

    python benchmarks/mlflow_ui.py [--quick] [--runs 500] [--repeats 5] [--json PATH]
"""

import argparse
import json
import math
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import quote
from urllib.request import urlopen

sys.path[0] = str(Path(__file__).parents[1])  # this script's folder has a study.py, which would hide the package

# isort: split
import psutil
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunData, RunInfo, RunTag
from ray.air.integrations.mlflow import MLflowLoggerCallback
from ray.tune.experiment import Trial

from study.ledger.ledger import StudyLedger
from study.plan.plan import StudyPlan
from study.plan.resolve import resolve_plan
from study.search.searcher import StudySearch
from study.tracking.bulk import NewRun, open_bulk_runs
from study.tracking.tracker import StudyTracker
from study.tracking.view import all_trials
from trainables.spec.measures import ACCURACY, COST_MEASURES, TRAINING_MEASURES, VALIDATION_MEASURES

COMPARED = 100
TRAINING = "workflowType=machine_learning"
SECONDS = 300
DRAWN = "() => [...document.querySelectorAll('.js-plotly-plot')].some(p => p.data && p.data.some(t => (t.x || t.dimensions || []).length > 0))"  # fmt: skip  # noqa: E501


def simulate(folder: Path, count: int) -> StudyLedger:
    """Return the ledger for a study of about `count` trials with random measures."""
    plan = resolve_plan(
        {
            "name": "pages", "space": "joint", "trials": max(2, count - 25), "promising": 3, "replicates": 5,
            "sampler": "random", "output_dir": folder, "tracking_uri": f"sqlite:///{folder}/study.db",
            "base": {"epochs": 5}, "confirmation": None,
        }
    )  # fmt: skip
    plan.directory.mkdir(parents=True)
    ledger, numbers = StudyLedger(plan), random.Random(0)
    search = StudySearch(ledger, {})
    names = [name for name in VALIDATION_MEASURES + TRAINING_MEASURES + COST_MEASURES if "energy" not in name]
    while isinstance(settings := search.suggest(f"trial{len(ledger.entries)}"), dict):
        key = f"trial{len(ledger.entries) - 1}"
        for epoch in range(1, settings["config"]["epochs"] + 1):
            score = 0.9 - 0.1 * numbers.random() - 0.1 / epoch
            measures = {**{name: numbers.random() for name in names}, ACCURACY: score}
            ledger.record_epoch(settings["trial_id"], epoch, measures)
        search.on_trial_complete(key, {"finished": True})
    return ledger


class GatheringClient:
    """Client that gathers whole runs, and writes them at once before any other request.

    Args:
        client: client of a store in a file.
    """

    def __init__(self, client: MlflowClient) -> None:
        self._client = client
        self._runs: dict[str, dict[str, Any]] = {}
        self._experiment_id = ""

    def create_run(
        self, experiment_id: str, start_time: int | None = None, tags: dict[str, str] | None = None, *, run_name: str
    ) -> Run:
        """Gather a run."""
        self._experiment_id, run_id = experiment_id, uuid.uuid4().hex
        started = start_time or int(time.time() * 1000)
        self._runs[run_id] = {
            "name": run_name, "started": started, "tags": [RunTag(*each) for each in (tags or {}).items()],
            "params": [], "metrics": [],
        }  # fmt: skip
        return Run(RunInfo(run_id, experiment_id, "unknown", "RUNNING", started, None, "active"), RunData())

    def log_batch(
        self, run_id: str, metrics: Sequence[Metric] = (), params: Sequence[Param] = (), tags: Sequence[RunTag] = ()
    ) -> None:
        """Gather measures, settings and tags."""
        for kind, values in (("metrics", metrics), ("params", params), ("tags", tags)):
            self._runs[run_id][kind] += values

    def log_metric(self, run_id: str, key: str, value: float, step: int) -> None:
        """Gather a measure."""
        self.log_batch(run_id, metrics=[Metric(key, value, int(time.time() * 1000), step)])

    def log_param(self, run_id: str, key: str, value: Any) -> None:
        """Gather a setting."""
        self.log_batch(run_id, params=[Param(key, str(value))])

    def set_terminated(self, run_id: str, status: str = "FINISHED", end_time: int | None = None) -> None:
        """Gather a run's end."""
        self._runs[run_id] |= {"status": status, "ended": end_time or int(time.time() * 1000)}

    def __getattr__(self, name: str) -> Any:
        gathered, self._runs = self._runs, {}
        if gathered:
            runs = open_bulk_runs(self._client, self._experiment_id)
            assert runs is not None, "the store has other tables than those known"
            runs.write(NewRun(**each) for each in gathered.values())
        return getattr(self._client, name)


def deliver(ledger: StudyLedger) -> tuple[str, str]:
    """Log the study by its own tracker. Return the experiment and the study run."""
    tracker = StudyTracker(ledger.plan, command="", versions={}, ledger=ledger)
    tracker.catch_up(ledger)
    error = tracker.finish("FINISHED", result_note="| config | accuracy |\n| --- | --- |\n| best | 0.9 |")
    assert error is None, error
    return tracker.experiment_id, tracker.parent_id


def log_by_ray(ledger: StudyLedger, uri: str, *, bulk: bool = True) -> str:
    """Log the same trials by Ray's callback. Return the experiment.

    Args:
        ledger: the study.
        uri: store for the callback.
        bulk: whether to write the rows for many trials at once.
    """
    callback = MLflowLoggerCallback(tracking_uri=uri, experiment_name="ray")
    callback.setup()
    client = MlflowClient(uri)
    if bulk:
        client = GatheringClient(client)  # type: ignore[assignment]
        util = callback.mlflow_util
        util._get_client = lambda: client  # type: ignore[method-assign]
        util._run_exists = lambda _: True  # type: ignore[method-assign]
    for entry in ledger.entries.values():
        trial = Trial("pages", trial_id=entry.trial_id, config=entry.config.model_dump(mode="json"), stub=True)
        callback.log_trial_start(trial)
        for epoch, measures in entry.epochs.items():
            callback.log_trial_result(epoch, trial, {**measures, "training_iteration": epoch})
        callback.log_trial_end(trial)
    return str(client.get_experiment_by_name("ray").experiment_id)  # this request writes the rows


@contextmanager
def server(uri: str, folder: Path) -> Iterator[str]:
    """Start MLflow's pages for a store, yield the address, and end the server."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
               "--backend-store-uri", uri]  # fmt: skip
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "server.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=folder, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                urlopen(f"{address}/health", timeout=5).close()
                break
            except (URLError, OSError):
                assert process.poll() is None, (folder / "server.log").read_text()
                assert time.monotonic() < deadline, "the server does not start"
                time.sleep(0.3)
        yield address
    finally:
        os.killpg(process.pid, 15)
        process.wait(30)


def pages_of(uri: str, experiment: str, plan: StudyPlan | None, parent: str) -> dict[str, tuple[str, str]]:
    """Return each page's address with the JavaScript to test whether it is usable.

    Args:
        uri: the store.
        experiment: experiment with the trials.
        plan: the study, or None for the callback's runs.
        parent: study run.
    """
    plain = f"#/experiments/{experiment}/runs?{TRAINING}"
    table, charts = plain, f"{plain}&compareRunsMode=CHART"
    trials = "attributes.run_id != ''"
    if plan is not None:
        table, charts = (all_trials(experiment, plan.study_id, charts=each) for each in (False, True))
        trials = "tags.kind = 'trial'"
    found = MlflowClient(uri).search_runs([experiment], trials, max_results=COMPARED)
    ids = quote(json.dumps([run.info.run_id for run in found]))
    rows = "() => document.querySelectorAll('.ag-center-cols-container .ag-row, .ag-row').length > 1"
    pages = {
        "table": (table, rows),
        "charts": (charts, DRAWN),
        "compare": (f"#/compare-runs?runs={ids}&experiments={quote(json.dumps([experiment]))}&{TRAINING}", DRAWN),
    }
    if plan is not None:
        note = "() => document.body.innerText.includes('Compare the trials in charts')"
        pages["study"] = (f"#/experiments/{experiment}/runs/{parent}?{TRAINING}", note)
    return pages


def visit(browser: Any, address: str, usable: str) -> tuple[float, float, float]:
    """Return seconds and processor seconds until a page is usable, and the JavaScript heap in MB."""
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    context.add_init_script("localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')")
    page = context.new_page()
    used, began = processor_seconds(), time.perf_counter()
    page.goto(address, timeout=SECONDS * 1000)
    page.wait_for_function(usable, timeout=SECONDS * 1000, polling=50)
    seconds = time.perf_counter() - began
    processor = sum(each - used.get(pid, 0.0) for pid, each in processor_seconds().items())
    session = context.new_cdp_session(page)
    session.send("HeapProfiler.collectGarbage")
    heap = session.send("Runtime.getHeapUsage")["usedSize"] / 1e6
    context.close()
    return seconds, processor, heap


def processor_seconds() -> dict[int, float]:
    """Return the processor time so far in each of this process's running children: browser and servers."""
    found = {}
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            found[process.pid] = times.user + times.system
    return found


def measure(count: int, repeats: int) -> list[dict[str, Any]]:
    """Return one row per arm and page."""
    from playwright.sync_api import sync_playwright

    names = ("chromium", "chromium-browser", "google-chrome")
    program = next((found for name in names if (found := shutil.which(name))), None)
    if program is None:
        raise SystemExit("needs Chromium: install it, for example with apt-get install chromium")
    folder = Path(tempfile.mkdtemp(prefix="mlflow-ui-"))
    try:
        ledger = simulate(folder, count)
        uris = {"study": f"sqlite:///{folder}/study.db", "ray": f"sqlite:///{folder}/ray.db"}
        began = time.perf_counter()
        experiment, parent = deliver(ledger)
        pages = {
            "study": pages_of(uris["study"], experiment, ledger.plan, parent),
            "ray": pages_of(uris["ray"], log_by_ray(ledger, uris["ray"]), None, ""),
        }
        print(f"{len(ledger.entries)} trials, both stores filled in {time.perf_counter() - began:.0f} s", flush=True)
        found: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
        with ExitStack() as stack, sync_playwright() as playwright:
            addresses = {arm: stack.enter_context(server(uri, folder)) for arm, uri in uris.items()}
            browser = playwright.chromium.launch(
                executable_path=program,
                args=["--no-sandbox", "--disable-dev-shm-usage"],
                timeout=SECONDS * 1000,
            )
            for repeat in range(repeats + 1):  # the first visit to each page fills caches
                for name in pages["study"]:
                    for arm in ("study", "ray") if repeat % 2 else ("ray", "study"):
                        if name in pages[arm]:
                            path, usable = pages[arm][name]
                            measured = visit(browser, f"{addresses[arm]}/{path}", usable)
                            found.setdefault((name, arm), []).extend([measured] * (repeat > 0))
            browser.close()
    finally:
        shutil.rmtree(folder)
    rows = []
    for (name, arm), values in found.items():
        seconds, processor, heaps = zip(*values, strict=True)
        rows.append({
            "page": name, "arm": arm, "trials": len(ledger.entries), "n": len(values),
            "seconds": statistics.median(seconds), "low": min(seconds), "high": max(seconds),
            "processor_seconds": statistics.median(processor), "heap_mb": statistics.median(heaps),
        })  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="40 runs, each page twice")
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    count, repeats = (40, 2) if arguments.quick else (arguments.runs, arguments.repeats)
    rows = measure(count, repeats)
    print(f"{'page':8} {'arm':6} {'seconds':>8} {'range':>14} {'processor s':>11} {'heap MB':>8} {'n':>3}")
    for row in rows:
        between = f"{row['low']:.2f} to {row['high']:.2f}"
        print(
            f"{row['page']:8} {row['arm']:6} {row['seconds']:8.2f} {between:>14} {row['processor_seconds']:11.2f} "
            f"{row['heap_mb']:8.0f} {row['n']:3}"
        )
    assert all(math.isfinite(row["seconds"]) for row in rows)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
