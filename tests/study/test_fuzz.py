"""Thousands of bad inputs to command lines, plans and files are rejected with our error messages."""

import contextlib
import io
import itertools
import json
import random
import re
import string
import subprocess
import sys
import zlib
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest
import torch
import typer.main
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analysis.report import __main__ as report
from study import confirm, export, launch, rerun, sync
from study.cluster_files import __main__ as cluster_files
from study.ledger.ledger import StudyLedger
from study.ledger.rows import epoch_rows, trial_row
from study.plan.plan import StudyPlan
from study.plan.resolve import load_plan, resolve_plan
from study.records import DamagedRecordsError, RecordWriter, read_epochs, read_trials
from study.search.searcher import StudySearch
from tests.study.factories import PretendedTune, make_plan
from tests.study.inspection import read_journal
from trainables.process.errors import StudyError, UsageError
from trainables.storage.atomic import StoredFileError
from trainables.storage.rows import TeacherOutputsFileError, map_rows, write_rows
from trainables.storage.tensors import read_tensors, write_tensors
from trainables.teacher import command as teacher

pytestmark = pytest.mark.fault
TRIED: Counter[str] = Counter()


def examples(count: int) -> settings:
    """Return settings for `count` inputs, the same ones in every run."""
    return settings(
        max_examples=count, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None
    )


# Possible command-line arguments: any text without null characters, and likely values.
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20)
LIKELY = st.sampled_from([
    "", "0", "-1", "1", "3", "1e9", "nan", "inf", "-0.0", "0.25", "1e400", "99999999999999999999", "auto",
    "none", "asha", "tpe", "gp", "joint", "adapter_width", "method", "method_tuned", "gap_target", "kd",
    "pesf_kd", "dkd+adapter", "ce,kd", "digits", "cifar100", "image_folder:", "image_folder:/nowhere",
    "resnet20", "cnn_3_4", "cnn_0", "cnn_-1", "vgg8", "torchvision:resnet18", "timm:x", "fp32", "bf16", "4GiB",
    "-4GiB", "s3://b/x", "s3:/b", "file:///nowhere", "../x", "/", "ce_weight=0.5", "ce_weight=", "=", "seed=1",
    "temperature=nan", "0.5/0.5", "0.5,0.5,0.5/1,1,1", "a/b", "ray://x:1",
])  # fmt: skip
VALUES = st.one_of(LIKELY, LIKELY, TEXT, st.integers().map(str), st.floats().map(str))
OPTIONS = {
    option: parameter.is_flag
    for parameter in typer.main.get_command(launch.app).params
    for option in parameter.opts
    if option.startswith("--") and option not in ("--output-dir", "--resume", "--verbose", "--help")
}
WORDS = st.sampled_from(sorted(OPTIONS)).flatmap(
    lambda option: st.just([option]) if OPTIONS[option] else VALUES.map(lambda value: [option, value])
)


def run_launcher(arguments: list[str]) -> tuple[int, str]:
    return run_command(launch, arguments)


def run_command(command: ModuleType, arguments: list[str]) -> tuple[int, str]:
    """Run a command line in this process and return exit code and output."""
    out, code = io.StringIO(), 0
    before, sys.argv = sys.argv, ["", *arguments]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            command.main()
    except SystemExit as leaving:
        code = int(leaving.code or 0)
    finally:
        sys.argv = before
    return code, out.getvalue()


@pytest.fixture(scope="module")
def nowhere(tmp_path_factory):
    return tmp_path_factory.mktemp("nowhere") / "out"


@examples(1500)
@given(
    st.lists(st.one_of(WORDS, TEXT.map(lambda word: [word])), max_size=5), st.sampled_from([None, "joint", "method"])
)
def test_any_command_line_is_planned_or_refused_in_our_words(nowhere, words, space):
    TRIED["command lines"] += 1
    arguments = [word for group in words for word in group]
    start = ["--space", space] if space else []
    code, said = run_launcher([*start, *arguments, "--dry-run", "--output-dir", str(nowhere)])
    assert code in (0, 2), said
    assert said
    assert "Traceback" not in said
    assert not nowhere.exists()


# Commands that name a study, although none exists, and a teacher that is only planned.
OTHER_COMMANDS = {
    "confirm": (confirm, []),
    "sync": (sync, []),
    "rerun": (rerun, []),
    "export": (export, []),
    "report": (report, []),
    "cluster_files": (cluster_files, []),
    "teacher": (teacher, ["--dry-run", "--dataset", "digits", "--model", "cnn_3_4"]),
}


