"""Choice of the GPUs per trial: how many trials share a GPU, what the user is told, and what is recorded."""

import io

import pytest

from analysis.report.folder import read_folder
from analysis.report.health import health_checks
from study.cli.progress import StudyProgress
from study.launch import main
from study.ledger.events import fault_of
from study.ledger.gpus import gpus_used
from study.ledger.ledger import StudyLedger
from study.plan.resolve import load_plan
from study.plan.teacher_storage import bytes_on_device
from study.result.reproduction import device_of, reasons_to_differ
from study.running import in_process
from study.running.gpus import (
    BUSY,
    MARGIN,
    MOST_SHARING,
    USABLE,
    GpuChoice,
    GpuNode,
    choose_share,
    record_choice,
    with_idle_gpus,
)
from study.running.in_process import InProcessExecutor
from study.running.stop import Stop
from tests.study.factories import make_plan
from tests.study.inspection import read_journal, runs_of
from tests.study.running.gpus import GIB, PretendedGpu, reading
from trainables.process.errors import StudyError
from trainables.tune.gpu_probe import probe_gpu

NODES = [GpuNode("a" * 40, cores=16, gpus=2), GpuNode("b" * 40, cores=64, gpus=4)]


def live_plan(folder, **values):
    return make_plan(folder, gpus_per_trial="auto", teacher_outputs="live", **values)


