"""Study folders that are started twice, left incomplete, renamed, moved or copied, and colliding names."""

import json
import shutil
import threading
from pathlib import Path

import pytest

from study.cli.request import existing_plan, resumed_plan
from study.launch import main as launch_main
from study.ledger.ledger import StudyLedger
from study.plan.folder import adopt_folder, check_study_name, original_of, own_store
from study.plan.lock import StudyLock
from study.plan.places import begin_study, check_mirror_place
from study.plan.resolve import load_plan, resolve_plan
from study.running.runner import recorded_run
from study.sync import main as sync_main
from tests.study.factories import make_plan
from tests.study.inspection import files_in
from trainables.process.errors import UsageError
from trainables.spec.trial import TrialConfig

pytestmark = pytest.mark.study


def plan_of(folder, **values):
    """Return a plan as the command line makes it. Nothing is written."""
    given = {"name": "first", "space": "adapter_width", "base": {"epochs": 4}, "output_dir": folder}
    return resolve_plan({**given, "tracking_uri": own_store(folder), **values})


@pytest.fixture
def begun(tmp_path):
    """Return the plan of a study with a trial, in a separate output folder."""
    plan = plan_of(tmp_path / "out")
    begin_study(plan, "go on")
    ledger = StudyLedger(plan, read_only=True)
    ledger.begin_writing()
    ledger.end_trial(ledger.open_trial("control", TrialConfig(epochs=4), 1).trial_id, "failed", "why")
    ledger.close()
    with recorded_run(plan):
        pass
    return plan


# Two starts


def test_of_many_starts_at_once_one_begins_the_study_and_no_other_changes_its_plan(tmp_path):
    begin = threading.Barrier(8)

    def start(plan, outcomes):
        begin.wait()
        try:
            begin_study(plan, "go on")
            outcomes[plan.seed] = None
        except UsageError as error:
            outcomes[plan.seed] = str(error)

    for turn in range(100):  # each turn hits other moments of the first start
        folder, outcomes = tmp_path / str(turn), {}
        plans = [plan_of(folder, seed=seed) for seed in range(8)]
        threads = [threading.Thread(target=start, args=(plan, outcomes)) for plan in plans]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        (winner,) = [seed for seed, said in outcomes.items() if said is None]
        assert load_plan(folder / "first").seed == winner
        said = [each for each in outcomes.values() if each is not None]
        others = [
            each for each in said if "already exists in" not in each and "being run by another process" not in each
        ]
        assert not others


def test_a_second_start_while_the_first_writes_its_plan_is_refused_and_changes_nothing(tmp_path):
    plan = plan_of(tmp_path)
    plan.directory.mkdir()
    with StudyLock(plan.directory):
        before = files_in(tmp_path)
        with pytest.raises(UsageError, match="is being run by another process"):
            begin_study(plan, "go on")
        assert files_in(tmp_path) == before


@pytest.mark.parametrize(
    "left",
    [[], [".lock"], [".lock", ".plan.json.0f.partial"], [".writable-12"]],
    ids=["nothing", "lock", "part", "probe"],
)
def test_what_a_start_leaves_that_was_killed_before_its_plan_can_be_started_again(tmp_path, command, left):
    plan = plan_of(tmp_path)
    plan.directory.mkdir()
    for name in left:
        (plan.directory / name).touch()
    refused = command(launch_main, "--resume", "first", "--output-dir", tmp_path)
    assert refused.code == 2
    assert "was interrupted before the plan was written: start it again" in refused.err
    shown = command(launch_main, "--space", "adapter_width", "--name", "first", "--output-dir", tmp_path, "--dry-run")
    assert shown.code == 0
    begin_study(plan, "go on")
    assert load_plan(plan.directory) == plan


def test_a_folder_that_is_no_study_is_not_made_one(tmp_path, command):
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "notes.txt").write_text("mine")
    (tmp_path / "second").write_text("a file")
    for name in ("first", "second"):
        done = command(launch_main, "--space", "adapter_width", "--name", name, "--output-dir", tmp_path, "--dry-run")
        assert done.code == 2
        assert "exists but is not a study folder" in done.err
        with pytest.raises(UsageError, match="is not a study folder"):
            begin_study(plan_of(tmp_path, name=name), "go on")
    assert files_in(tmp_path) == {"first/notes.txt": b"mine", "second": b"a file"}


