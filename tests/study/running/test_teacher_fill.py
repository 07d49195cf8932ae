"""Teacher outputs computed before the trials: distribution of the work, and studies and clusters that do it."""

import io
import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.running.cluster import Slots, start_ray, stop_ray

# isort: split
import ray
from ray.cluster_utils import Cluster
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from study.cli.progress import StudyProgress
from study.plan.plan import StudyPlan
from study.records import read_epochs
from study.running.on_ray import RayFillTasks
from study.running.runner import check_services
from study.running.teacher_fill import Filling, TeacherFill, deal_out
from tests.conftest import S3, S3_ENVIRONMENT, Launch
from tests.forking import RAY_TOKEN
from tests.study.factories import make_plan
from tests.study.inspection import assert_whole, read_journal
from tests.study.processes import kill, start_study, wait_in_study
from trainables.process.errors import StudyError
from trainables.process.threads import use_one_thread
from trainables.teacher_outputs.shard import Shard
from trainables.tune.tasks import prepare_teacher

TRAIN, VALIDATION = 1077, 360
SHARDS = [Shard(slot, 0, 1000) for slot in range(10)]
STUDY = (
    "--space", "adapter_width", "--teacher", "cnn_8_16", "--trials", "3", "--promising", "1", "--replicates", "1",
    "--epochs", "4",
)  # fmt: skip
IN_PROCESS = ("--executor", "in-process")
ONE_TRIAL = 4 * TRAIN + VALIDATION  # samples that pass a live teacher in one trial


def test_little_work_stays_in_one_process_and_more_is_spread_over_all_slots():
    assert deal_out(SHARDS, rate=10_000, slots=4, seconds_alone=2) == [SHARDS]
    assert [len(batch) for batch in deal_out(SHARDS, rate=4_000, slots=5, seconds_alone=2)] == [2] * 5


def test_a_task_takes_seconds_and_not_hours_so_that_progress_shows_and_little_is_lost():
    batches = deal_out(SHARDS, rate=200, slots=1, seconds_alone=2)
    assert [len(batch) for batch in batches] == [2] * 5
    assert [len(batch) for batch in deal_out(SHARDS, rate=1, slots=1, seconds_alone=2)] == [1] * 10


@given(
    st.lists(st.integers(1, 70_000), max_size=40), st.floats(0, 1e6), st.integers(1, 64), st.floats(0, 10)
)  # fmt: skip
def test_every_shard_is_dealt_out_once_in_order(sizes, rate, slots, seconds_alone):
    shards = [Shard(slot, 0, size) for slot, size in enumerate(sizes)]
    batches = deal_out(shards, rate=rate, slots=slots, seconds_alone=seconds_alone)
    assert [shard for batch in batches for shard in batch] == shards
    assert all(batches)


@pytest.mark.launcher
def test_a_missing_bucket_is_refused_before_any_work(s3, tmp_path):
    plan = make_plan(tmp_path, teacher_outputs_path=s3.uri("no-such-bucket/outputs"))
    with pytest.raises(StudyError, match="NO_SUCH_BUCKET"):
        check_services(plan)
    check_services(make_plan(tmp_path, teacher_outputs_path=s3.uri(f"{s3.new_bucket()}/outputs")))
    live = {"teacher_outputs": "live", "teacher_outputs_path": s3.uri("no-such-bucket/outputs")}
    check_services(make_plan(tmp_path, **live))


@pytest.mark.study
def test_a_folder_that_cannot_be_written_is_refused_before_any_work(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StudyError, match="--teacher-outputs-path: cannot write in"):
        check_services(make_plan(tmp_path, teacher_outputs_path=str(tmp_path / "file" / "outputs")))
    check_services(make_plan(tmp_path, teacher_outputs_path=str(tmp_path / "new" / "outputs")))


