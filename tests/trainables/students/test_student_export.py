import subprocess
import sys

import onnx
import onnxruntime
import pytest
import torch

from trainables.data.views import Normaliser
from trainables.models import CheckpointInfo, build_model, save_model
from trainables.process.randomness import generator_from, seeded
from trainables.storage.atomic import StoredFileError
from trainables.storage.tensors import write_tensors
from trainables.students.export import (
    ExportError,
    export_student,
    largest_difference,
    read_program,
)
from trainables.students.file import KeptStudent, Student, example_path, load_kept, load_student

pytestmark = pytest.mark.study

FACTS = {"architecture": "cnn_3_4", "trial_id": "study-0001"}
# Name, channels and size of the images. The networks are untrained, because only equality of the outputs is tested.
NETS = [
    ("cnn_3_4", 1, 8),
    ("resnet8", 3, 32),
    ("resnet8a", 3, 32),
    pytest.param("MobileNetV2", 3, 32, marks=pytest.mark.slow),
    pytest.param("ShuffleV2", 3, 32, marks=pytest.mark.slow),
]
SUFFIXES = {"onnx": ".onnx", "torch-export": ".pt2"}


def pixels(count, channels, size, seed=1):
    return torch.randint(0, 256, (count, channels, size, size), dtype=torch.uint8, generator=generator_from(seed))


def untrained(folder, architecture="cnn_3_4", channels=1, size=8, *, seed=0, classes=10):
    """Write the file of an untrained student with batch statistics of random images. Return the student."""
    mean, std = (0.2, 0.4, 0.3)[:channels], (0.25, 0.3, 0.2)[:channels]
    with seeded(seed):
        model = build_model(architecture, num_classes=classes, in_channels=channels).train()
        with torch.no_grad():
            for number in range(3):
                model(Normaliser(mean, std, torch.device("cpu"))(pixels(8, channels, size, seed=number)))
    path = folder / f"{architecture}-{seed}.safetensors"
    save_model(model, path, metadata=CheckpointInfo(architecture, classes, channels, mean, std, "").to_metadata())
    images = pixels(2, channels, size, seed=9)
    write_tensors(example_path(path), {"images": images, "logits": load_student(path).logits(images)}, {})
    return load_kept(path)


@pytest.mark.conformance
@pytest.mark.parametrize("kind", SUFFIXES)
@pytest.mark.parametrize(("architecture", "channels", "size"), NETS)
def test_a_program_says_what_the_student_says_whatever_the_batch(tmp_path, kind, architecture, channels, size):
    kept = untrained(tmp_path, architecture, channels, size)
    path = tmp_path / f"student{SUFFIXES[kind]}"
    exported = export_student(kept, path, kind=kind, facts=FACTS)
    assert exported.path == path
    assert exported.size == path.stat().st_size
    assert exported.largest_difference < 1e-4
    assert set(exported.batches) >= {1, 2, 7}
    program = read_program(path, kind)
    for count in (1, 2, 7, 33):
        images = pixels(count, channels, size, seed=count)
        logits = program(images)
        assert logits.shape == (count, 10)
        torch.testing.assert_close(logits, kept.student.logits(images), atol=1e-4, rtol=1e-4)
    assert {each.name for each in tmp_path.iterdir() if "partial" in each.name} == set()


