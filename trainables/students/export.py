"""Export of a trained student as a standalone program (ONNX or `torch.export`), independent of this package.

For images, the program takes uint8 (batch, C, H, W) with any batch size and the C, H and W of the student's data.
Normalisation is part of the program, and the output is logits (batch, classes). For text, the program takes sentences
(batch, 2, tokens), int32, with token ids and segment ids. The batch size is free, and the number of tokens is limited
by the model. In ONNX, the variable axes are named `batch` and `tokens`. Class names and, for text, the tokeniser are
stored with the program. The file gets the final name only after the program has been read back and checked against the
student's logits.
"""

import json
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any, Final, Literal

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from trainables.data.views import Normaliser
from trainables.models.text import TextClassifier
from trainables.process.randomness import generator_from
from trainables.storage.atomic import atomic_file
from trainables.students.file import CLASS_NAMES, LOGITS_TOLERANCE, KeptStudent, Student
from trainables.teacher.card import TOKENISER, TOKENISER_FILE
from trainables.teacher.files import MODEL

ExportFormat = Literal["onnx", "torch-export"]

IMAGES: Final = "images"
SENTENCES: Final = "sentences"
OUTPUT: Final = "logits"
# Names for the axes with variable size.
BATCH: Final = "batch"
TOKENS: Final = "tokens"
# Sizes of the random batches to compare, in addition to the stored example. Size one is a special case, because the
# batch axis may be squeezed away.
CHECKED_BATCHES: Final = (1, 2, 7)
_SEED: Final = 0

Program = Callable[[Tensor], Tensor]


class ExportError(ValueError):
    """Student cannot be exported, or the program's logits differ from the student's."""


@dataclass(frozen=True)
class ExportedStudent:
    """Exported program in a file, read back and compared with the student.

    Args:
        path: file path.
        size: file size in bytes.
        batches: compared batch sizes, in images or sentences.
        largest_difference: largest absolute difference between the program's and the student's logits.
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
    """Export a student as a program, read the program back, and compare both on the same inputs.

    Args:
        kept: the student and the example stored with it.
        path: program path. An existing file is replaced only after the new program has been checked.
        kind: export format.
        facts: facts about the student, stored as metadata in ONNX and as `pesfkd.json` in the other format. For text,
            the tokeniser is stored next to the facts as `tokenizer.json`. Class names, if known, are stored in JSON as
            `class_names` (`class_names.json` in the other format).

    Raises:
        ExportError: if the student cannot be exported, or if the program's logits differ from the student's. The
            path is then unchanged.
        OSError: if the file cannot be written.
    """
    content = program_of(kept, kind, facts)
    with atomic_file(path) as file:
        file.write(content)
        file.flush()
        difference = largest_difference(read_program(Path(file.name), kind), kept)
    batches = (len(kept.images), *CHECKED_BATCHES)
    return ExportedStudent(path, len(content), batches, difference)


def read_program(path: Path, kind: ExportFormat) -> Program:
    """Load an exported program on the CPU.

    Files of `torch-export` contain pickles, so read only trusted files.

    Args:
        path: program path.
        kind: export format.
    """
    if kind == "torch-export":
        with path.open("rb") as file, silenced():
            return torch.export.load(BytesIO(file.read())).module()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # inputs are small
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (model_input,) = session.get_inputs()
    return lambda images: torch.from_numpy(session.run([OUTPUT], {model_input.name: images.numpy()})[0])


@torch.no_grad()
def largest_difference(program: Program, kept: KeptStudent) -> float:
    """Compare a program with a student on the stored example and on random inputs with other batch sizes.

    Returns:
        Largest absolute difference between two logits.

    Raises:
        ExportError: if the program fails, or if a logit differs by more than `LOGITS_TOLERANCE` * (1 + |logit|).
    """
    largest = 0.0
    for images, expected in _test_batches(kept):
        try:
            found = program(images)
        except Exception as error:  # any runtime library may raise any type
            raise ExportError(f"the program fails on a batch of {len(images)}: {_one_line(error)}") from error
        if found.shape != expected.shape or not torch.allclose(
            found, expected, atol=LOGITS_TOLERANCE, rtol=LOGITS_TOLERANCE
        ):
            how = f"shape {tuple(found.shape)} instead of {tuple(expected.shape)}"
            if found.shape == expected.shape:
                how = f"logits differ by up to {float((found - expected).abs().max()):.2g}"
            raise ExportError(
                f"the exported program differs from the student on a batch of {len(images)}: {how}; the tolerance is "
                f"{LOGITS_TOLERANCE:g} + {LOGITS_TOLERANCE:g} x |logit|"
            )
        largest = max(largest, float((found - expected).abs().max()))
    return largest


def _test_batches(kept: KeptStudent) -> Iterator[tuple[Tensor, Tensor]]:
    yield kept.images, kept.logits
    random = generator_from(_SEED)
    for size in CHECKED_BATCHES:
        images = _random_sentences(kept, size, random) if kept.student.about else _random_images(kept, size, random)
        yield images, kept.student.logits(images)


def _random_images(kept: KeptStudent, size: int, random: torch.Generator) -> Tensor:
    return torch.randint(0, 256, (size, *kept.images.shape[1:]), dtype=torch.uint8, generator=random)


def _random_sentences(kept: KeptStudent, size: int, random: torch.Generator) -> Tensor:
    """Return sentences (size, 2, L) with lengths from 2 to L; L depends on the size and is the maximum for size 1."""
    model = kept.student.model
    assert isinstance(model, TextClassifier)
    length = max(2, _max_tokens(kept.student) // size)
    tokens = torch.randint(1, model.vocabulary_size, (size, length), generator=random)
    ends = torch.randint(2, length + 1, (size, 1), generator=random)
    places = torch.arange(length)
    segments = (places >= ends // 2) & (places < ends)
    return torch.stack([tokens * (places < ends), segments], dim=1).int()


def _max_tokens(student: Student) -> int:
    """Return the maximum number of tokens per sentence."""
    return int(json.loads(student.about[MODEL])["max_position_embeddings"])


class _Deployed(nn.Module):
    """Student for images with normalisation included."""

    scale: Tensor
    shift: Tensor

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.model = student.model
        normalise = Normaliser(student.info.mean, student.info.std, torch.device("cpu"))
        self.register_buffer("scale", normalise.scale)
        self.register_buffer("shift", normalise.shift)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, C) for images (N, channels, H, W), uint8."""
        logits: Tensor = self.model(torch.addcmul(self.shift, images.to(torch.float32), self.scale))
        return logits


