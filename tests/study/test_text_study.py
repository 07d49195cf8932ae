"""Studies of text, by the command lines: GLUE's files with invented sentences, and networks of one layer."""

import json
import re
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from study.confirm import main as confirm_main
from study.export import main as export_main
from study.launch import main
from study.ledger.journal import Journal
from tests.conftest import run_launcher
from tests.study.inspection import read_journal
from tests.text_tasks import write_rte
from tests.trainables.text.pretrained import fine_tuned
from trainables.data import load_dataset
from trainables.teacher.command import main as train_teacher

pytestmark = pytest.mark.study

TASK = ("--space", "adapter_width", "--dataset", "glue:rte")
NETS = ("--teacher", "bert_2_32", "--student", "bert:1")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rte(tmp_path_factory.mktemp("glue"))


def plan_of(command, root, *arguments):
    done = command(main, *TASK, "--data-root", root, *arguments, "--dry-run", "--json")
    assert done.code == 0, done.err
    return json.loads(done.out)["plan"]


def test_a_plan_of_text_shows_what_it_begins_with(command, root):
    plan = plan_of(command, root)
    base = plan["base"]
    assert (base["teacher"], base["student"], base["epochs"]) == ("bert_4_128", "bert_2_128", 3)
    assert (base["optimiser"], base["batch_size"], base["clip_norm"]) == ("adamw", 32, 1.0)
    assert base["teacher_epochs"] == 5
    given = plan_of(command, root, "--student", "bert:2", "--student-layers", "last", "--epochs", "2")["base"]
    assert (given["student"], given["student_layers"], given["epochs"]) == ("bert:2", "last", 2)
    assert given["student_learning_rate"] == 5e-5


def test_a_space_has_other_bounds_on_text_and_another_adapter(command, root):
    done = command(main, *TASK, "--data-root", root, "--dry-run")
    assert "adapter_learning_rate [1e-06, 0.001], log" in done.out
    configs = json.loads(command(main, *TASK, "--data-root", root, "--dry-run", "--json").out)["first_configs"]
    assert all(1e-6 <= config["adapter_learning_rate"] <= 1e-3 for config in configs)


def test_a_dry_run_shows_how_many_sources_validate(command, root):
    done = command(main, *TASK, "--data-root", root, "--dry-run")
    shown = re.search(r"2,241 train, 249 validation \((\d+) of ([\d,]+) sources, stratified as far as", done.out)
    counts = json.loads(command(main, *TASK, "--data-root", root, "--dry-run", "--json").out)
    assert shown
    assert (int(shown[1]), int(shown[2].replace(",", ""))) == (counts["validation_sources"], counts["sources"])
    assert counts["sources"] < 2490  # short sentences of few words can be equal


@pytest.fixture(scope="module")
def folder(root, tmp_path_factory):
    """Return a function that writes a fine-tuned BERT in Hugging Face's layout, with the task's tokeniser."""
    task = load_dataset("glue:rte", root)
    small = {"num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 32}
    named = {"id2label": {0: "Not_Entailment", 1: "Entailment"}}

    def write(**changes):
        return fine_tuned(tmp_path_factory.mktemp("model"), task, **{**small, **named, **changes})

    return write


def test_a_dry_run_shows_how_the_teachers_classes_became_those_of_the_task(command, root, folder):
    given = "--data-root", root, "--dry-run", "--teacher-checkpoint"
    done = command(main, *TASK, *given, folder())
    assert "reordered by name, from Not_Entailment, Entailment to entailment, not_entailment" in done.out
    unnamed = command(main, *TASK, *given, folder(id2label={0: "LABEL_0", 1: "LABEL_1"}))
    assert "config.json does not name the classes; assuming entailment, not_entailment" in unnamed.out
    other = command(main, *TASK, *given, folder(id2label={0: "joy", 1: "anger"}))
    assert other.code == 2
    assert "has the classes joy, anger, but glue:rte has entailment, not_entailment" in other.err


@pytest.mark.parametrize("flag", ["--teacher", "--student", "--teacher-checkpoint"])
def test_a_model_that_cannot_read_the_tasks_sentences_is_refused_in_a_dry_run(command, root, folder, tmp_path, flag):
    given = *TASK, "--data-root", root, "--output-dir", tmp_path, "--dry-run", flag
    assert command(main, *given, folder(max_position_embeddings=40)).code == 0
    few = command(main, *given, folder(max_position_embeddings=16))
    assert (few.code, "has 16 positions, but the sentences of glue:rte need 24" in few.err) == (2, True), few.err
    assert f"error: {flag}: " in few.err
    tokens = command(main, *given, folder(vocab_size=20))
    assert (tokens.code, "has embeddings for 20 tokens, but the tokeniser has" in tokens.err) == (2, True), tokens.err
    for name, says in (("tokenizer.json", "contains no tokeniser"), ("model.safetensors", "but no weights at all")):
        path = folder()
        (path / name).unlink()
        done = command(main, *given, path)
        assert (done.code, says in done.err) == (2, True), done.err
    pickled = folder()
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    done = command(main, *given, pickled)
    assert "but pytorch_model.bin. Only safetensors are read, because pickles can run code" in done.err
    assert not list(tmp_path.iterdir())


def test_a_teacher_is_not_begun_from_a_model_that_cannot_read_the_tasks_sentences(command, root, folder, tmp_path):
    given = "--dataset", "glue:rte", "--data-root", root, "--output-dir", tmp_path, "--no-mlflow", "--model"
    for dry in ((), ("--dry-run",)):
        done = command(train_teacher, *given, folder(max_position_embeddings=16), *dry)
        assert (done.code, "has 16 positions" in done.err) == (2, True), done.err
    assert command(train_teacher, *given, folder(), "--dry-run").code == 0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--method", "fitnet"), "method 'fitnet' matches maps"),
        (("--teacher", "no-such-bert"), "--teacher: model 'no-such-bert' was not found"),
        (("--teacher-checkpoint", "/nowhere/model"), "--teacher-checkpoint: there is no folder /nowhere/model"),
        (("--pack", "4"), "packed trials need image data"),
        (("--dataset", "digits", "--student-layers", "last"), "--student-layers is only for a student bert:N"),
        (("--dataset", "glue:stsb"), "regression"),
        (("--teacher", "bert_4_64", "--student", "bert:3"), "no 3 that are evenly spaced"),
    ],
)
def test_what_cannot_be_studied_is_refused_before_any_work(command, root, tmp_path, arguments, says):
    done = command(main, *TASK, "--data-root", root, *arguments, "--output-dir", tmp_path / "out")
    assert done.code == 2
    assert says in done.err
    assert not (tmp_path / "out").exists()


