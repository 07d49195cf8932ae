import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

import trainables.teacher.files
from tests.trainables.conftest import small_config
from trainables.data import load_dataset
from trainables.models import build_model
from trainables.spec.teacher_trial import teacher_trial
from trainables.spec.trial import TrialConfig
from trainables.storage.tensors import read_tensors, tensors_digest, write_tensors
from trainables.teacher.files import TeacherFileError, ensure_teacher, load_teacher, teacher_digest
from trainables.teacher.request import resolve_request
from trainables.teacher.training import TeacherTraining

pytestmark = pytest.mark.study


@pytest.fixture
def copy(teacher_file: Path, tmp_path: Path) -> Path:
    path = tmp_path / teacher_file.name
    path.write_bytes(teacher_file.read_bytes())
    return path


def test_a_teacher_is_trained_once_and_found_again(teacher_file, teacher_folder, digits, monkeypatch):
    monkeypatch.setattr(trainables.teacher.files, "train_teacher", lambda *_, **__: pytest.fail("trained again"))
    content = teacher_file.read_bytes()
    assert ensure_teacher(small_config(), digits, teacher_folder) == teacher_file
    assert teacher_file.read_bytes() == content
    assert teacher_file.name == f"{teacher_digest(small_config(), digits)}.safetensors"


def test_the_default_teacher_of_the_digits_is_right_more_often_than_93_of_100_times(digits, tmp_path):
    seen = []
    path = ensure_teacher(TrialConfig(), digits, tmp_path, progress=lambda *report: seen.append(report))
    _, metadata = read_tensors(path)
    assert metadata["validation_accuracy"] >= 0.93
    assert [epoch for epoch, _, _ in seen] == list(range(1, 31))
    assert {epochs for _, epochs, _ in seen} == {30}
    assert seen[-1][2] == metadata["validation_accuracy"]


def test_a_loaded_teacher_has_the_accuracy_written_in_its_file(teacher, teacher_file, digits):
    images = (digits.validation.images / 255 - digits.mean[0]) / digits.std[0]
    accuracy = (teacher(images).logits.argmax(dim=1) == digits.validation.labels).double().mean().item()
    _, metadata = read_tensors(teacher_file)
    assert accuracy == pytest.approx(metadata["validation_accuracy"], abs=1.5 / 360)


def test_the_file_says_what_the_teacher_is(teacher_file, digits):
    _, metadata = read_tensors(teacher_file)
    assert metadata["architecture"] == "cnn_8_16"
    assert (metadata["num_classes"], metadata["in_channels"]) == (10, 1)
    assert metadata["data_digest"] == digits.digest
    assert metadata["mean"] == list(digits.mean)
    assert metadata["std"] == list(digits.std)
    assert (metadata["seed"], metadata["epochs"]) == (0, 30)
    assert metadata["recipe"]["learning_rate"] == 0.05


def test_training_the_same_teacher_twice_gives_the_same_weights(teacher_file, digits, tmp_path):
    torch.set_num_threads(2)  # the caller's number of threads must neither matter nor change
    try:
        again = ensure_teacher(small_config(), digits, tmp_path)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert again.read_bytes() == teacher_file.read_bytes()


def test_a_flipped_byte_of_the_weights_is_refused_by_name(copy, digits):
    content = bytearray(copy.read_bytes())
    content[-5] ^= 0x10
    copy.write_bytes(content)
    with pytest.raises(TeacherFileError, match=f"{copy.name}: damaged.*Delete the file"):
        load_teacher(copy, small_config(), digits)


def test_a_truncated_file_is_refused_by_name(copy, digits):
    copy.write_bytes(copy.read_bytes()[:-100])
    with pytest.raises(TeacherFileError, match=copy.name):
        load_teacher(copy, small_config(), digits)


def test_another_architecture_is_refused_saying_what_was_found_and_expected(copy, digits):
    with pytest.raises(TeacherFileError, match=f"{copy.name}.*architecture is 'cnn_8_16', expected 'cnn_9_16'"):
        load_teacher(copy, small_config(teacher="cnn_9_16"), digits)


def test_another_split_or_seed_is_refused(copy, digits):
    other = load_dataset("digits", None, seed=1)
    with pytest.raises(TeacherFileError, match=r"mean|data_digest"):
        load_teacher(copy, small_config(split_seed=1), other)
    with pytest.raises(TeacherFileError, match="seed is 0, expected 3"):
        load_teacher(copy, small_config(teacher_seed=3), digits)


