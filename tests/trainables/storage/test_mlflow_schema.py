"""SQLite stores: made completely, by several processes at once, after kills, and never changed if they contain data."""

import os
import shlex
import shutil
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy
from click.testing import CliRunner

from tests.trainables.storage.store_creators import Creators, creators
from trainables.storage import mlflow_schema
from trainables.storage.mlflow_store import TrackingError, open_client
from trainables.storage.sqlite_uri import sqlite_uri

# isort: split
from mlflow.cli import cli
from mlflow.store.db import utils

pytestmark = pytest.mark.study

EXPERIMENT = "INSERT INTO experiments (name, lifecycle_stage) VALUES ('mine', 'active')"


@pytest.fixture(scope="module")
def half_made(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Databases as MLflow leaves them when killed at each of the tables that it makes, in order."""
    folder, copies = tmp_path_factory.mktemp("half-made"), []
    path = folder / "mlflow.db"

    def copy(connection: object, cursor: object, statement: str, *others: object) -> None:
        if statement.lstrip().startswith("CREATE TABLE"):
            place = folder / f"{len(copies)}"
            place.mkdir()
            for file in folder.glob("mlflow.db*"):  # including a rollback journal
                shutil.copy(file, place)
            copies.append(place / "mlflow.db")

    engine = sqlalchemy.create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text("PRAGMA journal_mode=WAL"))
    sqlalchemy.event.listen(engine, "before_cursor_execute", copy)
    utils._initialize_tables(engine)
    engine.dispose()
    for copied in folder.glob("*/*"):
        os.utime(copied, (0, 0))  # nobody is making it now
    return copies


def changed(path: Path, *statements: str) -> bytes:
    """Run SQL statements on a database and return the file's content."""
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()
        connection.execute("PRAGMA journal_mode=DELETE")
    return path.read_bytes()


@pytest.fixture(scope="module")
def created(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Creators]:
    """Folder in which several processes made a store at once, and the files left by killed processes."""
    folder = tmp_path_factory.mktemp("together")
    return folder, creators(f"sqlite:///{folder}/mlflow.db", tmp_path_factory.mktemp("killed"))


@pytest.mark.fault
def test_a_creator_killed_at_any_table_leaves_a_folder_in_which_the_next_makes_the_store(created):
    def partial(names: list[str]) -> str:
        assert "mlflow.lock" in names
        found = [name for name in names if name.startswith(".mlflow.db.")]
        assert len(names) == 1 + len(found), "nothing else, and no mlflow.db"
        (one,) = [name for name in found if name.endswith(".partial")]
        return one

    _, (_, killed) = created
    assert len(killed) > 50
    for _, names, next_names in killed:
        assert partial(names) != partial(next_names), "the leftover goes, and the next creator begins"
    for place, *_ in killed[:: len(killed) // 3]:
        client = open_client(f"sqlite:///{place}/mlflow.db")
        assert not list(place.glob(".*.partial*"))
        assert client.get_run(client.create_run(client.create_experiment("one")).info.run_id)


@pytest.mark.fault
def test_creators_at_once_all_get_the_same_store(created):
    folder, (ends, _) = created
    assert set(ends) == {0}
    assert {path.name for path in folder.iterdir()} >= {"mlflow.db", "mlflow.lock"}
    assert not list(folder.glob(".*"))
    assert [each.name for each in open_client(f"sqlite:///{folder}/mlflow.db").search_experiments()] == ["Default"]


def test_what_an_earlier_version_left_when_it_was_killed_is_known_and_moved_aside_at_every_table(
    half_made, complete, tmp_path
):
    tables = set()
    for number, copy in enumerate(half_made):
        folder = tmp_path / str(number)
        shutil.copytree(copy.parent, folder)
        path = folder / "mlflow.db"
        state = mlflow_schema._state_of_file(path)
        with closing(sqlite3.connect(path)) as connection:
            (count,) = connection.execute("SELECT count(*) FROM sqlite_master WHERE type = 'table'").fetchone()
        tables.add(count)
        assert state == ("half-made" if count else "empty"), number
        mlflow_schema._move_aside(path)
        kept = [each.name for each in folder.iterdir()]
        assert [name.startswith("mlflow.db.half-made-") for name in kept] == [True] * bool(count)
        shutil.rmtree(folder)
    with closing(sqlite3.connect(complete)) as connection:
        (whole,) = connection.execute("SELECT count(*) FROM sqlite_master WHERE type = 'table'").fetchone()
    assert tables >= set(range(whole - 5))  # some replace tables that still exist


def test_a_folder_with_half_a_store_of_an_earlier_version_opens(half_made, tmp_path):
    shutil.copytree(half_made[7].parent, tmp_path, dirs_exist_ok=True)
    before = (tmp_path / "mlflow.db").read_bytes()
    client = open_client(f"sqlite:///{tmp_path}/mlflow.db")
    assert client.get_run(client.create_run(client.create_experiment("one")).info.run_id)
    (aside,) = tmp_path.glob("mlflow.db.half-made-*")
    assert len(aside.read_bytes()) >= len(before)


def test_an_empty_file_becomes_a_store_and_a_link_stays_one(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / "elsewhere" / "runs.db", tmp_path / "mlflow.db"
    target.touch()
    os.utime(target, (0, 0))
    link.symlink_to(target)
    open_client(f"sqlite:///{link}")
    assert link.is_symlink()
    assert mlflow_schema._state_of_file(target) == "whole"


@pytest.mark.parametrize("table", [12, 30, -1])
def test_half_a_store_that_holds_anything_is_refused_with_advice_and_left_as_it_is(half_made, tmp_path, table):
    path = tmp_path / "mlflow.db"
    shutil.copytree(half_made[table].parent, tmp_path, dirs_exist_ok=True)
    before = changed(path, EXPERIMENT)
    with pytest.raises(TrackingError) as error:
        open_client(f"sqlite:///{path}")
    assert f"Make a copy of it, then upgrade it:\n  mlflow db upgrade sqlite:///{path}\n" in str(error.value)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.glob("*.db*")] == ["mlflow.db"]


def test_a_half_made_store_that_another_program_has_open_is_not_moved(half_made, tmp_path):
    shutil.copytree(half_made[30].parent, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "mlflow.db"
    with closing(sqlite3.connect(path)) as other:
        other.execute("SELECT count(*) FROM experiments").fetchone()
        with pytest.raises(TrackingError, match="another program has it open"):
            open_client(f"sqlite:///{path}")
    assert not list(tmp_path.glob("*.half-made-*"))


def test_a_store_that_a_program_without_our_lock_is_making_is_waited_for(half_made, complete, tmp_path, monkeypatch):
    monkeypatch.setattr(mlflow_schema, "_SECONDS_OF_QUIET", 1.0)
    path = tmp_path / "mlflow.db"
    shutil.copyfile(half_made[30], path)
    finished = tmp_path / "finished"
    shutil.copy(complete, finished)
    changed(finished, EXPERIMENT)
    ends = threading.Timer(0.5, lambda: finished.replace(path))
    ends.start()
    client = open_client(f"sqlite:///{path}")
    ends.join()
    assert "mine" in {each.name for each in client.search_experiments()}
    assert not list(tmp_path.glob("*.half-made-*"))


def test_a_store_of_an_older_mlflow_is_refused_and_the_command_that_is_told_upgrades_it(tmp_path):
    from alembic import command

    folder = tmp_path / "a 50% folder?"
    folder.mkdir()
    path = folder / "mlflow.db"
    with mlflow_schema._engine(path) as engine:
        mlflow_schema.InitialBase.metadata.create_all(engine)
        config = utils._get_alembic_config("")
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "cbc13b556ace")  # of MLflow 3.0 or so
    before = changed(path, EXPERIMENT)
    uri = sqlite_uri(path)
    with pytest.raises(TrackingError, match="created by an older MLflow") as error:
        open_client(uri)
    assert path.read_bytes() == before
    line = next(line for line in str(error.value).splitlines() if line.startswith("  mlflow db upgrade"))
    program, *words = shlex.split(line)
    done = CliRunner().invoke(cli, words)
    assert (program, done.exit_code) == ("mlflow", 0), done.output
    assert "mine" in {each.name for each in open_client(uri).search_experiments()}
    assert [each.name for each in tmp_path.iterdir()] == [folder.name]


@pytest.mark.parametrize(
    ("statements", "says"),
    [
        (("UPDATE alembic_version SET version_num = 'ffff'",), "a version of MLflow other than the installed one"),
        (("UPDATE alembic_version SET version_num = 'ffff'", "DROP TABLE metrics"), "created by a newer MLflow"),
        (("DROP TABLE metrics",), "lacks some of MLflow's tables"),
        (("DROP TABLE metrics", "DROP TABLE alembic_version"), "the database of another program"),
    ],
)
def test_a_store_that_is_not_as_this_mlflow_makes_it_is_refused_and_left_as_it_is(complete, tmp_path, statements, says):
    path = tmp_path / "mlflow.db"
    shutil.copy(complete, path)
    before = changed(path, *statements)
    with pytest.raises(TrackingError, match=says):
        open_client(f"sqlite:///{path}")
    assert path.read_bytes()[100:] == before[100:]  # the first hundred bytes are the header
    assert {each.name.removesuffix("-wal").removesuffix("-shm") for each in tmp_path.glob("*.db*")} == {"mlflow.db"}


@pytest.mark.parametrize("rows", [True, False])
def test_the_database_of_another_program_is_refused_and_left_as_it_is(tmp_path, rows):
    path = tmp_path / "mlflow.db"
    statements = ["CREATE TABLE studies (name)", "CREATE TABLE alembic_version (version_num)"]
    statements += (
        ["INSERT INTO alembic_version VALUES ('v3.0.0.d')", "INSERT INTO studies VALUES ('x')"] if rows else []
    )
    before = changed(path, *statements)
    with pytest.raises(TrackingError, match="is the database of another program"):
        open_client(f"sqlite:///{path}")
    assert path.read_bytes() == before


def test_a_lock_never_empties_a_file_that_has_its_name(complete, tmp_path):
    for name in ("notes.db", "store.lock"):
        shutil.copy(complete, tmp_path / name)
    (tmp_path / "notes.lock").write_text("mine")
    open_client(f"sqlite:///{tmp_path}/notes.db")
    assert (tmp_path / "notes.lock").read_text() == "mine"
    uri = f"sqlite:///{tmp_path}/store.lock"
    client = open_client(uri)
    client.create_experiment("one")
    assert {each.name for each in open_client(uri).search_experiments()} == {"Default", "one"}


def test_a_store_is_made_where_there_are_no_hard_links_and_not_over_one_that_came_meanwhile(tmp_path, monkeypatch):
    def refuse(*places: object) -> None:
        raise PermissionError("no hard links here")

    with monkeypatch.context() as patched:
        patched.setattr(os, "link", refuse)
        open_client(f"sqlite:///{tmp_path}/mlflow.db")
    client = open_client(f"sqlite:///{tmp_path}/mlflow.db")
    client.create_experiment("kept")
    mlflow_schema._create(tmp_path / "mlflow.db")
    assert "kept" in {each.name for each in client.search_experiments()}
    assert not list(tmp_path.glob(".*"))
