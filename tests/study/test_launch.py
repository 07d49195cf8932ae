"""Command line without a cluster: help, plans, errors before any work, and studies in this process."""

import json
import socket
import threading

import pytest

from study import launch as launcher


@pytest.mark.parametrize("arguments", [("--help",), ("--list-spaces",), ("--version",), ("--list-spaces", "--json")])
def test_help_and_lists_answer_without_heavy_imports(launch, arguments):
    done = launch(*arguments, PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 0
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "typer" in imported
    assert not imported & {"torch", "ray", "mlflow", "optuna", "pyarrow", "pandas", "sklearn", "matplotlib"}


def test_the_help_of_a_confirmation_answers_without_heavy_imports(launch):
    done = launch("--help", module="study.confirm", PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 0
    assert done.stdout[done.stdout.index("Examples:") :].count("python -m study.confirm") == 3
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert not imported & {"torch", "ray", "mlflow", "optuna", "pyarrow", "pandas", "sklearn", "matplotlib"}


def test_help_ends_with_three_examples(command):
    shown = command(launcher.main, "--help").out
    assert shown[shown.index("Examples:") :].count("python -m study.launch") == 3


def test_every_space_is_listed_with_its_question(command):
    shown = command(launcher.main, "--list-spaces").out
    for space in (
        "adapter_width",
        "temperature",
        "loss_weights",
        "adapter_training",
        "gap_target",
        "joint",
        "method",
        "method_tuned",
    ):
        assert f"{space}\n" in shown
    assert shown.count("?") >= 5
    assert "scientific" in shown


def test_a_dry_run_shows_plan_configs_and_cost_and_writes_nothing(command, tmp_path):
    done = command(launcher.main, "--space", "joint", "--trials", "10", "--dry-run", "--output-dir", tmp_path / "out")
    assert done.code == 0
    assert "70 = 10 search trials + 2 controls (ce, kd) x 12 seeds + 3 promising x 12 seeds" in done.out
    assert "1050 student epochs" in done.out
    assert done.out.count("adapter_width=") == 5
    assert "9 teacher passes over the train split instead of 870, 861 saved" in done.out
    assert not (tmp_path / "out").exists()


def test_a_dry_run_says_what_will_be_confirmed(command, tmp_path):
    done = command(
        launcher.main, "--space", "adapter_width", "--confirm", "3", "--dry-run", "--output-dir", tmp_path / "out"
    )
    assert done.code == 0, done.err
    assert "confirms   the 3 best configs (by lower bound), the search winner, ce, kd and pesf_kd" in done.out
    assert "on 10 fresh seeds each: at most 118 additional trials, 48 of them to tune the temperature of kd" in done.out
    assert not (tmp_path / "out").exists()


def test_an_adapter_on_a_newer_method_has_that_method_alone_as_a_control(command, tmp_path):
    done = command(
        launcher.main, "--space", "adapter_width", "--method", "dkd", "--adapter", "--dry-run", "--output-dir", tmp_path
    )
    assert done.code == 0, done.err
    assert "by dkd with an adapter" in done.out
    assert "3 controls (ce, kd, dkd) x 12 seeds" in done.out


def test_a_comparison_is_planned_with_all_methods_or_those_named(command, tmp_path):
    done = command(launcher.main, "--space", "method", "--dry-run", "--json", "--output-dir", tmp_path / "out")
    shown = json.loads(done.out)
    assert shown["trials"] == 10 * len(shown["plan"]["compared"]) == 10 * len(shown["first_configs"])
    smoke = ("--space", "method_tuned", "--methods", "dist+adapter, ce", "--smoke", "--dry-run", "--json")
    shown = json.loads(command(launcher.main, *smoke, "--output-dir", tmp_path / "out").out)
    assert [method["name"] for method in shown["plan"]["compared"]] == ["kd", "dist+adapter", "ce"]
    assert shown["trials"] == shown["epochs"] == 3 * (2 + 1)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("method", "says"),
    [
        ("dml", ("trains     cnn_3_4 and the peer cnn_32_64, both from scratch", ", for kd (dml needs none)",
                 "in 900 of them, cnn_32_64 is trained too", "instead of 180, 171 saved")),
        ("kdcl", ("the peer cnn_32_64", "for kd (kdcl needs none)")),
        ("dual_student", ("cnn_32_64 -> cnn_3_4 and a second cnn_3_4", "in 900 of them, cnn_3_4 is trained too",
                          "outputs stored")),
        ("sftn", ("cnn_32_64 for sftn alone, trained by recipe short for 30 epochs",
                  "with branches that end like cnn_3_4",
                  "cnn_32_64, trained by recipe short for 30 epochs, for kd", "18 teacher passes",
                  "at most 9.8MiB")),
        ("full_teacher", ("cnn_32_64, which is trained too, -> cnn_3_4", "in 900 of them, cnn_32_64 is trained too",
                          "outputs live (full_teacher trains the teacher, so", "1080 teacher passes")),
    ],
)  # fmt: skip
def test_a_dry_run_says_who_learns_beside_the_student_and_who_teaches(command, tmp_path, method, says):
    done = command(launcher.main, "--space", "temperature", "--method", method, "--dry-run", "--output-dir", tmp_path)
    assert done.code == 0, done.err
    for words in says:
        assert words in done.out


@pytest.mark.study
@pytest.mark.parametrize("method", ["dml", "kdcl", "dual_student", "full_teacher", "sftn"])
def test_a_study_in_which_more_than_the_student_learns_runs(command, output_dir, method):
    arguments = ("--space", "temperature", "--method", method, "--smoke", "--name", f"beside-{method}", "--json")
    done = command(launcher.main, *arguments, "--executor", "in-process", "--output-dir", output_dir)
    assert done.code == 0, done.err
    shown = json.loads(done.out)
    assert sorted((c["stage"], c["method"]) for c in shown["configs"]) == [
        ("control", "ce"), ("control", "kd"), ("replicate", method),
    ]  # fmt: skip
    assert all(c["gap"]["n"] == 1 for c in shown["configs"])


@pytest.mark.study
def test_a_study_of_an_adapter_on_a_newer_method_runs(command, output_dir):
    arguments = ("--space", "adapter_width", "--method", "dist", "--adapter", "--smoke", "--name", "newer", "--json")
    done = command(launcher.main, *arguments, "--executor", "in-process", "--output-dir", output_dir)
    assert done.code == 0, done.err
    configs = json.loads(done.out)["configs"]
    assert sorted((c["stage"], c["method"]) for c in configs) == [
        ("control", "ce"), ("control", "dist"), ("control", "kd"), ("replicate", "dist+adapter"),
    ]  # fmt: skip
    assert all(c["gap"]["n"] == 1 for c in configs)


def test_a_dry_run_as_json_is_one_document(command, tmp_path):
    limit = ("--teacher-outputs-limit", "1KiB")
    done = command(
        launcher.main, "--space", "temperature", "--dry-run", "--json", "--smoke", "--output-dir", tmp_path, *limit
    )
    shown = json.loads(done.out)
    assert shown["trials"] == 5
    assert shown["epochs"] == 5
    assert len(shown["first_configs"]) == 2
    assert shown["plan"]["teacher_outputs_limit"] == 1024
    assert (shown["teacher_outputs"]["source"], shown["teacher_outputs"]["passes_live"]) == ("live", 4)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "give --space"),
        (("--space", "adapter_widht"), "did you mean 'adapter_width'"),
        (("--space", "joint", "--method", "pesfkd"), "did you mean 'pesf_kd'"),
        (("--space", "adapter_width", "--method", "kd"), "methods that do: pesf_kd"),
        (("--space", "adapter_width", "--method", "dkd"), "dkd with --adapter"),
        (("--space", "joint", "--method", "kd", "--adapter"), "kd with an adapter is pesf_kd"),
        (("--space", "joint", "--set", "adapter=True"), "--adapter"),
        (("--space", "joint", "--dataset", "digit"), "did you mean 'digits'"),
        (("--space", "joint", "--student", "cnn_3"), "cnn_3"),
        (("--space", "joint", "--trials", "0"), "greater than or equal to 1"),
        (("--space", "joint", "--trials", "many"), "--trials"),
        (("--space", "adapter_width", "--temperature", "-1"), "greater than or equal to 0.000001"),
        (("--space", "adapter_width", "--set", "temprature=3"), "did you mean 'temperature'"),
        (("--space", "adapter_width", "--set", "temperature"), "FIELD=VALUE"),
        (
            ("--space", "adapter_width", "--set", "temperature=4", "--set", "temperature=5"),
            "--set temperature=5: temperature is given by another --set as well",
        ),
        (
            ("--space", "adapter_width", "--temperature", "4", "--set", "temperature=4"),
            "--set temperature=4: temperature is given by --temperature as well",
        ),
        (("--space", "temperature", "--temperature", "3"), "varies temperature"),
        (("--space", "joint", "--set", "epochs=3"), "--epochs"),
        (("--space", "joint", "--name", "../out"), "use 1 to 100 letters"),
        (("--space", "joint", "--data-root", "/nowhere/at/all"), "/nowhere/at/all"),
        (("--space", "joint", "--sampler", "grid"), "grid"),
        (("--space", "joint", "--teacher-outputs", "disk"), "disk"),
        (("--space", "joint", "--teacher-outputs-limit", "plenty"), "plenty"),
        (("--space", "joint", "--teacher-outputs-path", "s3:/bucket/x"), "such as s3://BUCKET/FOLDER"),
        (("--space", "joint", "--teacher-outputs", "stored", "--teacher-outputs-limit", "1KiB"), "more than the limit"),
        (("--space", "temperature", "--method", "full_teacher", "--teacher-outputs", "stored"), "trains the teacher"),
        (("--resume", "nothing"), "no study 'nothing'"),
        (("--resume", "../nothing"), "not a valid study name"),
        (("--bogus",), "--bogus"),
        (("--space", "joint", "--precision", "fp8"), "did you mean 'fp32'"),
        (("--space", "joint", "--methods", "ce,kd"), "--methods is only for --space method or method_tuned"),
        (("--space", "method", "--methods", "ce,dkkd"), "did you mean 'dkd'"),
        (("--space", "method", "--methods", ","), "--methods contains no method"),
        (("--space", "method", "--method", "dkd"), "--method is only for a study of one method"),
        (("--space", "method", "--adapter"), "such as --methods ce,kd,dkd+adapter"),
        (("--space", "method", "--trials", "5"), "has no search: leave out --trials"),
        (("--space", "method", "--sampler", "qmc"), "has no search: leave out --sampler"),
        (("--space", "method", "--scheduler", "asha"), "leave out --scheduler"),
        (("--space", "method", "--pack", "4"), "leave out --pack"),
        (("--space", "method_tuned", "--promising", "2"), "the best config of each method: leave out --promising"),
        (("--space", "method_tuned", "--temperature", "2"), "varies temperature"),
        (("--space", "joint", "--confirm", "0"), "--confirm 0: give a number from 1 to 1,000,000"),
        (("--space", "joint", "--confirm", "25"), "the search proposes 24 configs: lower --confirm to 24 or less"),
        (("--space", "joint", "--confirm", "3", "--seeds", "1"), "one seed gives no interval and no test"),
        (("--space", "joint", "--seeds", "5"), "give --confirm too"),
        (("--space", "joint", "--optuna-storage", "/tmp/caf\udce9"), "--optuna-storage '/tmp/caf\\udce9': "),
        (("--space", "joint", "--optuna-storage", "/dev/null"), "is a device or a pipe: give a regular file"),
        (
            ("--space", "method", "--methods", "ce,dkd", "--confirm", "2"),
            "compares 1 method(s) in addition to ce and kd",
        ),
    ],
)
def test_bad_input_is_refused_before_any_work(command, tmp_path, monkeypatch, arguments, says):
    monkeypatch.setenv("COLUMNS", "120")
    out = tmp_path / "out"
    done = command(launcher.main, *arguments, "--output-dir", out)
    assert done.code == 2, done.err
    assert says in done.err
    assert "Traceback" not in done.err
    assert not out.exists()


