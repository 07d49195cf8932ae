"""The benchmark of MLflow's pages compares stores with the content that Ray's callback writes by itself."""

import importlib.util
import itertools
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from mlflow import MlflowClient

pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).parents[2] / "benchmarks" / "mlflow_ui.py"
OF_A_RUN = {"mlflow.parentRunId", "mlflow.log-model.history"}


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mlflow_ui_benchmark", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend("replaced by the script")
        spec.loader.exec_module(module)
    return module


def content(uri: str, experiment: str, folder: Path) -> list[str]:
    """Return everything in an experiment's runs, without identifiers, times and the folder's name."""
    client, found = MlflowClient(uri), []
    for run in client.search_runs([experiment], max_results=1000):
        history = {
            name: sorted((each.step, each.value) for each in client.get_metric_history(run.info.run_id, name))
            for name in run.data.metrics
            if not name.startswith("system/")
        }
        tags = {name: value for name, value in run.data.tags.items() if name not in OF_A_RUN}
        tags = {name: value for name, value in tags.items() if experiment not in value or name == "mlflow.runName"}
        latest = {name: value for name, value in run.data.metrics.items() if name in history}
        where = run.info.artifact_uri.replace(run.info.run_id, "RUN")
        found.append((run.info.run_name, run.info.status, run.info.lifecycle_stage, where, run.data.params, tags,
                      latest, history))  # fmt: skip
    return sorted(repr(each).replace(str(folder), "FOLDER") for each in found)


def test_gathered_runs_of_ray_s_callback_are_those_of_single_writes(benchmark, tmp_path, monkeypatch):
    contents = []
    for bulk in (True, False):
        folder = tmp_path / f"bulk-{bulk}"
        folder.mkdir()
        monkeypatch.chdir(folder)  # the callback puts artifacts into the working folder
        ledger, uri = benchmark.simulate(folder, 27), f"sqlite:///{folder}/ray.db"
        few = SimpleNamespace(entries=dict(itertools.islice(ledger.entries.items(), 2)))
        contents.append(content(uri, benchmark.log_by_ray(few, uri, bulk=bulk), folder))
    gathered, single = contents
    assert len(single) == 2
    assert gathered == single
