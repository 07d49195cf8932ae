"""Given teachers on text: a folder of Hugging Face, or a file in our format."""

import json
from pathlib import Path

import onnxruntime
import pytest
import tokenizers
import torch

from tests.trainables.conftest import text_config
from tests.trainables.text.pretrained import fine_tuned
from trainables.costs.epoch import run_epoch
from trainables.data.text.dataset import TextDataset
from trainables.data.text.tokeniser import load_tokeniser
from trainables.models import CheckpointError
from trainables.run.run import DistillationRun
from trainables.storage.tensors import read_tensors
from trainables.students.export import ExportFormat, export_student, read_program
from trainables.students.file import keep_student, load_kept, load_student
from trainables.teacher.files import find_tokeniser, keep_given_teacher, load_teacher, notes_on_given_teacher
from trainables.teacher.given_text import read_given_text_teacher
from trainables.teacher_outputs.frozen import FrozenTeacher

pytestmark = pytest.mark.study


def test_a_folder_becomes_a_teacher_that_is_kept_with_its_tokeniser(text: TextDataset, tmp_path: Path) -> None:
    folder = fine_tuned(tmp_path / "model", text)
    given = read_given_text_teacher(folder, "glue:sst2")
    path = keep_given_teacher(given, tmp_path / "teachers")
    config = text_config(
        teacher=str(folder),
        teacher_recipe="checkpoint",
        teacher_epochs=0,
        teacher_digest=given.digest,
        student="bert:1",
    )
    tokeniser = find_tokeniser(config, path)
    assert tokeniser is not None
    assert load_tokeniser(tokeniser).digest == text.tokeniser.digest
    for file in folder.iterdir():  # the folder is not needed again
        file.unlink()
    teacher = load_teacher(path, config, text)
    inputs = text.validation.batch(torch.arange(4))
    reference = given.weights["_head.weight"]
    assert torch.equal(teacher.head.weight, reference)
    assert teacher(inputs).logits.shape == (4, 2)
    assert "the teacher has accuracy" in notes_on_given_teacher(path, config, text)[0]
    assert run_epoch(DistillationRun(config, text, teacher))["val/accuracy_teacher"] >= 0


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"classes": 3}, r"has 3 classes, and glue:sst2 2 \(negative, positive\)"),
        ({"vocab_size": 3000}, "has embeddings for 3,000 tokens, but the tokeniser has .* do not match"),
        ({"pad_token_id": 5}, "pads with token 5"),
    ],
)
def test_a_checkpoint_of_another_task_or_with_other_tokens_is_refused(
    text: TextDataset, tmp_path: Path, changes: dict[str, int], says: str
) -> None:
    with pytest.raises(CheckpointError, match=says):
        read_given_text_teacher(fine_tuned(tmp_path, text, **changes), "glue:sst2")


def test_what_was_never_fine_tuned_or_is_no_folder_is_refused(text: TextDataset, tmp_path: Path) -> None:
    folder = fine_tuned(tmp_path / "model", text)
    with pytest.raises(CheckpointError, match="no folder /nowhere"):
        read_given_text_teacher(Path("/nowhere"), "glue:sst2")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match="contains no tokeniser"):
        read_given_text_teacher(folder, "glue:sst2")
    with pytest.raises(CheckpointError, match="give a folder in Hugging Face's layout"):
        read_given_text_teacher(folder / "model.safetensors", "glue:sst2")


@pytest.mark.parametrize("method", ["ce", "pea_kd"])
def test_a_student_that_was_kept_says_again_what_it_said_and_has_its_tokeniser(
    text: TextDataset, text_teacher: FrozenTeacher, tmp_path: Path, method: str
) -> None:
    run = DistillationRun(text_config(method=method, epochs=1), text, text_teacher)
    run_epoch(run)
    path = tmp_path / "student.safetensors"
    keep_student(run, path)
    kept = load_kept(path)
    assert kept.images.dtype == torch.int32
    student = load_student(path)
    run.student.eval()
    inputs = text.validation.batch(torch.arange(9))
    torch.testing.assert_close(student.logits(inputs), run.student(inputs))
    assert json.loads(student.about["model"])["hidden_size"] == 32
    assert student.about["tokeniser"] == text.tokeniser.json
    assert read_tensors(path)[1]["architecture"] == "bert_2_32"
    with pytest.raises(ValueError, match=r"takes sentences \(B, 2, L\), int32"):
        student.logits(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))


@pytest.mark.study
@pytest.mark.parametrize(("kind", "suffix"), [("onnx", ".onnx"), ("torch-export", ".pt2")])
def test_an_exported_student_takes_sentences_of_any_number_and_length_and_carries_its_tokeniser(
    text: TextDataset, text_teacher: FrozenTeacher, tmp_path: Path, kind: ExportFormat, suffix: str
) -> None:
    run = DistillationRun(text_config(method="ce", epochs=1), text, text_teacher)
    run_epoch(run)
    keep_student(run, tmp_path / "student.safetensors")
    kept, path = load_kept(tmp_path / "student.safetensors"), tmp_path / f"student{suffix}"
    exported = export_student(kept, path, kind=kind, facts={"trial_id": "study-0001"})
    assert exported.batches == (2, 1, 2, 7)
    program = read_program(path, kind)
    for places in (torch.arange(9), torch.arange(1)):
        inputs = text.validation.batch(places)
        torch.testing.assert_close(program(inputs), kept.student.logits(inputs), atol=1e-4, rtol=1e-4)
    if kind == "onnx":
        session = onnxruntime.InferenceSession(path)
        assert session.get_inputs()[0].shape == ["batch", 2, "tokens"]
        assert session.get_outputs()[0].shape == ["batch", 2]
        carried, names = session.get_modelmeta().custom_metadata_map, "class_names"
    else:
        carried, names = {"tokenizer.json": "", "pesfkd.json": "", "class_names.json": ""}, "class_names.json"
        torch.export.load(path, extra_files=carried)
    assert json.loads(carried[names]) == ["negative", "positive"]
    content = carried["tokenizer.json"]
    assert (content if isinstance(content, str) else content.decode()) == text.tokeniser.json
    assert tokenizers.Tokenizer.from_str(text.tokeniser.json).encode("a film").ids[0] == 2  # [CLS]