class _DeployedTextModel(nn.Module):
    """Text student, with the program's input name as the argument name."""

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.model = student.model

    def forward(self, sentences: Tensor) -> Tensor:
        """Return the logits (N, C) for sentences (N, 2, L), int32."""
        logits: Tensor = self.model(sentences)
        return logits


def program_of(kept: KeptStudent, kind: ExportFormat, facts: Mapping[str, str]) -> bytes:
    """Return a student's program as file content, unchecked.

    Args:
        kept: the student, with an example.
        kind: export format.
        facts: facts about the student, as in `export_student`.

    Raises:
        ExportError: if the student cannot be exported.
    """
    student, sizes = kept.student, {0: Dim(BATCH, min=1)}
    deployed, input_name = (_DeployedTextModel(student), SENTENCES) if student.about else (_Deployed(student), IMAGES)
    named = {0: BATCH}
    extra = {"pesfkd.json": json.dumps(dict(facts), sort_keys=True)} if kind == "torch-export" else dict(facts)
    if student.class_names:
        extra[CLASS_NAMES + (".json" if kind == "torch-export" else "")] = json.dumps(student.class_names)
    if student.about:
        sizes[2] = Dim(TOKENS, min=2, max=_max_tokens(student))
        named[2] = TOKENS
        extra[TOKENISER_FILE] = student.about[TOKENISER]
    try:
        with silenced(), torch.no_grad():
            program = torch.export.export(
                deployed.eval(),
                (kept.images,),  # two samples, because with one the exporter would fix the batch size
                dynamic_shapes={input_name: sizes},
                strict=False,
            )
            return _as_onnx(program, input_name, named, extra) if kind == "onnx" else _as_torch(program, extra)
    except Exception as error:  # PyTorch's exporters raise any type for an unsupported network
        raise ExportError(f"{student.info.architecture} cannot be exported as {kind}: {_one_line(error)}") from error


def _as_torch(program: ExportedProgram, files: dict[str, str]) -> bytes:
    content = BytesIO()
    torch.export.save(program, content, extra_files=files)
    return content.getvalue()


def _as_onnx(program: ExportedProgram, input_name: str, axes: Mapping[int, str], properties: dict[str, str]) -> bytes:
    import onnx

    written = torch.onnx.export(
        program, dynamo=True, input_names=[input_name], output_names=[OUTPUT], external_data=False, verbose=False
    )
    assert written is not None
    model = written.model_proto
    _name_axes(model.graph, axes)
    onnx.helper.set_model_props(model, properties)
    content: bytes = model.SerializeToString()
    return content


def _name_axes(graph: Any, axes: Mapping[int, str]) -> None:
    """Rename the variable sizes in all tensors of an ONNX graph; the exporter gives them numbered names."""
    sizes = [size.dim_param for size in graph.input[0].type.tensor_type.shape.dim]
    names = {sizes[axis]: name for axis, name in axes.items() if sizes[axis]}
    for value in (*graph.input, *graph.output, *graph.value_info):
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param:  # may be an expression, such as 2*s34
                size.dim_param = re.sub(r"\w+", lambda found: names.get(found[0], found[0]), size.dim_param)


@contextmanager
def silenced() -> Iterator[None]:
    """Suppress developer messages of the exporters, because some would be printed between our JSON output."""
    with warnings.catch_warnings(), redirect_stdout(StringIO()):
        warnings.simplefilter("ignore")
        before = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)


def _one_line(error: Exception) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__