@pytest.mark.launcher
def test_an_onnx_file_says_what_it_takes_and_gives_and_needs_no_torch(tmp_path):
    kept = untrained(tmp_path)
    path = tmp_path / "student.onnx"
    export_student(kept, path, kind="onnx", facts=FACTS)
    onnx.checker.check_model(onnx.load(path), full_check=True)
    session = onnxruntime.InferenceSession(path)
    (takes,), (gives,) = session.get_inputs(), session.get_outputs()
    assert (takes.name, takes.type, takes.shape[1:]) == ("images", "tensor(uint8)", [1, 8, 8])
    assert (gives.name, gives.type, gives.shape[1:]) == ("logits", "tensor(float)", [10])
    assert takes.shape[0] == gives.shape[0] == "batch"
    sizes = [size for value in onnx.load(path).graph.value_info for size in value.type.tensor_type.shape.dim]
    assert {size.dim_param for size in sizes} == {"", "batch"}
    assert session.get_modelmeta().custom_metadata_map == FACTS  # the student has no class names
    program = (
        "import numpy, onnxruntime, sys\n"
        f"session = onnxruntime.InferenceSession({str(path)!r})\n"
        "(logits,) = session.run(None, {'images': numpy.zeros((3, 1, 8, 8), numpy.uint8)})\n"
        "assert 'torch' not in sys.modules and 'trainables' not in sys.modules\n"
        "print(logits.argmax(1).tolist())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    expected = kept.student.logits(torch.zeros(3, 1, 8, 8, dtype=torch.uint8)).argmax(dim=1).tolist()
    assert done.stdout.strip() == str(expected)


def test_a_saved_program_carries_its_facts(tmp_path):
    path = tmp_path / "student.pt2"
    export_student(untrained(tmp_path), path, kind="torch-export", facts=FACTS)
    told = {"pesfkd.json": ""}
    torch.export.load(path, extra_files=told)
    assert "study-0001" in str(told["pesfkd.json"])


def test_a_program_of_another_student_is_refused(tmp_path):
    path = tmp_path / "student.pt2"
    export_student(untrained(tmp_path, seed=0), path, kind="torch-export", facts=FACTS)
    with pytest.raises(ExportError, match=r"differs from the student on a batch of 2: logits differ by up to "):
        largest_difference(read_program(path, "torch-export"), untrained(tmp_path, seed=1))
    with pytest.raises(ExportError, match=r"shape \(2, 10\) instead of \(2, 7\)"):
        largest_difference(read_program(path, "torch-export"), untrained(tmp_path, seed=2, classes=7))


CALLS: list[int] = []


class Fickle(torch.nn.Module):
    """Returns other logits at each call, which no exported program can reproduce."""

    def forward(self, images):
        CALLS.append(1)
        return images.flatten(1)[:, :10] + len(CALLS)


@pytest.mark.study
@pytest.mark.parametrize("kind", SUFFIXES)
def test_nothing_is_left_of_a_program_that_says_something_else_and_what_was_there_stays(tmp_path, kind):
    info = CheckpointInfo("fickle", 10, 1, (0.0,), (1.0,), "")
    student, images = Student(Fickle(), info, ""), pixels(2, 1, 8)
    kept = KeptStudent(student, images, student.logits(images))
    path = tmp_path / f"student{SUFFIXES[kind]}"
    for before in (None, b"an older one"):
        if before is not None:
            path.write_bytes(before)
        with pytest.raises(ExportError, match="the exported program differs from the student"):
            export_student(kept, path, kind=kind, facts={})
        assert [each.read_bytes() for each in tmp_path.iterdir()] == ([before] if before else [])


class Undecided(torch.nn.Module):
    """Branches on the images, which no graph can express."""

    def forward(self, images):
        return images.flatten(1)[:, :10] if images.sum() > 0 else images.flatten(1)[:, 10:20]


def test_a_net_that_cannot_be_exported_is_named(tmp_path):
    student, images = Student(Undecided(), CheckpointInfo("undecided", 10, 1, (0.0,), (1.0,), ""), ""), pixels(2, 1, 8)
    with pytest.raises(ExportError, match="undecided cannot be exported as torch-export: "):
        export_student(
            KeptStudent(student, images, student.logits(images)), tmp_path / "s.pt2", kind="torch-export", facts={}
        )
    assert list(tmp_path.iterdir()) == []


def test_a_student_that_does_not_say_what_it_said_when_it_was_kept_is_refused(tmp_path):
    untrained(tmp_path)
    path = tmp_path / "cnn_3_4-0.safetensors"
    images = pixels(2, 1, 8, seed=9)
    write_tensors(example_path(path), {"images": images, "logits": load_student(path).logits(images) + 0.01}, {})
    with pytest.raises(StoredFileError, match="the loaded student gives other logits than the saved one"):
        load_kept(path)
