"""A study on a PostgreSQL-backed MLflow: through a server of MLflow's, and on the database itself."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from study.plan import load_plan
from study.records import read_trials
from tests.study.inspection import assert_whole, runs_of
from tests.study.servers import PASSWORD, PostgreSQL, free_port, mlflow_server, postgresql_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

SMALL = (
    "--space", "adapter_width", "--trials", "3", "--promising", "1", "--replicates", "2", "--epochs", "2",
    "--teacher-epochs", "3",
)  # fmt: skip


@pytest.fixture(scope="module")
def postgresql() -> Iterator[PostgreSQL]:
    with postgresql_server() as server:
        yield server


def test_a_server_on_postgresql_has_a_study_whole_with_its_registered_student(postgresql, launch, tmp_path):
    store, port = postgresql.new_database("served"), free_port()
    arguments = ["--backend-store-uri", store, "--artifacts-destination", str(tmp_path / "artifacts")]
    with mlflow_server([*arguments, "--host", "127.0.0.1", "--port", str(port)], tmp_path, port=port) as address:
        done = launch(
            *SMALL, "--confirm", "1", "--seeds", "2", "--name", "served", "--output-dir", tmp_path / "out",
            "--tracking-uri", address, timeout=900,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        directory = tmp_path / "out" / "served"
        assert_whole(directory)
        plan, client = load_plan(directory), MlflowClient(address)
        parent, children = runs_of(plan)
        for run in children:
            history = client.get_metric_history(run.info.run_id, "val/accuracy")
            assert sorted(metric.step for metric in history) == [1, 2]
            assert {"method", "seed", "replicate"} <= set(run.data.params)
        assert plan.search_space.question in parent.data.tags["mlflow.note.content"]
        assert [each.dataset.name for each in parent.inputs.dataset_inputs]
        top = {artifact.path for artifact in client.list_artifacts(parent.info.run_id)}
        assert {"plan.json", "summary.json", "records", "figures", "report.html"} <= top
        client.download_artifacts(parent.info.run_id, "plan.json", str(tmp_path))
        assert (tmp_path / "plan.json").read_text() == (directory / "plan.json").read_text()
        (model,) = client.search_registered_models()
        assert set(model.aliases) <= {"champion", "challenger"}
        assert model.aliases
        assert not list((tmp_path / "out").rglob("mlflow.db"))


def test_a_study_on_the_database_itself_shows_its_password_to_nobody(postgresql, launch, tmp_path):
    uri = postgresql.new_database("direct")
    done = launch(*SMALL, "--name", "direct", "--output-dir", tmp_path, "--tracking-uri", uri, timeout=900)
    said = done.stdout + done.stderr
    assert PASSWORD not in said
    assert done.returncode == 0, done.stderr
    directory = tmp_path / "direct"
    assert_whole(directory, uri)
    assert len(read_trials(directory)) == 3 + 3 * 2
    telling = [path for path in _files(tmp_path) if PASSWORD.encode() in path.read_bytes()]
    assert telling == []
    plan = load_plan(directory).model_copy(update={"tracking_uri": uri})
    parent, children = runs_of(plan)
    assert not any(PASSWORD in value for run in (parent, *children) for value in run.data.tags.values())
    again = launch("--resume", "direct", "--output-dir", tmp_path)
    assert again.returncode == 2
    assert "give --tracking-uri again" in again.stderr


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
