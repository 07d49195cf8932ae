"""A trained student as a program of its own: ONNX, or what `torch.export` saves; it runs without this package.

The program takes uint8 images (N, C, H, W), N of any size and C, H and W those of the student's data, normalises them
itself and gives the logits (N, classes). A file gets its name only after it was read back and answered as the student
does.
"""

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Final, Literal

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from trainables.data.views import Normaliser
from trainables.randomness import generator_from
from trainables.storage import atomic_file
from trainables.student_file import LOGITS_TOLERANCE, KeptStudent, Student

ExportFormat = Literal["onnx", "torch-export"]

SUFFIXES: Final[dict[ExportFormat, str]] = {"onnx": ".onnx", "torch-export": ".pt2"}
INPUT: Final = "images"
OUTPUT: Final = "logits"
# Sizes of the batches of random pixels that are compared beside the kept example. One is a case of its own: a batch of
# one may be squeezed away.
CHECKED_BATCHES: Final = (1, 2, 7)
_SEED: Final = 0

Program = Callable[[Tensor], Tensor]


class ExportError(ValueError):
    """A student that cannot be exported, or whose program says something else than it."""


@dataclass(frozen=True)
class ExportedStudent:
    """A program in a file that was read back and compared.

    Args:
        path: the file.
        size: its bytes.
        batches: how many images the batches had that it was compared on.
        largest_difference: between a logit of its and the student's.
    """

    path: Path
    size: int
    batches: tuple[int, ...]
    largest_difference: float


def export_student(
    kept: KeptStudent,
    path: Path,
    *,
    kind: ExportFormat,
    facts: Mapping[str, str],
) -> ExportedStudent:
    """Write a student as a program, read it back, and compare what both say.

    Args:
        kept: the student and its example.
        path: the file; one that is there is replaced, once the new one is found good.
        kind: its format.
        facts: about the student, for whoever opens the file.

    Raises:
        ExportError: it cannot be exported, or the program that was read back says something else than the student;
            the path is then as it was.
        OSError: it cannot be written.
    """
    content = _serialised(kept, kind, facts)
    with atomic_file(path) as file:
        file.write(content)
        file.flush()
        difference = largest_difference(read_program(Path(file.name), kind), kept)
    batches = (len(kept.images), *CHECKED_BATCHES)
    return ExportedStudent(path, len(content), batches, difference)


def read_program(path: Path, kind: ExportFormat) -> Program:
    """An exported program, on the CPU.

    A file of `torch-export` holds pickles: read none that you do not trust.

    Args:
        path: the file.
        kind: its format.
    """
    if kind == "torch-export":
        with path.open("rb") as file, _quietly():
            return torch.export.load(BytesIO(file.read())).module()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # a few images
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run([OUTPUT], {INPUT: images.numpy()})[0])


@torch.no_grad()
def largest_difference(program: Program, kept: KeptStudent) -> float:
    """By how much a program's logits differ from a student's: on its example, and on random pixels in other batches.

    Raises:
        ExportError: by more than `LOGITS_TOLERANCE`, absolutely and of the logit together.
    """
    largest = 0.0
    for images, expected in _questions(kept):
        try:
            found = program(images)
        except Exception as error:  # of whichever library runs it
            raise ExportError(f"the program fails on a batch of {len(images)}: {_in_a_line(error)}") from error
        if found.shape != expected.shape or not torch.allclose(
            found, expected, atol=LOGITS_TOLERANCE, rtol=LOGITS_TOLERANCE
        ):
            how = f"shape {tuple(found.shape)} instead of {tuple(expected.shape)}"
            if found.shape == expected.shape:
                how = f"logits up to {float((found - expected).abs().max()):.2g} off"
            raise ExportError(
                f"the program that was read back says something else than the student on a batch of {len(images)}: "
                f"{how}, where {LOGITS_TOLERANCE:g} + {LOGITS_TOLERANCE:g} of the logit is allowed"
            )
        largest = max(largest, float((found - expected).abs().max()))
    return largest


def _questions(kept: KeptStudent) -> Iterator[tuple[Tensor, Tensor]]:
    yield kept.images, kept.logits
    random = generator_from(_SEED)
    for size in CHECKED_BATCHES:
        shape = (size, *kept.images.shape[1:])
        images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=random)
        yield images, kept.student.logits(images)


class _Deployed(nn.Module):
    """A student that normalises its images itself."""

    scale: Tensor
    shift: Tensor

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.model = student.model
        normalise = Normaliser(student.info.mean, student.info.std, torch.device("cpu"))
        self.register_buffer("scale", normalise.scale)
        self.register_buffer("shift", normalise.shift)

    def forward(self, images: Tensor) -> Tensor:
        """The logits (N, C) of images (N, channels, H, W) uint8."""
        logits: Tensor = self.model(torch.addcmul(self.shift, images.to(torch.float32), self.scale))
        return logits


def _serialised(kept: KeptStudent, kind: ExportFormat, facts: Mapping[str, str]) -> bytes:
    architecture = kept.student.info.architecture
    try:
        with _quietly(), torch.no_grad():
            program = torch.export.export(
                _Deployed(kept.student).eval(),
                (kept.images,),  # two of them: of a batch of one, that would be taken for good
                dynamic_shapes={INPUT: {0: Dim("batch", min=1)}},
                strict=False,
            )
            return _as_onnx(program, facts) if kind == "onnx" else _as_torch(program, facts)
    except Exception as error:  # whatever of PyTorch's exporters and the net at hand do not go together
        raise ExportError(f"{architecture} cannot be exported as {kind}: {_in_a_line(error)}") from error


def _as_torch(program: ExportedProgram, facts: Mapping[str, str]) -> bytes:
    content = BytesIO()
    torch.export.save(program, content, extra_files={"pesfkd.json": json.dumps(dict(facts), sort_keys=True)})
    return content.getvalue()


def _as_onnx(program: ExportedProgram, facts: Mapping[str, str]) -> bytes:
    import onnx

    written = torch.onnx.export(
        program, dynamo=True, input_names=[INPUT], output_names=[OUTPUT], external_data=False, verbose=False
    )
    assert written is not None
    model = written.model_proto
    onnx.helper.set_model_props(model, dict(facts))
    content: bytes = model.SerializeToString()
    return content


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the exporters' remarks to their own developers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)


def _in_a_line(error: Exception) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__
