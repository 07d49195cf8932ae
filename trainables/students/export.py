"""A trained student as a program of its own: ONNX, or what `torch.export` saves; it runs without this package.

The program takes uint8 images (batch, C, H, W), of any batch and C, H and W those of the student's data, normalises
them itself and gives the logits (batch, classes). That of a student that reads text takes sentences (batch, 2, tokens)
int32, token ids and segment ids, of any batch and of as many tokens as the model knows; the tokeniser that makes them
goes with the program. The axes have these names in ONNX. The names of the classes go with the program too. A file gets
its name only after it was read back and answered as the student does.
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
from trainables.storage.tensors import atomic_file
from trainables.students.file import CLASS_NAMES, LOGITS_TOLERANCE, KeptStudent, Student
from trainables.teacher.card import TOKENISER, TOKENISER_FILE
from trainables.teacher.files import MODEL

ExportFormat = Literal["onnx", "torch-export"]

SUFFIXES: Final[dict[ExportFormat, str]] = {"onnx": ".onnx", "torch-export": ".pt2"}
IMAGES: Final = "images"
SENTENCES: Final = "sentences"
OUTPUT: Final = "logits"
# Names of the axes whose size is open.
BATCH: Final = "batch"
TOKENS: Final = "tokens"
# Sizes of the batches of random pixels, or tokens, that are compared beside the kept example. One is a case of its own:
# a batch of one may be squeezed away.
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
        batches: how many images, or sentences, the batches had that it was compared on.
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
        facts: about the student, for whoever opens the file: metadata of ONNX, `pesfkd.json` in the other format.
            The tokeniser of one that reads text lies beside them as `tokenizer.json`, the names of the classes as
            `class_names`, in JSON (in the other format `class_names.json`), if they are known.

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
    (takes,) = session.get_inputs()
    return lambda images: torch.from_numpy(session.run([OUTPUT], {takes.name: images.numpy()})[0])


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
        images = _random_sentences(kept, size, random) if kept.student.about else _random_images(kept, size, random)
        yield images, kept.student.logits(images)


def _random_images(kept: KeptStudent, size: int, random: torch.Generator) -> Tensor:
    return torch.randint(0, 256, (size, *kept.images.shape[1:]), dtype=torch.uint8, generator=random)


def _random_sentences(kept: KeptStudent, size: int, random: torch.Generator) -> Tensor:
    """Sentences (size, 2, L) of all lengths up to L, which differs with the size and is the longest one for one."""
    model = kept.student.model
    assert isinstance(model, TextClassifier)
    length = max(2, _longest(kept.student) // size)
    tokens = torch.randint(1, model.vocabulary_size, (size, length), generator=random)
    ends = torch.randint(2, length + 1, (size, 1), generator=random)
    places = torch.arange(length)
    segments = (places >= ends // 2) & (places < ends)
    return torch.stack([tokens * (places < ends), segments], dim=1).int()


def _longest(student: Student) -> int:
    """How many tokens a sentence may have."""
    return int(json.loads(student.about[MODEL])["max_position_embeddings"])


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


class _DeployedReader(nn.Module):
    """A student that reads text, by the name of what it takes."""

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.model = student.model

    def forward(self, sentences: Tensor) -> Tensor:
        """The logits (N, C) of sentences (N, 2, L) int32."""
        logits: Tensor = self.model(sentences)
        return logits


def _serialised(kept: KeptStudent, kind: ExportFormat, facts: Mapping[str, str]) -> bytes:
    student, sizes = kept.student, {0: Dim(BATCH, min=1)}
    deployed, takes = (_DeployedReader(student), SENTENCES) if student.about else (_Deployed(student), IMAGES)
    named = {0: BATCH}
    carried = {"pesfkd.json": json.dumps(dict(facts), sort_keys=True)} if kind == "torch-export" else dict(facts)
    if student.class_names:
        carried[CLASS_NAMES + (".json" if kind == "torch-export" else "")] = json.dumps(student.class_names)
    if student.about:
        sizes[2] = Dim(TOKENS, min=2, max=_longest(student))
        named[2] = TOKENS
        carried[TOKENISER_FILE] = student.about[TOKENISER]
    try:
        with _quietly(), torch.no_grad():
            program = torch.export.export(
                deployed.eval(),
                (kept.images,),  # two of them: of a batch of one, that would be taken for good
                dynamic_shapes={takes: sizes},
                strict=False,
            )
            return _as_onnx(program, takes, named, carried) if kind == "onnx" else _as_torch(program, carried)
    except Exception as error:  # whatever of PyTorch's exporters and the net at hand do not go together
        raise ExportError(f"{student.info.architecture} cannot be exported as {kind}: {_in_a_line(error)}") from error


def _as_torch(program: ExportedProgram, files: dict[str, str]) -> bytes:
    content = BytesIO()
    torch.export.save(program, content, extra_files=files)
    return content.getvalue()


def _as_onnx(program: ExportedProgram, takes: str, axes: Mapping[int, str], properties: dict[str, str]) -> bytes:
    import onnx

    written = torch.onnx.export(
        program, dynamo=True, input_names=[takes], output_names=[OUTPUT], external_data=False, verbose=False
    )
    assert written is not None
    model = written.model_proto
    _name_axes(model.graph, axes)
    onnx.helper.set_model_props(model, properties)
    content: bytes = model.SerializeToString()
    return content


def _name_axes(graph: Any, axes: Mapping[int, str]) -> None:
    """Name the sizes of an ONNX graph that its input leaves open, which the exporter numbers, in all of its tensors."""
    sizes = [size.dim_param for size in graph.input[0].type.tensor_type.shape.dim]
    names = {sizes[axis]: name for axis, name in axes.items() if sizes[axis]}
    for value in (*graph.input, *graph.output, *graph.value_info):
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param:  # an expression, such as 2*s34
                size.dim_param = re.sub(r"\w+", lambda found: names.get(found[0], found[0]), size.dim_param)


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the exporters' remarks to their own developers; some are printed among the JSON that we print."""
    with warnings.catch_warnings(), redirect_stdout(StringIO()):
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