@pytest.mark.launcher
def test_a_study_of_images_imports_no_language_model():
    program = (
        "import sys, trainables.run.run, trainables.teacher, trainables.students.file;"
        "sys.exit(any(name in sys.modules for name in ('transformers', 'tokenizers')))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.study
def test_a_study_of_text_runs_confirms_and_keeps_a_student_that_reads_tokens(command, root, tmp_path):
    done = command(
        main, *TASK, *NETS, "--data-root", root, "--teacher-epochs", "1", "--smoke", "--confirm", "1", "--name", "text",
        "--output-dir", tmp_path, "--json", "--executor", "in-process",
    )  # fmt: skip
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert result["trials"]["failed"] == 0
    files = [path for path in (tmp_path / "text").rglob("*.safetensors") if "example" not in path.name]
    from trainables.students.file import load_kept

    assert load_kept(files[0]).images.shape[:2] == (2, 2)
    exported = command(export_main, "text", "--output-dir", tmp_path, "--json")
    assert exported.code == 0, exported.err
    told = json.loads(exported.out)
    assert told["takes"] == ["batch", 2, "tokens"]
    session = onnxruntime.InferenceSession(told["file"])
    kept = load_kept(Path(told["file"]).with_suffix(".safetensors"))
    (logits,) = session.run(None, {"sentences": kept.images.numpy()})
    np.testing.assert_allclose(logits, kept.logits.numpy(), atol=1e-4)


@pytest.mark.slow
def test_a_teacher_is_trained_by_its_own_command_and_given_to_a_study(command, root, tmp_path):
    trained = command(
        train_teacher, "--dataset", "glue:rte", "--model", "bert_1_32", "--data-root", root, "--epochs", "2",
        "--name", "small", "--output-dir", tmp_path, "--no-mlflow", "--json",
    )  # fmt: skip
    assert trained.code == 0, trained.err
    checkpoint = json.loads(trained.out)["checkpoint"]
    card = Path(json.loads(trained.out)["card"]).read_text()
    assert "AdamW at 0.0005 (linear)" in card
    assert "tokeniser" in card
    assert "- classes entailment, not_entailment, in this order" in card
    done = run_launcher(
        *TASK, "--student", "bert:1", "--teacher-checkpoint", checkpoint, "--data-root", root, "--smoke",
        "--name", "given", "--output-dir", tmp_path, "--json", "--max-concurrent", "1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["trials"]["failed"] == 0
    journal = tmp_path / "given" / "journal.jsonl"
    events, _ = read_journal(journal)
    (dataset,) = [event["dataset"] for event in events if event["event"] == "dataset"]
    assert dataset["sources"] > dataset["validation_sources"] > 0
    with closing(Journal(journal)) as writer:  # as if this version split the data differently
        writer.append({"event": "dataset", "dataset": dataset | {"digest": "0" * 64}})
    content = journal.read_bytes()
    refused = command(
        confirm_main, "given", "--confirm", "1", "--data-root", root, "--output-dir", tmp_path,
        "--executor", "in-process",
    )  # fmt: skip
    assert refused.code == 1
    assert "study 'given' ran on other data or another split" in refused.err
    assert "row by row" in refused.err
    assert {event["event"] for event in read_journal(journal)[0][len(events) + 1 :]} <= {"confirmation"}
    assert journal.read_bytes().startswith(content)
