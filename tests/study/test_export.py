"""Command line that exports a confirmed student, on studies with really trained students."""

import json
import subprocess
import sys

import onnxruntime
import pytest
import torch

import pesfkd
from study.export import main
from study.ledger.ledger import StudyLedger
from study.ledger.students import chosen, confirmed_students, first_confirmed, student_path
from tests.study.confirmed import confirmed_study
from tests.study.factories import make_plan
from trainables.data import load_dataset
from trainables.storage.tensors import read_tensors, write_tensors
from trainables.students.export import read_program
from trainables.students.file import example_path, load_student

pytestmark = pytest.mark.study


@pytest.fixture
def study(tmp_path, run):
    """Ledger of a confirmed study named `planned` in the test's folder."""
    ledger, _ = confirmed_study(tmp_path, run)
    ledger.plan.save()
    return ledger


def carried_names(path):
    """Return the class names stored in an exported file."""
    if path.suffix == ".onnx":
        return json.loads(onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map["class_names"])
    files = {"class_names.json": ""}
    torch.export.load(path, extra_files=files)
    return json.loads(files["class_names.json"])


def test_help_answers_without_heavy_imports_and_ends_with_three_examples(launch):
    done = launch("--help", module="study.export", PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 0
    assert done.stdout[done.stdout.index("Examples:") :].count("python -m study.export") == 3
    assert "pesfkd[export]" in done.stdout
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert not imported & {"torch", "ray", "mlflow", "optuna", "pyarrow", "pandas", "sklearn", "onnx", "onnxruntime"}


@pytest.mark.parametrize(("kind", "suffix"), [("onnx", ".onnx"), ("torch-export", ".pt2")])
def test_the_student_of_the_first_seed_is_exported_beside_its_weights(study, command, tmp_path, kind, suffix):
    done = command(main, "planned", "--format", kind, "--output-dir", tmp_path, "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    first = min((e for e in study.in_stage("confirm") if student_path(study.plan, e.trial_id).is_file()),
                key=lambda entry: entry.replicate)  # fmt: skip
    weights = student_path(study.plan, first.trial_id)
    assert told["file"] == str(weights.with_suffix(suffix))
    assert (told["trial_id"], told["takes"], told["gives"]) == (first.trial_id, ["batch", 1, 8, 8], ["batch", 10])
    assert (told["pixels"], told["class_names"]) == ([0, 240], list("0123456789"))
    assert carried_names(weights.with_suffix(suffix)) == list("0123456789")
    assert told["largest_difference"] <= told["tolerance"] == 1e-4
    images = load_dataset("digits", None).validation.images
    logits = read_program(weights.with_suffix(suffix), kind)(images)
    torch.testing.assert_close(logits, load_student(weights).logits(images), atol=1e-4, rtol=1e-4)


def test_another_confirmed_config_or_trial_is_exported_and_a_wrong_one_refused_with_what_there_is(
    command, tmp_path, run
):
    ledger, _ = confirmed_study(tmp_path, run, gains=(0.03, 0.05), configs=2)
    ledger.plan.save()
    first, second = chosen(ledger)
    assert (first.rank, second.rank) == (1, 2)
    trials = [entry.trial_id for entry, _ in confirmed_students(ledger, second)]
    assert len(trials) == 2
    told = {}
    for words in (("--config", second.config_id[:10]), ("--trial", trials[1]), ("--config", first.config_id), ()):
        done = command(
            main, "planned", *words, "--output-dir", tmp_path, "--json", "--format", "torch-export", "--force"
        )
        assert done.code == 0, done.err
        told[words[:1] + words[1:2]] = json.loads(done.out)["trial_id"]
    own = first_confirmed(ledger).trial_id
    assert list(told.values()) == [trials[0], trials[1], own, own]
    written = pesfkd.open(tmp_path / "planned").export(tmp_path / "own.pt2", config=second.config_id)
    assert read_program(written, "torch-export") is not None

    control = next(entry for entry in ledger.in_stage("confirm") if entry.config.method == "ce")
    for words, reason in (
        (("--config", "nothing"), "--config nothing is none with a saved student of study 'planned'"),
        (("--config", ""), "is none with a saved student"),
        (("--trial", control.trial_id), f"--trial {control.trial_id} is none with a saved student"),
        (("--trial", "planned-9999"), "--trial planned-9999 is none"),
    ):
        refused = command(main, "planned", *words, "--output-dir", tmp_path)
        assert refused.code == 2, refused.said
        assert reason in refused.err
        for choice in (first, second):
            assert f"--config {choice.config_id}  {choice.label} (" in refused.err
        assert ", ".join(trials) in refused.err
    both = command(main, "planned", "--config", first.config_id, "--trial", trials[0], "--output-dir", tmp_path)
    assert both.code == 2
    assert "not both" in both.err
    student_path(ledger.plan, trials[0]).unlink()
    lost = command(main, "planned", "--trial", trials[0], "--output-dir", tmp_path, "--force")
    assert lost.code == 2
    assert f"the student of {trials[0]} was not saved" in lost.err


def test_what_an_exporter_prints_is_not_among_the_json(study, command, tmp_path, monkeypatch):
    real = torch.onnx.export

    def loud(*arguments, **options):
        print("Applied 6 of general pattern rewrite rules.")  # as onnxscript of PyTorch 2.9 does
        return real(*arguments, **options)

    monkeypatch.setattr(torch.onnx, "export", loud)
    out = tmp_path / "student.onnx"
    done = command(main, "planned", "--format", "onnx", "--out", out, "--output-dir", tmp_path, "--json")
    assert json.loads(done.out)["file"] == str(out)


def test_a_file_that_is_there_is_replaced_only_if_that_is_wanted(study, command, tmp_path):
    path = tmp_path / "elsewhere" / "student.pt2"
    arguments = ("planned", "--format", "torch-export", "--out", path, "--output-dir", tmp_path)
    done = command(main, *arguments)
    assert done.code == 0, done.err
    takes, gives = "input     images: uint8 (batch, 1, 8, 8), pixels 0 to 240, ", "(batch, 10) of 0, 1, 2, "
    for words in (f"written   {path} (torch-export, ", takes, gives, "at most "):
        assert words in done.out
    path.write_bytes(b"precious")
    done = command(main, *arguments)
    assert done.code == 2
    assert "already exists: replace it with --force" in done.err
    assert path.read_bytes() == b"precious"
    assert command(main, *arguments, "--force").code == 0
    assert path.stat().st_size > 1000


@pytest.mark.parametrize("missing", ["onnx", "onnxscript", "onnxruntime"])
def test_without_the_extra_it_is_named_before_any_work(launch, tmp_path, missing):
    program = (
        f"import sys; sys.modules[{missing!r}] = None; sys.argv = ['', 'nothing', '--output-dir', {str(tmp_path)!r}]\n"
        "from study.export import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert f"--format onnx needs {missing}" in done.stderr
    assert "pip install 'pesfkd[export]'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("nothing",), "no study 'nothing'"),
        (("../planned",), "not a valid study name"),
        (("planned", "--format", "tflite"), "tflite"),
        (("planned", "--out", "student.pt2"), "a file of format onnx must end in .onnx"),
        (("planned", "--format", "torch-export", "--out", "folder.pt2"), "is a folder: give a file in it"),
        ((), "NAME"),
    ],
)
def test_what_cannot_be_exported_so_is_refused(study, command, tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.pt2").mkdir()
    before = sorted(tmp_path.rglob("*"))
    done = command(main, *arguments, "--output-dir", tmp_path)
    assert done.code == 2, done.err
    assert says in done.err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_study_without_a_complete_confirmation_says_how_to_get_one(study, command, tmp_path):
    make_plan(tmp_path, name="searched").save()
    done = command(main, "searched", "--output-dir", tmp_path)
    assert done.code == 2
    assert "has no confirmation" in done.err
    assert "python -m study.confirm searched" in done.err
    journal = study.plan.directory / "journal.jsonl"
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:-1]))
    done = command(main, "planned", "--output-dir", tmp_path)
    assert done.code == 2
    assert f"{study.confirmation.size - 1} of {study.confirmation.size} trials have ended" in done.err