@pytest.mark.parametrize(
    ("values", "probed", "together", "limit"),
    [
        # 16 GiB x 0.95 = 15.2 GiB; 1.2 x 1 GiB + 0.5 GiB = 1.7 GiB per trial: 8.94
        ({}, [reading(), reading(total=80)], 8, "memory for 8"),
        ({"cpus_per_trial": 2}, [reading(), reading()], 4, "cores for 4"),
        (
            {"cpus_per_trial": 0.01},
            [reading(total=1000, reserved=0.001, context=0.001)] * 2,
            MOST_SHARING,
            "99 trials at most",
        ),
        ({"max_concurrent": 7}, [reading(), reading()], 2, "--max-concurrent 7"),
        # A trial that fits alone, but not with the margin, has a GPU for itself.
        ({}, [reading(reserved=14.9), reading()], 1, "memory for 0"),
    ],
)
def test_cores_memory_and_the_limit_of_the_user_decide_how_many_trials_share_a_gpu(
    values, probed, together, limit, tmp_path
):
    choice = choose_share(live_plan(tmp_path, **values), NODES, probed)
    assert choice.per_trial == (10_000 // together) / 10_000
    assert (choice.gpus, choice.idle, choice.device) == (6, 0, "cuda")
    assert f"on each of 6 GPUs (--gpus-per-trial auto, {choice.per_trial:g} each), limited by {limit}" in choice.words


@pytest.mark.parametrize("total", [4, 16, 80])
@pytest.mark.parametrize("reserved", [0.05, 0.4, 3.3])
def test_as_many_trials_as_fit_share_a_gpu(total, reserved, tmp_path):
    plan = live_plan(tmp_path, cpus_per_trial=0.01)
    read = reading(total=total, reserved=reserved)
    choice = choose_share(plan, [GpuNode("n", 1000, 1)], [read])
    taken = MARGIN * read.reserved + read.context
    fit = max(k for k in range(100) if k * taken <= USABLE * read.total)
    assert choice.per_trial == (10_000 // max(1, fit)) / 10_000


def test_stored_outputs_count_too(tmp_path):
    stored, live = make_plan(tmp_path, gpus_per_trial="auto"), live_plan(tmp_path / "live")
    # digits: 1,077 images for training, of which two slots are held, and 360 for validation; 256 numbers of 2 bytes
    assert bytes_on_device(stored) == (2 * 1_077 + 360) * 256 * 2
    assert bytes_on_device(live) == 0
    small = reading(total=0.01, in_use=0, context=0, reserved=0.001)
    node = [GpuNode("n", 1000, 1)]
    shares = [choose_share(plan, node, [small]).per_trial for plan in (stored, live)]
    assert shares[0] > shares[1]


@pytest.mark.parametrize(
    ("probed", "why"),
    [
        (reading(in_use=BUSY / GIB + 0.1), "2.10GiB of A are in use by other programs"),
        (reading(in_use=3, out_of_memory="cnn_3_4 with kd in batches of 64"), "3.00GiB of A are in use"),
        ("no GPU was free, or the measurement took longer than 180 s", "no GPU was free"),
    ],
)
def test_trials_share_no_gpu_that_cannot_be_measured(probed, why, tmp_path):
    choice = choose_share(live_plan(tmp_path), NODES, [reading(), probed])
    assert choice.per_trial == 1
    assert choice.words.startswith(f"6 GPUs found, one trial on each: {why}")


def test_a_trial_that_does_not_fit_on_a_free_gpu_is_refused_with_numbers_and_what_to_do(tmp_path):
    large = reading(total=8, reserved=7.5, out_of_memory="resnet20 with crd in batches of 512")
    with pytest.raises(StudyError) as error:
        choose_share(live_plan(tmp_path), NODES, [reading(), large])
    text = str(error.value)
    assert "a trial of resnet20 with crd in batches of 512 does not fit on A with 8.00GiB (node bbbbbbbb)" in text
    assert "7.50GiB reserved" in text
    assert "--set batch_size=..." in text
    assert "--gpus-per-trial 0" in text


@pytest.mark.parametrize(
    ("nodes", "cpus", "per_trial", "idle"),
    [
        ([(4, 4)], 1, 1, 0),
        ([(2, 4)], 1, 1, 2),
        ([(2, 4)], 1, 2, 0),
        ([(1, 4), (8, 1)], 2, 0.5, 4),  # no trial fits on the first node
        ([(8, 2)], 1, 0.25, 0),
    ],
)
def test_gpus_without_enough_cores_are_named(nodes, cpus, per_trial, idle, tmp_path):
    plan = make_plan(tmp_path, gpus_per_trial=per_trial, cpus_per_trial=cpus)
    found = [GpuNode(str(number), *each) for number, each in enumerate(nodes)]
    gpus = sum(node.gpus for node in found)
    choice = with_idle_gpus(plan, GpuChoice(per_trial, gpus, 0, ""), found)
    assert (choice.idle, choice.gpus) == (idle, gpus)
    note = f"{idle} of {gpus} GPUs are idle, because the nodes have too few cores: lower --cpus-per-trial ({cpus})"
    assert choice.words == (note if idle else "")


@pytest.mark.study
def test_the_measurement_trains_each_trial_on_the_data_of_the_study(tmp_path):
    plan = live_plan(tmp_path)
    methods = ("ce", "pesf_kd", "crd")
    configs = [plan.base.model_copy(update={"method": method}).model_dump(mode="json") for method in methods]
    gpu = PretendedGpu(sizes=[GIB, 4 * GIB, 2 * GIB])
    found = probe_gpu(configs, None, str(tmp_path), read=lambda: gpu)
    assert found == (gpu.name, 16 * GIB, GIB // 2, GIB, 4 * GIB, "cnn_3_4 with pesf_kd in batches of 64", "")
    full = probe_gpu(configs, None, str(tmp_path), read=lambda: PretendedGpu(sizes=[GIB, None]))
    assert (full.out_of_memory, full.reserved) == ("cnn_3_4 with pesf_kd in batches of 64", 3 * GIB)
    assert not list(tmp_path.glob("teachers*"))


def say(choice, ledger):
    said = io.StringIO()
    record_choice(choice, ledger, StudyProgress(ledger.plan, stream=said))
    return " ".join(said.getvalue().split())


@pytest.mark.study
def test_a_resume_on_other_hardware_says_so_and_a_rerun_knows_the_last_device(tmp_path, monkeypatch):
    plan = live_plan(tmp_path)
    plan.save()
    ledger = StudyLedger(plan)
    ledger.begin_writing()
    on_gpus, on_cpus = GpuChoice(0.25, 2, 0, "4 trials on each of 2 GPUs"), GpuChoice(0.0, 0, 0, "no node has a GPU")
    assert say(on_gpus, ledger) == on_gpus.words
    ledger.open_trial("control", plan.control_config("ce"), 1)
    assert say(on_gpus, ledger) == on_gpus.words  # as before
    assert [
        event["gpus"]["per_trial"]
        for event in read_journal(plan.directory / "journal.jsonl")[0]
        if event["event"] == "gpus"
    ] == [0.25]
    assert gpus_used(load_plan(plan.directory), StudyLedger(plan, read_only=True)) == 0.25
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    (trial,) = ledger.entries.values()
    assert device_of(plan) == device_of(plan, trial) == "cuda"
    assert "ran on GPUs, this one on the CPU." in reasons_to_differ(plan, "cpu")[-1]
    assert "used 0.25 GPU each, those of this run use 0; results on CPUs and GPUs differ" in say(on_cpus, ledger)
    ledger.close()
    assert device_of(plan) == "cpu"
    assert device_of(plan, trial) == "cuda"  # began before
    assert "this one on the CPU." in reasons_to_differ(plan, "cpu", trial)[-1]
    assert len(reasons_to_differ(plan, "cpu")) == 1


@pytest.mark.study
def test_a_study_without_gpus_has_no_entry_in_the_journal(tmp_path):
    plan = make_plan(tmp_path)
    ledger = StudyLedger(plan)
    ledger.begin_writing()
    assert say(GpuChoice(0.0, 0, 0, ""), ledger) == ""
    ledger.close()
    assert [event["event"] for event in read_journal(plan.directory / "journal.jsonl")[0]] == ["study"]


GPUS = {"per_trial": 0.5, "gpus": 2, "idle": 0, "words": ""}


@pytest.mark.parametrize(
    "change", [{"per_trial": -1}, {"per_trial": "0.5"}, {"gpus": 1.5}, {"idle": True}, {"words": None}, {"more": 1}]
)
def test_a_line_of_the_journal_that_no_study_writes_is_damaged(change):
    event = {"event": "gpus", "gpus": GPUS, "time": 1.0}
    assert fault_of(event) is None
    assert "gpus: invalid gpus" in fault_of({**event, "gpus": {**GPUS, **change}})
    assert "gpus: gpus is missing" in fault_of({"event": "gpus", "time": 1.0})


QUICK = ("--space", "adapter_width", "--smoke", "--executor", "in-process", "--name", "new")


@pytest.mark.study
def test_an_idle_gpu_is_named_at_the_start_in_the_records_in_mlflow_and_in_the_report(tmp_path, monkeypatch, command):
    monkeypatch.setattr(in_process, "count_gpus", lambda: 2)
    done = command(main, *QUICK, "--output-dir", tmp_path)
    note = "2 GPUs are idle: --gpus-per-trial auto uses them"
    assert done.code == 0, done.err
    assert note in done.err
    assert note in done.out
    study = read_folder(tmp_path / "new")
    assert study.summary["gpus"] == {"per_trial": 0.0, "gpus": 2, "idle": 2, "words": note}
    (check,) = (each for each in health_checks(study, {}, []) if "GPU" in each.text)
    assert check.text == "2 GPUs were idle: all trials ran on CPUs."
    assert "--gpus-per-trial auto" in check.command
    parent, _ = runs_of(load_plan(tmp_path / "new"))
    assert parent.data.tags["gpus_per_trial"] == "0"
    assert note in (tmp_path / "new" / "report.html").read_text()


@pytest.mark.parametrize(
    ("found", "per_trial", "words"),
    [
        (0, 0, "no node has a GPU: trials run on CPUs"),
        (1, 1, "1 GPU found, one trial on each: this process runs one trial at a time"),
        (2, 1, "2 GPUs found, one trial on each: this process runs one trial at a time"),
    ],
)
def test_one_process_uses_one_gpu_if_there_is_one(found, per_trial, words, tmp_path, monkeypatch):
    monkeypatch.setattr(in_process, "count_gpus", lambda: found)
    plan = live_plan(tmp_path, executor="in-process")
    executor = InProcessExecutor(plan, StudyProgress(plan, quiet=True), Stop(None))
    executor.check_resources()
    choice = executor.choose_gpus()
    assert (choice.per_trial, choice.device) == (per_trial, "cuda" if found else "cpu")
    assert choice.words.startswith(words)