def test_a_warning_is_shown_once_however_many_processes_tell_it(tmp_path):
    stream = io.StringIO()
    progress = StudyProgress(make_plan(tmp_path), stream=stream)
    for text in ("damaged", "damaged", "full"):
        progress.warn(text)
    assert stream.getvalue() == "warning: damaged\nwarning: full\n"


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the common trained teacher of these studies."""
    folder = tmp_path_factory.mktemp("trained")
    prepare_teacher(_config(make_plan(folder, base={"teacher": "cnn_8_16"})), None, str(folder / "teachers"))
    return folder / "teachers"


def _config(plan: StudyPlan) -> dict[str, Any]:
    return plan.configure(plan.search_space.default_point()).model_dump(mode="json")


@pytest.fixture
def output_dir(teachers: Path, tmp_path: Path) -> Path:
    """Output folder of one test, with the teacher."""
    shutil.copytree(teachers, tmp_path / "teachers")
    return tmp_path


def launched(launch: Launch, output_dir: Path, name: str, *arguments: str, **environment: str) -> tuple[Any, str]:
    """Run a study that must succeed. Return the result and the messages."""
    done = launch(*STUDY, "--name", name, "--output-dir", output_dir, "--json", *arguments, **environment)
    assert done.returncode == 0, done.stderr
    assert_whole(output_dir / name)
    return json.loads(done.stdout), done.stderr


@pytest.mark.slow
def test_a_study_on_storage_fills_it_and_the_next_node_reads_it_and_mends_it(s3, launch, output_dir, tmp_path):
    bucket = s3.new_bucket()
    uri = s3.uri(f"{bucket}/outputs", user="someone:hush-hush@")
    result, said = launched(
        launch, output_dir, "first", "--teacher-outputs-path", uri, PESFKD_CACHE=str(tmp_path / "one")
    )  # fmt: skip
    assert result["teacher_forwards"] == {"ahead": ONE_TRIAL, "in_trials": 0}
    assert "warning" not in said
    objects = {name: content for name, content in s3.objects(bucket).items() if name.endswith(".arrow")}
    assert len(objects) == 5
    copies = {path.name: path.read_bytes() for path in (tmp_path / "one").rglob("*.arrow")}
    assert copies == {Path(name).name: content for name, content in objects.items()}
    # A separate process searches the files: opening and closing an SQLite file here would release this process's locks.
    written = subprocess.run(["grep", "-rl", "hush-hush", tmp_path], capture_output=True, text=True, check=False)
    assert (written.returncode, written.stdout) == (1, "")
    assert "hush-hush" not in said

    damaged = next(name for name in objects if "slot-0002" in name)
    s3.put(bucket, damaged, objects[damaged][:-5000])
    again, said = launched(
        launch, output_dir, "second", "--teacher-outputs-path", uri, *IN_PROCESS, PESFKD_CACHE=str(tmp_path / "two")
    )  # fmt: skip
    assert "teacher outputs: all of them are there" in said
    assert again["teacher_forwards"] == {"ahead": 0, "in_trials": TRAIN}
    assert said.count("warning: ") == 1
    assert f"warning: s3://***@{bucket}/{damaged}:" in said.replace("\n", "")
    assert s3.objects(bucket)[damaged] == objects[damaged]
    assert [config["accuracy"] for config in again["configs"]] == [config["accuracy"] for config in result["configs"]]


@contextmanager
def storage_that_stalls(after: int) -> Iterator[None]:
    """Let the S3 server store `after` files of teacher outputs and block all further ones until the context ends."""
    from moto.s3.responses import S3Response

    answer = S3Response.key_response
    taken: set[str] = set()
    lock = threading.Lock()
    ended = threading.Event()

    def answer_or_hold(self: S3Response, request: Any, full_url: str, *rest: Any, **named: Any) -> Any:
        path = urlsplit(full_url).path
        if request.method in ("PUT", "POST") and path.endswith(".arrow"):
            with lock:
                held = path not in taken and len(taken) == after
                if not held:
                    taken.add(path)
            if held:
                ended.wait()
                return 503, {}, ""
        return answer(self, request, full_url, *rest, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(S3Response, "key_response", answer_or_hold)
        try:
            yield
        finally:
            ended.set()


@pytest.mark.slow
def test_a_study_killed_while_it_fills_keeps_what_is_filled_and_goes_on(s3, launch, output_dir):
    bucket = s3.new_bucket()
    with storage_that_stalls(after=4):
        process = start_study(
            *STUDY, "--epochs", "9", "--name", "killed", "--output-dir", output_dir,
            "--teacher-outputs-path", s3.uri(f"{bucket}/outputs"), PESFKD_CACHE=str(output_dir / "cache"),
        )  # fmt: skip
        wait_in_study(process, lambda: len(filled_objects(s3, bucket)) == 4)
        kill(process)
    before = filled_objects(s3, bucket)
    assert len(before) == 4, "it was to be killed in the middle"
    told = sum(event["forwards"] for event in events(output_dir / "killed", "fill"))
    assert not events(output_dir / "killed", "trial")
    done = launch(
        "--resume", "killed", "--output-dir", output_dir, "--json", *IN_PROCESS, PESFKD_CACHE=str(output_dir / "cache")
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    after = filled_objects(s3, bucket)
    assert len(after) == 10
    assert {name: after[name] for name in before} == before
    cost = json.loads(done.stdout)["teacher_forwards"]
    assert cost["in_trials"] == 0
    assert cost["ahead"] - told <= (10 - len(before)) * TRAIN
    assert_whole(output_dir / "killed")


def filled_objects(s3: S3, bucket: str) -> dict[str, bytes]:
    return {name: content for name, content in s3.objects(bucket).items() if name.endswith(".arrow")}


def events(directory: Path, kind: str) -> list[dict[str, Any]]:
    path = directory / "journal.jsonl"
    return [event for event in read_journal(path)[0] if event["event"] == kind] if path.exists() else []


@pytest.mark.slow
def test_ctrl_c_while_it_fills_ends_a_study_tidily(s3, output_dir):
    bucket = s3.new_bucket()
    with storage_that_stalls(after=2):
        process = start_study(
            *STUDY, "--epochs", "9", "--name", "stopped", "--output-dir", output_dir,
            "--teacher-outputs-path", s3.uri(f"{bucket}/outputs"), PESFKD_CACHE=str(output_dir / "cache"),
        )  # fmt: skip
        wait_in_study(process, lambda: len(filled_objects(s3, bucket)) == 2)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=240)[1]
    assert process.returncode == 130, said
    assert "python -m study.launch --resume stopped" in said
    assert "the rest is filled as trials come to it" in said.replace("\n", " ")
    assert not events(output_dir / "stopped", "trial")


@pytest.fixture(scope="module")
def two_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cluster, list[Path]]]:
    """Cluster of two nodes with one slot each, and the folder used as cache and working directory by each."""
    homes = [tmp_path_factory.mktemp(name) for name in ("one", "two")]
    cluster = Cluster()
    here = Path.cwd()
    try:
        for home in homes:
            os.chdir(home)  # inherited by the node's processes
            cluster.add_node(
                num_cpus=1, include_dashboard=False, env_vars={"PESFKD_CACHE": str(home), **S3_ENVIRONMENT}
            )
        os.chdir(here)
        start_ray(cluster.address)
        for node in ray.nodes():  # a process that is still starting would get no short task
            here_only = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            ray.get(ray.remote(use_one_thread).options(num_cpus=1, scheduling_strategy=here_only).remote())
        yield cluster, homes
    finally:
        os.chdir(here)
        stop_ray()
        cluster.shutdown()


def fill_on(
    folder: Path, location: str, stopped: Callable[[], bool] = lambda: False, **outputs: Any
) -> tuple[Filling, str]:
    """Fill the teacher outputs, one task per shard. Return the filling and the messages."""
    plan: StudyPlan = make_plan(folder, base={"teacher": "cnn_8_16", "epochs": 4})
    config = _config(plan)
    settings = {
        "config": config,
        "data_root": None,
        "teacher_path": prepare_teacher(config, None, str(folder / "teachers")).path,
        "teacher_outputs": {"location": location, "dtype": "float16", **outputs},
        "device": "cpu",
    }
    stream = io.StringIO()
    progress = StudyProgress(plan, stream=stream)
    tasks = RayFillTasks(plan, Slots(cpus=1, gpus=0, at_most=None))
    filling = TeacherFill(tasks, settings, progress, seconds_alone=0, stopped=stopped).run()
    return filling, stream.getvalue().replace("\n", " ")


@pytest.mark.slow
def test_a_worker_of_a_cluster_has_the_workers_environment_beside_its_nodes(two_nodes):
    found = ray.get(ray.remote(lambda: dict(os.environ)).options(num_cpus=1).remote())
    assert found["GLIBC_TUNABLES"] == os.environ["GLIBC_TUNABLES"]
    assert found["PESFKD_CACHE"] in {str(home) for home in two_nodes[1]}


@pytest.mark.slow
def test_nodes_fill_storage_together_and_their_trials_read_it(two_nodes, s3, launch, output_dir):
    cluster, homes = two_nodes
    bucket = s3.new_bucket()
    filling, said = fill_on(output_dir, s3.uri(f"{bucket}/outputs"))
    assert filling.complete
    assert len(filling.nodes) == 2
    assert (filling.shards, filling.forwards) == (5, ONE_TRIAL)
    assert "on 2 nodes" in said
    computed = [{path.name for path in home.rglob("*.arrow")} for home in homes]
    assert all(computed)
    assert not computed[0] & computed[1]
    result, said = launched(
        launch, output_dir, "clustered", "--address", cluster.address,
        "--teacher-outputs-path", s3.uri(f"{bucket}/outputs"),
        "--replicates", "8",  # enough trials for the node with the process that starts last
        **{name: os.environ[name] for name in RAY_TOKEN if name in os.environ},
    )  # fmt: skip
    assert "teacher outputs: all of them are there" in said
    assert result["teacher_forwards"] == {"ahead": 0, "in_trials": 0}, said
    assert set(read_epochs(output_dir / "clustered")["cost/teacher_forwards"].to_pylist()) == {0}
    assert all(len(list(home.rglob("*.arrow"))) == 5 for home in homes), "trials of both nodes read all of it"


@pytest.mark.slow
def test_filling_that_is_stopped_goes_on_with_what_is_left(two_nodes, output_dir):
    folder = output_dir / "outputs"
    first, said = fill_on(output_dir, str(folder), stopped=lambda: len(list(folder.glob("*/*.arrow"))) >= 2)
    assert not first.complete
    assert "the rest is filled as trials come to it" in said
    there = len(list(folder.glob("*/*.arrow")))
    assert 2 <= there < 5
    second, said = fill_on(output_dir, str(folder))
    assert second.complete
    # A task that was being stopped may still have written the file.
    assert second.shards <= 5 - there
    assert second.forwards == second.shards * TRAIN
    assert len(list(folder.glob("*/*.arrow"))) == 5


@pytest.mark.slow
def test_nodes_fill_ranges_of_rows_and_put_them_together(two_nodes, output_dir):
    folder = output_dir / "outputs"
    filling, _ = fill_on(output_dir, str(folder), rows_per_shard=512)
    assert filling.complete
    assert filling.forwards == ONE_TRIAL
    assert filling.shards == 1 + 4 * 3 + 4
    assert len(filling.nodes) == 2
    assert {path.name for path in folder.rglob("*.arrow")} == {
        "validation.arrow", *(f"slot-000{slot}.arrow" for slot in range(4))
    }  # fmt: skip


@pytest.mark.slow
def test_where_nothing_can_be_stored_filling_ends_at_once_and_says_so(two_nodes, output_dir):
    (output_dir / "file").write_text("")
    filling, said = fill_on(output_dir, str(output_dir / "file"))
    assert not filling.complete
    assert (filling.shards, filling.forwards) == (0, VALIDATION)
    assert "warning: " in said
    assert "not stored" in said


@pytest.mark.slow
def test_nodes_that_share_no_folder_are_found_out_and_fill_their_own(two_nodes, output_dir):
    _, homes = two_nodes
    filling, said = fill_on(output_dir, "/proc/self/cwd/outputs")  # another folder on each node
    filled = [len(list((home / "outputs").rglob("*.arrow"))) for home in homes]
    if not filling.complete:  # the last check may have run on the node that has all files
        assert "share no folder" in said
    assert sum(filled) >= 5
    assert filling.forwards <= 2 * ONE_TRIAL


@pytest.mark.slow
def test_outputs_that_cannot_be_computed_end_the_study_by_name(two_nodes, tmp_path):
    plan = make_plan(tmp_path, base={"teacher": "cnn_8_16"})
    settings = {"config": _config(plan), "data_root": None, "teacher_path": str(tmp_path / "none"), "device": "cpu",
                "teacher_outputs": {"location": str(tmp_path / "outputs"), "dtype": "float16"}}  # fmt: skip
    tasks = RayFillTasks(plan, Slots(cpus=1, gpus=0, at_most=None))
    with pytest.raises(StudyError, match=r"cannot be stored.* on node [\d.]+: .*none: there is no such file"):
        TeacherFill(tasks, settings, StudyProgress(plan, quiet=True)).run()