def test_a_study_without_its_plan_is_not_begun_again(begun, command):
    (begun.directory / "plan.json").unlink()
    refused = command(launch_main, "--resume", "first", "--output-dir", begun.output_dir)
    assert (refused.code, "has a journal but no plan.json: restore" in refused.err) == (2, True)
    with pytest.raises(UsageError, match="is not a study folder"):
        begin_study(begun, "go on")


# Moved, renamed, copied


def test_a_renamed_folder_is_the_study_and_keeps_its_identifier(begun):
    begun.directory.rename(begun.output_dir / "second")
    plan = resumed_plan("second", begun.output_dir, {})
    assert (plan.name, plan.study_id, plan.digest) == ("second", begun.study_id, begun.digest)
    assert plan.directory == begun.output_dir / "second"
    with recorded_run(plan) as run:
        assert list(run.ledger.entries) == ["first-0000"]
    assert json.loads((plan.directory / "plan.json").read_text())["name"] == "second"
    assert not begun.directory.exists()
    assert original_of(plan.directory) is None
    begin_study(begun.model_copy(update={"study_id": "another"}), "go on")  # the name is free again
    assert resumed_plan("second", begun.output_dir, {}).study_id == begun.study_id


def test_a_trial_of_a_renamed_study_is_found_by_its_identifier(begun):
    from study.result.reproduction import find_trial

    begun.directory.rename(begun.output_dir / "second")
    plan, entry = find_trial("first-0000", None, begun.output_dir)
    assert (plan.name, entry.trial_id) == ("second", "first-0000")
    new = begun.model_copy(update={"study_id": "another"})  # reuses the name that is free again
    begin_study(new, "go on")
    shutil.copy(plan.directory / "journal.jsonl", new.directory)
    with pytest.raises(UsageError, match=r"2 studies have a trial 'first-0000'.* with --name \(first, second\)"):
        find_trial("first-0000", None, begun.output_dir)
    assert find_trial("first-0000", "second", begun.output_dir)[0].name == "second"


@pytest.mark.parametrize("place", ["beside", "elsewhere", "with its output folder"])
def test_a_copy_is_read_and_never_acts_on_the_original(begun, tmp_path, command, place):
    if place == "with its output folder":
        shutil.copytree(begun.output_dir, tmp_path / "backup")
        copy = tmp_path / "backup" / "first"
    else:
        copy = begun.output_dir / "second" if place == "beside" else tmp_path / "other" / "first"
        shutil.copytree(begun.directory, copy)
    before = files_in(tmp_path)
    for main, words in (
        (launch_main, ("--resume", copy.name)),
        (launch_main, ("--resume", copy.name, "--retry-failed")),
        (sync_main, (copy.name,)),
    ):
        refused = command(main, *words, "--output-dir", copy.parent)
        assert refused.code == 2, refused.said
        assert f"{copy} is a copy of {begun.directory}" in refused.err
        assert f"--resume first --output-dir {begun.output_dir}" in refused.err
    with pytest.raises(UsageError, match="is a copy of"):
        resumed_plan(copy.name, copy.parent, {}, confirms=True)
    assert files_in(tmp_path) == before
    assert existing_plan(copy.name, copy.parent).directory == copy
    assert existing_plan(copy.name, copy.parent).tracking_uri == own_store(copy.parent)
    assert resumed_plan("first", begun.output_dir, {}).directory == begun.directory, "the original goes on"
    shutil.rmtree(begun.directory)
    with recorded_run(resumed_plan(copy.name, copy.parent, {})):
        pass
    assert original_of(copy) is None
    assert not begun.directory.exists()


def test_two_copies_without_their_original_stand_in_each_others_way(begun):
    for name in ("second", "third"):
        shutil.copytree(begun.directory, begun.output_dir / name)
    shutil.rmtree(begun.directory)
    assert original_of(begun.output_dir / "second") == begun.output_dir / "third"
    with pytest.raises(UsageError, match="is a copy of"):
        resumed_plan("third", begun.output_dir, {})


