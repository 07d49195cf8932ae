"""A study on MLflow with PostgreSQL: through an MLflow server, and directly on the database."""

from collections.abc import Iterator
from pathlib import Path

import alembic.command
import pytest
import sqlalchemy
from mlflow import MlflowClient
from mlflow.store.db import utils
from mlflow.store.tracking.dbmodels.initial_models import Base as InitialBase

from study.launch import main as launch_study
from study.plan.resolve import load_plan
from study.records import read_trials
from tests.study.inspection import assert_whole, runs_of
from tests.study.servers import PASSWORD, PostgreSQL, free_port, mlflow_server, postgresql_server
from tests.trainables.storage.store_creators import creators
from trainables.process.errors import StudyError
from trainables.storage.mlflow_store import check_tracking_uri

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

SMALL = (
    "--space", "adapter_width", "--trials", "3", "--promising", "1", "--replicates", "2", "--epochs", "2",
    "--teacher-epochs", "3", "--executor", "in-process",
)  # fmt: skip


@pytest.fixture(scope="module")
def postgresql() -> Iterator[PostgreSQL]:
    with postgresql_server() as server:
        yield server


def test_a_server_on_postgresql_has_a_study_whole_with_its_registered_student(postgresql, command, tmp_path):
    store, port = postgresql.new_database("served"), free_port()
    arguments = ["--backend-store-uri", store, "--artifacts-destination", str(tmp_path / "artifacts")]
    with mlflow_server([*arguments, "--host", "127.0.0.1", "--port", str(port)], tmp_path, port=port) as address:
        done = command(
            launch_study, *SMALL, "--confirm", "1", "--seeds", "2", "--name", "served",
            "--output-dir", tmp_path / "out", "--tracking-uri", address,
        )  # fmt: skip
        assert done.code == 0, done.err
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


def test_a_study_on_the_database_itself_shows_its_password_to_nobody(postgresql, command, tmp_path):
    uri = postgresql.new_database("direct")
    done = command(launch_study, *SMALL, "--name", "direct", "--output-dir", tmp_path, "--tracking-uri", uri)
    assert PASSWORD not in done.said
    assert done.code == 0, done.err
    directory = tmp_path / "direct"
    assert_whole(directory, uri)
    assert len(read_trials(directory)) == 3 + 3 * 2
    telling = [path for path in _files(tmp_path) if PASSWORD.encode() in path.read_bytes()]
    assert telling == []
    plan = load_plan(directory).model_copy(update={"tracking_uri": uri})
    parent, children = runs_of(plan)
    assert not any(PASSWORD in value for run in (parent, *children) for value in run.data.tags.values())
    again = command(launch_study, "--resume", "direct", "--output-dir", tmp_path)
    assert again.code == 2
    assert "give --tracking-uri again" in again.err


def test_a_database_that_cannot_be_used_is_told_before_any_work(postgresql, tmp_path, command):
    uri = postgresql.new_database("refusing")
    administrator = postgresql.connect("refusing")
    administrator.execute(f"CREATE ROLE reader LOGIN PASSWORD '{PASSWORD}'")
    administrator.close()
    reader = uri.replace("owner:", "reader:")
    wrong = {
        uri.replace(PASSWORD, "wrong-horse"): "password authentication failed",
        uri.replace("/refusing", "/absent"): 'database "absent" does not exist',
        reader: "permission denied",
    }
    for place, says in wrong.items():
        begun = command(
            launch_study, "--space", "adapter_width", "--smoke", "--name", "x", "--output-dir", tmp_path / "out",
            "--tracking-uri", place,
        )  # fmt: skip
        assert begun.code == 1, begun.said
        assert says in begun.err
        assert not [secret for secret in (PASSWORD, "wrong-horse") if secret in begun.said]
        assert not (tmp_path / "out" / "x").exists()
    check_tracking_uri(uri)
    with pytest.raises(StudyError, match="permission denied"):  # the tables exist now, but the reader has no rights
        check_tracking_uri(reader)


def test_a_database_of_an_older_mlflow_is_refused_with_the_command_that_upgrades_it(postgresql):
    uri = postgresql.new_database("old")
    engine = sqlalchemy.create_engine(uri)
    InitialBase.metadata.create_all(engine)
    config = utils._get_alembic_config("")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        alembic.command.upgrade(config, "cbc13b556ace")
        connection.execute(sqlalchemy.text("INSERT INTO experiments (name, lifecycle_stage) VALUES ('mine', 'active')"))
    with pytest.raises(StudyError, match=r"older MLflow.*\n  mlflow db upgrade .*@127.0.0.1") as error:
        check_tracking_uri(uri)
    assert PASSWORD not in str(error.value)
    utils._upgrade_db(engine)
    engine.dispose()
    check_tracking_uri(uri)
    assert "mine" in {each.name for each in MlflowClient(uri).search_experiments()}


def test_processes_that_make_the_tables_of_a_database_at_once_all_get_them(postgresql):
    assert set(creators(postgresql.new_database("together")).together) == {0}


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