def test_a_student_that_could_not_be_kept_gives_way_to_the_next_seed_and_none_is_an_error(study, command, tmp_path):
    ledger = StudyLedger(study.plan, read_only=True)
    first = first_confirmed(ledger)
    student_path(study.plan, first.trial_id).unlink()
    assert first_confirmed(ledger).replicate == first.replicate + 1
    for path in (study.plan.directory / "students").iterdir():
        path.unlink()
    done = command(main, "planned", "--output-dir", tmp_path)
    assert done.code == 1
    assert f"the student of {first.trial_id} is missing" in done.err


def test_a_student_of_an_earlier_version_gets_the_names_of_a_published_datasets_classes(study, command, tmp_path):
    weights = student_path(study.plan, first_confirmed(study).trial_id)
    tensors, metadata = read_tensors(weights)
    assert json.loads(metadata.pop("class_names")) == list("0123456789")
    write_tensors(weights, tensors, metadata)
    assert load_student(weights).class_names == ()
    done = command(main, "planned", "--format", "torch-export", "--output-dir", tmp_path, "--json")
    assert done.code == 0, done.err
    assert carried_names(weights.with_suffix(".pt2")) == json.loads(done.out)["class_names"] == list("0123456789")


@pytest.mark.parametrize("names", ["3", '["0", "1"]', "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]", "no JSON"])
def test_a_file_that_names_its_classes_wrongly_is_refused(study, command, tmp_path, names):
    weights = student_path(study.plan, first_confirmed(study).trial_id)
    tensors, metadata = read_tensors(weights)
    write_tensors(weights, tensors, {**metadata, "class_names": names})
    done = command(main, "planned", "--format", "torch-export", "--output-dir", tmp_path)
    assert done.code == 1
    assert "class_names in the file is not a list of 10 names" in done.err


def test_a_damaged_student_is_not_exported(study, command, tmp_path):
    path = student_path(study.plan, first_confirmed(study).trial_id)
    for file in (example_path(path), path):
        content = bytearray(file.read_bytes())
        content[-3] ^= 1
        file.write_bytes(bytes(content))
        done = command(main, "planned", "--output-dir", tmp_path)
        assert done.code == 1
        assert "damaged" in done.err
    assert not path.with_suffix(".onnx").exists()