def test_tensors_that_do_not_fit_the_architecture_are_refused(copy, digits):
    _, metadata = read_tensors(copy)
    write_tensors(copy, build_model("cnn_4_4", num_classes=10, in_channels=1).state_dict(), metadata)
    with pytest.raises(TeacherFileError, match=f"{copy.name}.*do not fit 'cnn_8_16'"):
        load_teacher(copy, small_config(), digits)


@pytest.mark.parametrize(
    ("values", "digest"),
    [
        ({}, "5d74b9d700ff284f"),
        ({"teacher": "cnn_8_16", "teacher_seed": 3}, "57089a3329da24fa"),
        ({"teacher_recipe": "literature"}, "ec3503f7fe9f2ccc"),
        ({"method": "sftn"}, "851cebe0173e7226"),
        ({"method": "sftn", "sftn_kl_weight": 2.0, "student": "cnn_8_16"}, "bab9bdda88edc8fa"),
    ],
    ids=str,
)
def test_the_digest_of_a_teacher_is_that_of_earlier_versions(digits, values, digest):
    # Recorded with digests of configs of version 1. With another value, every stored teacher would be trained again.
    assert teacher_digest(TrialConfig(**values), digits) == digest


def test_the_digest_depends_on_what_makes_the_teacher_and_on_nothing_else(digits):
    digest = teacher_digest(small_config(), digits)
    assert digest != teacher_digest(small_config(teacher="cnn_9_16"), digits)
    assert digest != teacher_digest(small_config(teacher_seed=1), digits)
    assert digest != teacher_digest(small_config(), load_dataset("digits", None, seed=1))
    same = small_config(seed=9, data_seed=9, temperature=1.0, student_learning_rate=0.3, epochs=2, method="kd")
    assert digest == teacher_digest(same, digits)


def test_no_field_of_a_students_training_reaches_the_teachers_recipe():
    plain = teacher_trial(TrialConfig())
    changed = TrialConfig(
        epochs=7, batch_size=5, student_learning_rate=1.0, student_momentum=0.1, student_weight_decay=0.1,
        student_schedule="step", augmentation="none", seed=4, data_seed=4,
    )  # fmt: skip
    assert teacher_trial(changed) == plain


def test_of_several_that_ask_at_once_one_trains_and_the_others_wait(digits, tmp_path, monkeypatch):
    # Threads simulate processes: each opens the lock file separately, and an open file holds the lock.
    trained = []
    everybody = threading.Barrier(4)

    def train_slowly(config, dataset, path, *, progress=None):
        trained.append(path)
        time.sleep(0.3)
        path.write_bytes(b"a teacher")

    def ask(_):
        everybody.wait(timeout=30)
        return ensure_teacher(small_config(), digits, tmp_path).read_bytes()

    monkeypatch.setattr(trainables.teacher.files, "train_teacher", train_slowly)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, range(4))) == [b"a teacher"] * 4
    assert len(trained) == 1


def test_a_studys_teacher_and_one_of_the_command_line_by_the_same_recipe_are_one(digits, tmp_path):
    request = resolve_request(
        dataset="digits", model="cnn_4_6", recipe="literature", overrides={"epochs": 3}, seed=2, split_seed=0,
        precision="fp32", device="cpu", threads=1,
    )  # fmt: skip
    training = TeacherTraining(request.training_config(), digits, tmp_path / "training")
    assert len(list(training.epochs())) == 3
    config = TrialConfig(teacher="cnn_4_6", teacher_recipe="literature", teacher_epochs=3, teacher_seed=2)
    studys, _ = read_tensors(ensure_teacher(config, digits, tmp_path))
    assert tensors_digest(studys) == tensors_digest(training.model.state_dict())


def test_a_training_that_was_stopped_goes_on_and_gives_the_same_teacher(teacher_file, digits, tmp_path, monkeypatch):
    monkeypatch.setattr(trainables.teacher.files, "_SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    path, seen = tmp_path / teacher_file.name, []

    def stop(epoch, epochs, accuracy):
        seen.append(epoch)
        if epoch == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ensure_teacher(small_config(), digits, tmp_path, progress=stop)
    assert not path.exists()
    ensure_teacher(small_config(), digits, tmp_path, progress=lambda *report: seen.append(report[0]))
    assert seen == [*range(1, 8), *range(8, 31)]
    assert path.read_bytes() == teacher_file.read_bytes()
    assert not path.with_suffix(".training").exists()


def test_another_recipe_is_another_teacher(digits):
    digests = {
        teacher_digest(small_config(**changes), digits)
        for changes in ({}, {"teacher_recipe": "literature"}, {"teacher_epochs": 7}, {"teacher_epochs": 30})
    }
    assert len(digests) == 3  # 30 epochs are the default of the short recipe