def test_an_output_folder_that_cannot_be_written_is_refused(launch, tmp_path):
    """Runs in a separate process, as do the three tests below, to check that errors end without a traceback."""
    (tmp_path / "file").write_text("")
    done = launch("--space", "joint", "--output-dir", tmp_path / "file" / "out")
    assert done.returncode == 2
    assert "cannot write in" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_ray_address_that_does_not_answer_is_refused(launch, tmp_path):
    refused = launch("--space", "joint", "--address", "127.0.0.1:9", "--output-dir", tmp_path)
    assert refused.returncode == 1
    assert "no Ray cluster answers at 127.0.0.1:9" in refused.stderr
    assert not list(tmp_path.glob("joint*"))


@pytest.mark.slow
def test_something_else_listening_at_a_ray_address_is_refused(launch, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        stop = threading.Event()

        def accept_and_say_nothing():
            held = []
            server.settimeout(0.2)
            while not stop.is_set():
                try:
                    held.append(server.accept())
                except TimeoutError:
                    continue

        thread = threading.Thread(target=accept_and_say_nothing)
        thread.start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        refused = launch("--space", "joint", "--address", address, "--output-dir", tmp_path, timeout=240)
        stop.set()
        thread.join()
    assert refused.returncode == 1
    assert address in refused.stderr
    assert "Traceback" not in refused.stderr


def test_more_than_the_machine_has_is_refused_instead_of_waited_for(launch, tmp_path):
    done = launch("--space", "joint", "--gpus-per-trial", "64", "--output-dir", tmp_path, "--name", "greedy")
    assert done.returncode == 1
    assert "a trial asks for 64 GPU and the largest node has" in done.stderr
    assert "--gpus-per-trial" in done.stderr


def test_a_tracking_server_that_does_not_answer_is_refused(launch, tmp_path):
    done = launch("--space", "joint", "--tracking-uri", "http://127.0.0.1:9", "--output-dir", tmp_path)
    assert done.returncode == 1
    assert "no MLflow tracking server answers" in done.stderr
    assert not list(tmp_path.glob("joint*"))
