import numpy as np
import pytest
import torch

from tests.trainables.conftest import small_config
from trainables.costs.epoch import run_epoch
from trainables.models import CheckpointError
from trainables.run.run import DistillationRun
from trainables.spec.trial import TrialConfig
from trainables.storage.atomic import StoredFileError
from trainables.students.file import _load_pyfunc, example_path, keep_student, load_student, read_example
from trainables.tune.session import save_student_if_requested, take_notes


@pytest.fixture
def run(digits, teacher):
    run = DistillationRun(small_config(epochs=1), digits, teacher)
    run_epoch(run)
    return run


def test_a_student_that_was_kept_says_what_it_said_in_its_trial(run, digits, tmp_path):
    path = tmp_path / "students" / "best.safetensors"
    keep_student(run, path)
    student = load_student(path)
    images, logits = read_example(path)
    torch.testing.assert_close(student.logits(images), logits)
    measured = (student.logits(digits.validation.images).argmax(dim=1) == digits.validation.labels).double().mean()
    assert float(measured) == run.evaluate()["val/accuracy"]
    assert TrialConfig.model_validate_json(student.trial) == run.config


def test_mlflows_loader_gives_what_ours_gives_from_a_file_and_from_its_folder(run, digits, tmp_path):
    path = tmp_path / "best.safetensors"
    keep_student(run, path)
    images = digits.validation.images[:7]
    expected = load_student(path).logits(images).numpy()
    example_path(path).unlink()
    for place in (path, tmp_path):
        np.testing.assert_array_equal(_load_pyfunc(str(place)).predict(images.numpy()), expected)


@pytest.mark.parametrize(
    "images",
    [torch.zeros(2, 1, 8, 8), torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.zeros(8, 8, dtype=torch.uint8)],
)
def test_images_that_the_student_would_misread_are_refused(run, tmp_path, images):
    keep_student(run, tmp_path / "best.safetensors")
    with pytest.raises(ValueError, match=r"takes uint8 images \(B, 1, H, W\)"):
        load_student(tmp_path / "best.safetensors").logits(images)


def test_a_damaged_student_is_refused(run, tmp_path):
    path = tmp_path / "best.safetensors"
    keep_student(run, path)
    for file in (path, example_path(path)):
        content = bytearray(file.read_bytes())
        content[-3] ^= 1
        file.write_bytes(bytes(content))
    with pytest.raises(CheckpointError, match="damaged"):
        load_student(path)
    with pytest.raises(StoredFileError, match="damaged"):
        read_example(path)


def test_a_student_is_kept_when_its_trial_is_over_and_a_full_disk_costs_no_trial(digits, teacher, tmp_path):
    take_notes()
    run = DistillationRun(small_config(epochs=2), digits, teacher)
    path = tmp_path / "best.safetensors"
    for finished in (False, True):
        run_epoch(run)
        save_student_if_requested(run, str(path))
        assert path.exists() == finished
    (tmp_path / "taken").write_text("a file where a folder should be")
    save_student_if_requested(run, str(tmp_path / "taken" / "best.safetensors"))
    (note,) = take_notes()
    assert "could not be saved" in note
