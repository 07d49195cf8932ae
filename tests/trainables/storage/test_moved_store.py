"""A moved or copied MLflow store finds the artifacts in the same folder, for reading and writing."""

import shutil
import sqlite3
from collections import OrderedDict
from pathlib import Path

import pytest

from trainables.storage.mlflow_store import find_experiment, open_client
from trainables.storage.moved_store import find_artifacts_again

# isort: split
from mlflow.tracking._tracking_service import utils

pytestmark = pytest.mark.study


def places(store):
    query = "SELECT artifact_location FROM experiments WHERE name != 'Default' UNION SELECT artifact_uri FROM runs"
    return sorted(place for (place,) in sqlite3.connect(store).execute(query))


@pytest.fixture(scope="module")
def old_store(tmp_path_factory):
    """Folder with a store, and the identifier of the run with an artifact. A second run has none."""
    folder = tmp_path_factory.mktemp("made") / "a folder"
    folder.mkdir()
    uri = f"sqlite:///{folder}/mlflow.db"
    client = open_client(uri)
    experiment = find_experiment(client, uri, "digits: x", artifacts=folder / "mlartifacts", note="")
    run = client.create_run(experiment)
    client.create_run(experiment)
    (folder / "f.txt").write_text("kept")
    client.log_artifact(run.info.run_id, str(folder / "f.txt"))
    assert find_artifacts_again(folder / "mlflow.db") == 0
    return folder, run.info.run_id


def test_artifacts_of_a_moved_store_are_found_and_the_old_folder_is_not_made_again(old_store, tmp_path, monkeypatch):
    folder, run_id = old_store
    old, new = tmp_path / "old", tmp_path / "moved here"
    shutil.copytree(folder, old)
    assert find_artifacts_again(old / "mlflow.db") == 3, "a copy has its own, though the original is there"
    assert all(place.startswith((old / "mlartifacts").as_uri()) for place in places(old / "mlflow.db"))
    old.rename(new)
    (tmp_path / "g.txt").write_text("new")
    # A process caches the location of a run's artifacts. Clearing the cache simulates a new process.
    monkeypatch.setattr(utils, "_artifact_repos_cache", OrderedDict())
    client = open_client(f"sqlite:///{new}/mlflow.db")
    assert Path(client.download_artifacts(run_id, "f.txt", str(tmp_path))).read_text() == "kept"
    client.log_artifact(run_id, str(tmp_path / "g.txt"))
    assert (new / "mlartifacts" / run_id / "artifacts" / "g.txt").read_text() == "new"
    assert all(place.startswith((new / "mlartifacts").as_uri()) for place in places(new / "mlflow.db"))
    assert not old.exists()
    assert [path.name for path in (folder / "mlartifacts" / run_id / "artifacts").iterdir()] == ["f.txt"]


def test_artifacts_that_another_folder_keeps_in_the_store_stay_there(old_store, tmp_path):
    """`--tracking-uri` may name the store of another output folder."""
    folder, _ = old_store
    shutil.copytree(folder, tmp_path / "shared")
    other = tmp_path / "other"
    (other / "mlartifacts").mkdir(parents=True)
    store = tmp_path / "shared" / "mlflow.db"
    uri = f"sqlite:///{store}"
    client = open_client(uri)
    experiment = find_experiment(client, uri, "digits: y", artifacts=other / "mlartifacts", note="")
    run = client.create_run(experiment)
    before = places(store)
    assert find_artifacts_again(store) == 0
    assert places(store) == before
    assert run.info.artifact_uri.startswith((other / "mlartifacts").as_uri())


def test_a_store_of_another_name_is_left_alone(tmp_path):
    assert find_artifacts_again(tmp_path / "store.db") == 0
    assert not list(Path(tmp_path).iterdir())