def test_a_link_to_a_study_is_that_study(begun):
    (begun.output_dir / "latest").symlink_to("first")
    plan = resumed_plan("latest", begun.output_dir, {})
    assert (plan.name, plan.directory) == ("first", begun.directory)


def test_everything_inside_an_output_folder_that_moves_moves_with_it(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    inside = {
        "optuna_storage": old / "studies.journal",
        "storage_path": str(old / "checkpoints"),
        "teacher_outputs_path": str(old / "rows"),
        "data_root": old / "data",
    }
    plan = plan_of(old, **inside)
    begin_study(plan, "go on")
    old.rename(new)
    moved = load_plan(new / "first")
    assert moved.tracking_uri == own_store(new)
    assert {name: str(getattr(moved, name)) for name in inside} == {
        name: str(place).replace(str(old), str(new)) for name, place in inside.items()
    }
    assert moved.teachers_folder == new / "teachers"
    assert moved.digest == plan.digest
    with StudyLock(moved.directory):
        adopt_folder(moved.directory)
    assert load_plan(new / "first") == moved
    new.rename(tmp_path / "newer")
    assert load_plan(tmp_path / "newer" / "first").optuna_storage == tmp_path / "newer" / "studies.journal"
    assert not old.exists()


@pytest.mark.parametrize("output_dir", ["old", "absolute"])
def test_the_store_of_a_plan_of_an_earlier_version_moves_with_its_folder(tmp_path, output_dir):
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    path = new / "first" / "plan.json"
    begin_study(plan_of(old), "go on")
    old.rename(new)
    content = json.loads(path.read_text())
    del content["home"]
    content |= {
        "output_dir": str(old) if output_dir == "absolute" else "old",
        "tracking_uri": f"sqlite:///{old}/mlflow.db",
    }
    path.write_text(json.dumps(content))
    assert resumed_plan("first", new, {}).tracking_uri == own_store(new)
    content["tracking_uri"] = f"sqlite:///{tmp_path}/shared/mlflow.db"
    path.write_text(json.dumps(content))
    assert load_plan(new / "first").tracking_uri == content["tracking_uri"], "what was asked for stays"
    with pytest.raises(UsageError, match="this folder no longer exists: give the store with --tracking-uri"):
        resumed_plan("first", new, {})


# Names


@pytest.mark.parametrize(
    "name",
    ["mlflow.db", "mlflow.db-wal", "mlflow.db-shm", "mlflow.db-journal", "mlflow.lock", "MLflow.DB", "Teachers",
     "TEACHER_OUTPUTS", "MLartifacts", "teachers", "study.", "a..", "NUL", "con.txt", "Com1"],
)  # fmt: skip
def test_names_that_collide_with_other_files_are_refused_on_any_file_system(tmp_path, command, name):
    with pytest.raises(UsageError, match="--name"):
        check_study_name(name)
    done = command(launch_main, "--space", "adapter_width", "--name", name, "--output-dir", tmp_path, "--dry-run")
    assert done.code == 2
    assert name in done.err


@pytest.mark.parametrize("name", ["teachers2", "mlflow", "my-mlflow.db", "console", "a.b", "adapter_width-20261128"])
def test_names_that_only_look_like_them_are_taken(name):
    check_study_name(name)


@pytest.mark.parametrize(
    "place",
    ["first/journal.jsonl", "first/plan.json", "first/PLAN.json", "first/summary.json", "first/records/x",
     "first/tune/x", "first/.lock", "first", "second/journal.jsonl", "second/records/trials/x", "second", "mlflow.db",
     "mlflow.db-wal", "mlflow", "teachers/x", "teacher_outputs/x", "mlartifacts/x", "linked/journal.jsonl",
     "first/../second/plan.json"],
)  # fmt: skip
def test_a_mirror_in_a_file_that_a_study_or_mlflow_writes_is_refused(tmp_path, place, monkeypatch):
    make_plan(tmp_path, name="second").save()
    (tmp_path / "linked").symlink_to("second")
    monkeypatch.chdir(tmp_path)
    for path in (tmp_path / place, Path(place)):
        with pytest.raises(UsageError, match="give another file"):
            check_mirror_place(plan_of(tmp_path, optuna_storage=path))


def test_a_mirror_in_a_store_that_lies_elsewhere_or_in_a_circle_of_links_is_refused(tmp_path):
    elsewhere = tmp_path / "x"
    elsewhere.mkdir()
    uri = f"sqlite:///{elsewhere}/runs.db"
    for name in ("runs.db", "runs.db-wal", "runs"):  # the store has a lock file with the last name
        with pytest.raises(UsageError, match="the MLflow store"):
            check_mirror_place(plan_of(tmp_path / "out", tracking_uri=uri, optuna_storage=elsewhere / name))
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(UsageError, match="--optuna-storage"):
        check_mirror_place(plan_of(tmp_path, optuna_storage=tmp_path / "a" / "x"))


@pytest.mark.parametrize("name", ["runs.db", "RUNS.DB", "runs.db-wal", "runs.db-shm", "runs.db-journal", "runs.lock"])
def test_a_name_that_is_a_file_of_the_store_that_is_asked_for_is_refused(tmp_path, command, name):
    words = ("--space", "adapter_width", "--output-dir", tmp_path, "--tracking-uri", f"sqlite:///{tmp_path}/runs.db")
    done = command(launch_main, *words, "--name", name, "--dry-run")
    assert (done.code, f"--name {name}: the MLflow store {tmp_path}/runs.db uses" in done.err) == (2, True), done.err
    assert command(launch_main, *words, "--name", "runs", "--dry-run").code == 0


@pytest.mark.parametrize(
    "store", ["first/summary.json", "first/plan.json", "first/records/x.db", "first/.lock", "first"]
)
def test_a_store_in_a_file_that_a_study_writes_is_refused(begun, command, store):
    before = files_in(begun.output_dir)
    uri = ("--tracking-uri", f"sqlite:///{begun.output_dir}/{store}", "--output-dir", begun.output_dir)
    for main, words in (
        (launch_main, ("--space", "adapter_width", "--name", "second")),
        (launch_main, ("--resume", "first")),
        (sync_main, ("first",)),
    ):
        done = command(main, *words, *uri)
        assert (done.code, "the MLflow store" in done.err or "--tracking-uri: " in done.err) == (2, True), done.said
    assert files_in(begun.output_dir) == before


def test_a_store_in_the_folder_of_the_study_that_is_to_begin_is_refused(tmp_path, command):
    store = tmp_path / "first" / "runs.db"
    words = ("--space", "adapter_width", "--name", "first", "--output-dir", tmp_path)
    done = command(launch_main, *words, "--tracking-uri", f"sqlite:///{store}")
    assert (done.code, f"{store} is inside the study's own folder" in done.err) == (2, True), done.err
    assert not list(tmp_path.iterdir())


def test_a_dry_run_of_a_resume_shows_what_is_left_and_changes_nothing(begun, command):
    before = files_in(begun.output_dir)
    words = ("--resume", "first", "--output-dir", begun.output_dir, "--dry-run")
    shown = command(launch_main, *words)
    assert (shown.code, "; 1 have ended, only the rest will run" in shown.out) == (0, True), shown.said
    assert json.loads(command(launch_main, *words, "--json").out)["ended"] == 1
    (begun.directory / "journal.jsonl").write_bytes(b"")
    refused = command(launch_main, *words)
    assert (refused.code, "the records contain 1 ended trials" in refused.err) == (1, True), refused.said
    (begun.directory / "journal.jsonl").write_bytes(before["first/journal.jsonl"])
    assert files_in(begun.output_dir) == before


@pytest.mark.parametrize("place", ["studies.journal", "first/optuna.journal", "elsewhere/a.journal"])
def test_a_mirror_anywhere_else_is_taken(tmp_path, place):
    check_mirror_place(plan_of(tmp_path, optuna_storage=tmp_path / place))