@pytest.mark.parametrize("name", OTHER_COMMANDS)
def test_any_command_line_of_the_other_commands_is_answered_in_our_words(name, nowhere):
    command, start = OTHER_COMMANDS[name]
    options = {
        option: parameter.is_flag
        for parameter in typer.main.get_command(command.app).params
        for option in parameter.opts
        if option.startswith("--") and option not in ("--output-dir", "--verbose", "--help")
    }
    place = [] if command is cluster_files else ["--output-dir", str(nowhere)]
    words = st.sampled_from(sorted(options) or ["--help"]).flatmap(
        lambda option: st.just([option]) if options.get(option, True) else VALUES.map(lambda value: [option, value])
    )

    @examples(100)
    @given(VALUES, st.lists(words, max_size=3))
    def attempt(first: str, more: list[list[str]]) -> None:
        TRIED["other command lines"] += 1
        code, said = run_command(command, [*(start or [first]), *itertools.chain(*more), *place])
        assert code in (0, 1, 2), said
        assert said
        assert "Traceback" not in said
        assert not nowhere.exists()

    attempt()


def test_a_name_that_is_longer_than_a_file_name_may_be_is_refused(nowhere):
    for command in (confirm, sync, rerun, export, report):
        code, said = run_command(command, ["x" * 5000, "--output-dir", str(nowhere)])
        assert code in (1, 2)
        assert "error: " in said


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT | LIKELY,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Plan of a study that has ended without training any trial."""
    ledger = StudyLedger(make_plan(tmp_path_factory.mktemp("fuzzed"), trials=4))
    PretendedTune(StudySearch(ledger, {}), ledger).run()
    ledger.plan.save()
    writer = RecordWriter(ledger.plan.directory)
    for entry in ledger.entries.values():
        writer.write(trial_row(ledger.plan, entry), epoch_rows(entry))
    writer.merge()
    ledger.close()
    return ledger.plan


@examples(1500)
@given(st.dictionaries(st.sampled_from([*StudyPlan.model_fields, "unknown"]), JSON, min_size=1, max_size=4))
def test_any_plan_is_one_or_is_refused_in_our_words(study, values):
    TRIED["plans"] += 1
    whole = study.model_dump(mode="json") | values
    with contextlib.suppress(UsageError):
        assert isinstance(resolve_plan(whole), StudyPlan)


def damaged(whole: bytes) -> st.SearchStrategy[bytes]:
    """Generate a damaged copy: bits flipped, cut short, a part lost, doubled or overwritten, or arbitrary bytes."""
    places = st.integers(0, len(whole) - 1)
    flips = st.lists(st.tuples(places, st.integers(1, 255)), min_size=1, max_size=4)
    return st.one_of(
        flips.map(lambda each: _flipped(whole, each)),
        places.map(lambda length: whole[:length]),
        st.tuples(places, places).map(lambda ends: whole[: min(ends)] + whole[max(ends) :]),
        st.tuples(places, places).map(lambda ends: whole[: max(ends)] + whole[min(ends) :]),
        st.tuples(places, st.binary(min_size=1, max_size=64)).map(lambda p: whole[: p[0]] + p[1] + whole[p[0] + 64 :]),
        st.binary(max_size=300),
    )


def _flipped(whole: bytes, flips: list[tuple[int, int]]) -> bytes:
    """Return the content with bits flipped by XOR at these positions."""
    content = bytearray(whole)
    for position, flip in flips:
        content[position] ^= flip
    return bytes(content)


def try_all(path: Path, name: str, count: int, read) -> None:
    """Read a file with `count` kinds of damage."""
    whole = path.read_bytes()

    @examples(count)
    @given(damaged(whole))
    def attempt(content: bytes) -> None:
        TRIED[name] += 1
        path.write_bytes(content)
        read(content == whole)

    try:
        attempt()
    finally:
        path.write_bytes(whole)


def test_any_plan_file_is_read_or_refused_in_our_words(study):
    def read(is_whole: bool) -> None:
        with contextlib.suppress(UsageError):
            load_plan(study.directory)

    try_all(study.directory / "plan.json", "files of plans", 600, read)


def test_any_journal_is_read_as_far_as_it_is_whole(study):
    path = study.directory / "journal.jsonl"
    known = [json.dumps(event) for event in read_journal(path)[0]]

    def read(is_whole: bool) -> None:
        events, _ = read_journal(path)
        assert {json.dumps(event) for event in events} <= set(known)
        if not any(event["event"] == "trial" for event in events):  # no trial can be read
            with contextlib.suppress(StudyError):
                StudyLedger(study, read_only=True)
            return
        assert StudySearch(StudyLedger(study, read_only=True), {}).has_more in (True, False)

    try_all(path, "journals", 800, read)


@examples(800)
@given(st.dictionaries(st.sampled_from(["event", "trial_id", "epoch", "measures", "time", "config", "status"]), JSON))
def test_a_line_of_a_journal_that_no_version_wrote_is_refused_in_our_words(study, event):
    TRIED["lines of journals"] += 1
    path = study.directory / "journal.jsonl"
    whole = path.read_bytes()
    kinds = ("trial", "epoch", "end", "retry", "fill", "confirmation", "facts", "calibration")
    line = json.dumps({"event": random.Random(str(event)).choice(kinds), "trial_id": "planned-0001", **event}).encode()
    path.write_bytes(whole + b"%08x %s\n" % (zlib.crc32(line), line))
    try:
        with contextlib.suppress(StudyError):
            StudyLedger(study, read_only=True)
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize("kind", ["trials", "epochs"])
def test_any_file_of_records_is_read_as_it_was_written_or_refused(study, kind):
    reader = {"trials": read_trials, "epochs": read_epochs}[kind]
    (path,) = (study.directory / "records" / kind).glob("*.parquet")
    wanted = reader(study.directory)

    def read(is_whole: bool) -> None:
        try:
            found = reader(study.directory)
        except DamagedRecordsError:
            return
        assert found.equals(wanted)

    try_all(path, "records", 1000, read)


def test_any_file_of_teacher_outputs_is_mapped_as_it_was_written_or_refused(tmp_path):
    rows, origin = torch.rand(40, 6).half(), {"of": "this test", "slot": 1}
    path = tmp_path / "rows.arrow"
    write_rows(path, rows, origin)

    def read(is_whole: bool) -> None:
        try:
            found = map_rows(path, origin, shape=(40, 6), dtype="float16")
        except TeacherOutputsFileError:
            return
        assert found.equal(rows)

    try_all(path, "teacher outputs", 2000, read)


def test_any_checkpoint_is_read_as_it_was_written_or_refused(tmp_path):
    tensors, notes = {name: torch.rand(5, 3) for name in string.ascii_lowercase[:4]}, {"epoch": 3}
    path = tmp_path / "trial.safetensors"
    write_tensors(path, tensors, notes)

    def read(is_whole: bool) -> None:
        try:
            found, metadata = read_tensors(path)
        except StoredFileError:
            return
        assert metadata == notes
        assert all(found[name].equal(tensors[name]) for name in tensors)

    try_all(path, "checkpoints", 1000, read)


@pytest.mark.parametrize("kind", ["records", "outputs"])
def test_a_fuzzer_that_looks_at_what_it_covers_finds_no_other_error(kind, tmp_path):
    pytest.importorskip("atheris", reason="needs atheris, which is installed on Linux alone")
    options = ["-max_total_time=15", "-seed=1", "-rss_limit_mb=4096", f"-artifact_prefix={tmp_path}/found-"]
    (tmp_path / "corpus").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "tests.study.fuzz_readers", kind, *options, str(tmp_path / "corpus")],
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-5000:]
    tried = re.search(r"Done (\d+) runs", done.stderr)
    assert tried, done.stderr[-5000:]
    TRIED[f"{kind} (atheris)"] += int(tried[1])


def test_the_inputs_that_were_tried_are_counted(capsys):
    with capsys.disabled():
        print("\nbad inputs tried:", ", ".join(f"{count:,} {name}" for name, count in TRIED.items()))
    if len(TRIED) < 9:
        return  # alone, this test has nothing to count
    tried = sum(count for name, count in TRIED.items() if "atheris" not in name)
    page = (Path(__file__).parents[2] / "docs" / "reliability.md").read_text(encoding="utf-8")
    assert tried == pytest.approx(int(re.search(r"tries ([\d,]+) inputs", page)[1].replace(",", "")), rel=0.05)
