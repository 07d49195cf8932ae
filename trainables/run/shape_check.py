"""Check before a study, on two noise samples, that networks and methods accept the samples of a dataset.

A network's name does not show the accepted image sizes: some networks require 224 pixels, others shrink the feature
maps of small images to nothing. Each network is therefore built and run once in train mode and once in eval mode. For
methods with trainable parts, a teacher method, shared layers or matched feature maps, one training step is made as well
(for text, only the losses are computed). Weights are fresh and samples are noise, so only shapes and finiteness are
checked. Constant samples would divide by zero in networks that normalise each sample.

The error for a rejected network gives the reason and, if found, another network passing the same check.
"""

import math
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor

from trainables.data.dataset import Dataset, Split
from trainables.losses.parts import StepOutputs
from trainables.methods.method import Method, PartsSetting
from trainables.methods.registry import METHODS
from trainables.models import DistillationModel, build_model
from trainables.models.user_model_check import has_stages, user_model_problem
from trainables.process.global_generators import misuse_of_generators, use_of_generators
from trainables.process.randomness import generator_from, seeded
from trainables.run.run import DistillationRun
from trainables.run.workers import unshared_norms
from trainables.spec.architectures import (
    BERT_PATTERN,
    CIFAR_NAMES,
    CNN_EXAMPLES,
    CNN_PATTERN,
    LAYERS_PATTERN,
    LIBRARY_PATTERN,
    is_packable,
)
from trainables.spec.batch_sizes import batch_sizes
from trainables.spec.datasets import DatasetInfo
from trainables.spec.methods import is_own
from trainables.spec.teacher_trial import teacher_trial
from trainables.spec.trial import StudentLayers, TrialConfig
from trainables.steps.loss_log import LossLog
from trainables.teacher_outputs.frozen import FrozenTeacher
from trainables.user_code.errors import UserCodeError
from trainables.user_code.loading import describe, line_of, sources_of
from trainables.user_code.reference import canonical, is_canonical

if TYPE_CHECKING:
    from trainables.models.text import TextClassifier

_SAMPLES: Final = 2  # BatchNorm needs more than one value per channel
_VOCABULARY: Final = 32  # shapes do not depend on the vocabulary size
_LENGTH: Final = 16
DRAW_FROM_OUTPUTS: Final = "draw from outputs.generator"
_MOST_PARAMETERS: Final = 500_000_000  # BERT-large has 335 million
# Suggested if no related network fits. For the image zoo, the first fitting network is named.
_LIBRARY_FALLBACK: Final = "resnet18"
_ZOO_FALLBACKS: Final = ("resnet8", "resnet20", "cnn_8_16", "cnn_32_64")
# Explanations of library errors, by a pattern in the error message.
_MEANINGS: Final = (
    (r"more than 1 value per channel", "its maps shrink to one position, where BatchNorm needs two samples or more"),
    (r"[Oo]utput size is too small|[Kk]ernel size can't be greater|padded input size|non-positive|negative", "its maps "
     "shrink to nothing"),
    (r"Wrong image (?:height|width)! Expected (\d+)", "it takes images of {0} pixels alone"),
    (r"Input (?:height|width) \(\d+\) doesn't match model \((\d+)\)", "it takes images of {0} pixels alone"),
    (r"shape '\[.*\]' is invalid|cannot reshape|divisible", "it takes images of certain sizes alone"),
)  # fmt: skip


class ShapeError(ValueError):
    """Network does not accept the samples of a dataset; the message names flag, reason and remedy."""


@dataclass(frozen=True)
class Wanted:
    """Requirements on a network.

    Args:
        info: dataset description.
        batch_size: samples per training step.
        trains: whether the network is trained here, rather than only evaluated.
        shares_norms: whether several workers train the network together.
    """

    info: DatasetInfo
    batch_size: int = _SAMPLES
    trains: bool = True
    shares_norms: bool = False

    @property
    def samples(self) -> str:
        """Short description of the dataset's samples."""
        info = self.info
        if info.task is not None:
            return f"sentences of {info.name}"
        return f"images of {info.name}, {info.channels} x {info.image_size} x {info.image_size}"


def check_samples(info: DatasetInfo, batch_size: int) -> None:
    """Check that the train split has enough samples.

    Raises:
        ShapeError: if there are fewer than two samples.
    """
    try:
        batch_sizes(info.split_sizes[0], batch_size)
    except ValueError as error:
        raise ShapeError(f"--dataset {info.name}: {error}") from None


def check_network(name: str, wanted: Wanted, *, flag: str, given: bool = False) -> None:
    """Check that an architecture accepts the samples of a dataset and returns a feature and logits for them.

    Args:
        name: architecture name accepted by `check_model_name`.
        wanted: requirements on the network.
        flag: command-line flag for the network, such as `--student`, or `--search student=` for one of several.
        given: whether the weights come from a checkpoint; the advice then asks for another checkpoint.

    Raises:
        ShapeError: with the reason and, if found, another architecture that fits.
    """
    if is_canonical(name):
        try:
            sources_of(name)  # before the cache: lost sources may be restored
        except UserCodeError as error:
            raise ShapeError(f"{flag} {name}: {error}") from None
    reason = _problem(name, wanted)
    if reason is None:
        return
    advice = ""
    if "did you mean" not in reason.lower() and not is_canonical(name):
        fitting = next((other for other in relatives(name) if _problem(other, wanted) is None), None)
        if fitting is not None:
            advice = f". One that fits: {_argument(flag, fitting)}" + ", with a checkpoint of it" * given
    raise ShapeError(f"{_argument(flag, name)}: {reason}{advice}")


def _argument(flag: str, name: str) -> str:
    return f"{flag}{name}" if flag.endswith("=") else f"{flag} {name}"


def relatives(name: str) -> Iterator[str]:
    """Yield architectures to suggest instead of `name`, nearest first: same family, smaller before larger."""
    library = LIBRARY_PATTERN.fullmatch(name)
    if library:
        yield f"{library[1]}:{_LIBRARY_FALLBACK}"
    family = [each for each in CIFAR_NAMES if _family(each) == _family(name)]
    if name in family:
        place = family.index(name)
        yield from reversed(family[:place])
        yield from family[place + 1 :]
    elif _family(name) == _family(CNN_EXAMPLES[0]):
        yield from CNN_EXAMPLES
    yield from (each for each in _ZOO_FALLBACKS if each not in family)


def _family(name: str) -> str:
    return re.match(r"[A-Za-z]*", name)[0]  # type: ignore[index]


@cache
def _problem(name: str, wanted: Wanted) -> str | None:
    """Return why an architecture does not meet the requirements, or None if it does."""
    info = wanted.info
    if (reason := _too_large(name)) is not None:
        return reason
    samples = torch.randn(_SAMPLES, info.channels, info.image_size, info.image_size, generator=generator_from(0))
    if is_canonical(name):
        try:
            reason = user_model_problem(name, samples, num_classes=info.num_classes, trains=wanted.trains)
        except Exception as error:  # user code raises any type
            reason = f"it fails:\n{describe(error)}"
        if reason is not None:
            return reason
    try:
        with seeded(0), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # library warnings about names and initial weights
            model = build_model(name, num_classes=info.num_classes, in_channels=info.channels)
    except Exception as error:  # third-party libraries raise any type
        return _first_line(error) if isinstance(error, ValueError) else f"it cannot be built ({_named(error)})"
    if wanted.shares_norms and (norms := unshared_norms(model)):
        return (
            f"its {', '.join(norms)} cannot normalise over several workers: leave out --workers-per-trial or choose "
            "another network"
        )
    with seeded(0):
        return _problem_with(model, samples, wanted)


def _too_large(name: str) -> str | None:
    """Return why a network is too large to be built, or None; estimated from the layer sizes in the name."""
    parameters = 0
    if match := CNN_PATTERN.fullmatch(name):
        parameters = 9 * int(match[1]) * int(match[2])
    elif match := BERT_PATTERN.fullmatch(name):
        parameters = 12 * int(match[1]) * int(match[2]) ** 2
    if parameters <= _MOST_PARAMETERS:
        return None
    return (
        f"it has some {parameters / 1e6:,.0f} million parameters; networks of up to {_MOST_PARAMETERS / 1e6:,.0f} fit"
    )


def _problem_with(model: DistillationModel, samples: Tensor, wanted: Wanted) -> str | None:
    modes = [(True, min(_SAMPLES, wanted.batch_size))] * wanted.trains + [(False, _SAMPLES)]
    for training, count in modes:
        try:
            with torch.no_grad():
                feature = model.train(training).features(samples[:count])
                reason = _wrong_feature(model, feature, count)
                if reason is None:
                    reason = _wrong_logits(model.head(feature), count, wanted.info.num_classes)
        except Exception as error:  # third-party libraries raise any type
            reason = f"{_meaning(error)} ({_named(error)})"
            if count < _SAMPLES and "more than 1 value" in str(error):
                return f"{reason}; give --set batch_size=2, or more"
        if reason is not None:
            return f"it cannot take {wanted.samples}: {reason}"
    return None


def _wrong_feature(model: DistillationModel, feature: object, count: int) -> str | None:
    expected = (count, model.head.in_features)
    if not isinstance(feature, Tensor):
        return f"it gives a {type(feature).__name__} of outputs and is no plain classifier"
    if tuple(feature.shape) != expected:
        return f"its feature has shape {tuple(feature.shape)}, and its last layer takes {expected}"
    return None


def _wrong_logits(logits: Tensor, count: int, classes: int) -> str | None:
    if tuple(logits.shape) != (count, classes):
        return f"its logits have shape {tuple(logits.shape)} instead of {(count, classes)}"
    return None if bool(logits.isfinite().all()) else "its logits are not finite"


def _meaning(error: Exception) -> str:
    for pattern, meaning in _MEANINGS:
        if found := re.search(pattern, str(error)):
            return meaning.format(*found.groups())
    return "it fails on them"


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {_first_line(error)}"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0]


def check_method(config: TrialConfig, info: DatasetInfo, *, flag: str, packed: bool = False) -> None:
    """Check that a method can make a step with a trial's two networks. The networks must have passed their own checks.

    Args:
        config: config of a trial with this method.
        info: dataset description.
        flag: command-line flag for the method.
        packed: whether trials are packed.

    Raises:
        ShapeError: if the step fails, with the reason.
    """
    reason = method_problem(config, info, packed=packed)
    if reason is None:
        return
    if is_own(config.method):
        own = canonical(config.method)
        raise ShapeError(f"{flag} {own.title}:{own.name}: {reason}")
    advice = ""
    if info.task is None:
        others = "another method" if flag == "--method" else "name the other methods alone"
        advice = f". Choose networks of one family, such as --teacher resnet56 --student resnet20, or {others}"
    raise ShapeError(
        f"{flag} {config.method} cannot match teacher {config.teacher} and student {config.student} on "
        f"{Wanted(info).samples}: {reason}{advice}"
    )


@cache
def method_problem(config: TrialConfig, info: DatasetInfo, *, packed: bool = False) -> str | None:
    """Return why a method cannot make a step with two separately checked networks, or None if it can.

    Only user methods and methods with trainable parts, a teacher method, shared layers or matched feature maps are
    tried. The losses of all other methods see only features and logits.

    Args:
        config: config of a trial with this method.
        info: dataset description.
        packed: whether trials are packed.
    """
    method = METHODS[config.method]
    if not (
        is_own(config.method)
        or method.spec.needs_maps
        or method.parts is not None
        or method.teacher_method is not None
        or method.spec.shares_layers
    ):
        return None
    try:
        with seeded(0):
            if (reason := _without_maps(config, info, method)) is not None:
                return reason
            attempt = partial(_try_on_images if info.task is None else _try_on_text, config, info, method)
            attempt()
            if is_own(config.method):
                # The networks were checked before, so only the method may still draw from other generators than
                # torch's.
                reason = misuse_of_generators(use_of_generators(attempt), remedy=DRAW_FROM_OUTPUTS)
                if not reason and packed and info.task is None and is_packable(config.student):
                    reason = _misuse_in_packs(config, info, method)
                return f"a step {reason}" if reason else None
    except UserCodeError as error:
        return str(error)
    except Exception as error:  # third-party libraries raise any type
        if is_own(config.method) and line_of(error) is not None:
            return f"a step on noise raises an error:\n{describe(error)}"
        return _first_line(error)
    return None


def _without_maps(config: TrialConfig, info: DatasetInfo, method: Method) -> str | None:
    """Return the user network that gives no maps although the method needs them, or None."""
    if not (method.spec.needs_maps or method.spec.teacher_fields):
        return None
    for who, name in (("student", config.student), ("teacher", config.teacher)):
        if is_canonical(name) and not has_stages(
            build_model(name, num_classes=info.num_classes, in_channels=info.channels)
        ):
            return (
                f"the {who} {name} gives no maps of its stages: name the modules on the network, such as self.stages = "
                '["layer1", "layer2"]'
            )
    return None


def _try_on_images(config: TrialConfig, info: DatasetInfo, method: Method) -> None:
    dataset = _noise(info, config.split_seed, max(_SAMPLES, method.spec.smallest_batch))
    if method.teacher_method is not None:
        _make_step(teacher_trial(config), dataset, None, method.teacher_method)
    model = build_model(config.teacher, num_classes=info.num_classes, in_channels=info.channels)
    _make_step(config, dataset, FrozenTeacher(model), method)


def _misuse_in_packs(config: TrialConfig, info: DatasetInfo, method: Method) -> str:
    """Return a clause on the losses' draws from torch's global generator, which packed students do not use."""
    dataset = _noise(info, config.split_seed, max(_SAMPLES, method.spec.smallest_batch))
    model = build_model(config.teacher, num_classes=info.num_classes, in_channels=info.channels)
    run = _started(config, dataset, FrozenTeacher(model), method)
    batch, log = next(iter(run.batches.of_epoch(0, None))), LossLog(None)
    used = use_of_generators(lambda: run.train_batch(batch, log))
    return misuse_of_generators(used, remedy=DRAW_FROM_OUTPUTS, packed=True)


def _started(config: TrialConfig, dataset: Dataset, teacher: FrozenTeacher | None, method: Method) -> DistillationRun:
    """Return a trial, ready for the first batch."""
    # The check runs in float32 for every precision, because shapes are the same.
    config = config.model_copy(update={"precision": "fp32", "batch_size": len(dataset.train)})
    run = DistillationRun(config, dataset, teacher, method=method)
    run.begin_drawing()
    for trainer in run.trainers.values():
        trainer.module.train()
        trainer.begin_epoch(0)
    return run


def _make_step(config: TrialConfig, dataset: Dataset, teacher: FrozenTeacher | None, method: Method) -> None:
    run, log = _started(config, dataset, teacher, method), LossLog(None)
    for batch in run.batches.of_epoch(0, None):
        run.train_batch(batch, log)
    if is_own(config.method):
        _check_losses(log, config)


def _check_losses(log: LossLog, config: TrialConfig) -> None:
    """Check that a user method's losses are finite and have the usual names.

    Raises:
        UserCodeError: with the reason.
    """
    losses = log.read()
    expected = ["ce", *(["kd"] if "kd_weight" in config.method_spec.fields else [])]
    if missing := [name for name in expected if name not in losses.names]:
        named = ", ".join(f"{each}={each}" for each in expected)
        raise UserCodeError(
            f"the losses return no {missing[0]}: return LossParts(total, {named}), so that each part is recorded"
        )
    for name, value in zip(losses.names, losses.values[0].tolist(), strict=True):
        if not math.isfinite(value):
            raise UserCodeError(f"the loss {name} of a step on noise is {value}: it must be finite for any logits")


def _noise(info: DatasetInfo, seed: int, samples: int) -> Dataset:
    """Return a dataset with a few noise images and different labels."""
    size = info.stored_size
    pixels = torch.randint(
        256, (samples, info.channels, size, size), dtype=torch.uint8, generator=generator_from(0)
    )  # fmt: skip
    labels = torch.arange(samples) % info.num_classes
    split = Split(pixels, labels, torch.arange(samples), image_size=info.image_size)
    return Dataset(info, train=split, validation=split, read_test=lambda: split, seed=seed, digest="noise")


def check_text_network(name: str, teacher: str, info: DatasetInfo, *, layers: StudentLayers, flag: str) -> None:
    """Check that a language model can be built and returns a feature and logits for sentences.

    Args:
        name: name accepted by `check_text_model_name`. A folder must exist, a Hub model must be in the Hub's cache.
        teacher: model with the layers for `bert:N`.
        info: task description.
        layers: which layers `bert:N` takes.
        flag: command-line flag for the network.

    Raises:
        ShapeError: with the reason, if the check fails.
    """
    reason = _text_problem(name, teacher, info, layers)
    if reason is not None:
        raise ShapeError(f"{_argument(flag, name)}: {reason}")


@cache
def _text_problem(name: str, teacher: str, info: DatasetInfo, layers: StudentLayers) -> str | None:
    if (reason := _too_large(name)) is not None:
        return reason
    try:
        with seeded(0):
            model = _text_model(name, teacher, info.num_classes, layers)
    except Exception as error:  # the library raises any type
        return _first_line(error) if isinstance(error, ValueError) else f"it cannot be built ({_named(error)})"
    with seeded(0):
        return _problem_with(model, _sentences(), Wanted(info))


@torch.no_grad()
def _try_on_text(config: TrialConfig, info: DatasetInfo, method: Method) -> None:
    """Compute a method's losses once with two language models."""
    values, sentences, labels = config.model_dump(), _sentences(), torch.arange(_SAMPLES) % info.num_classes
    student = _text_model(config.student, config.teacher, info.num_classes, config.student_layers)
    teacher = _text_model(config.teacher, config.teacher, info.num_classes, config.student_layers)
    if method.spec.shares_layers:
        from trainables.models.text import share_layers

        share_layers(student)
    own, theirs = student.feature_maps(sentences), teacher.feature_maps(sentences)
    setting = PartsSetting(student.head.in_features, teacher.head.in_features, labels)
    outputs = StepOutputs(
        own.feature, own.logits, theirs.feature, theirs.logits, parts=method.build_parts(values, setting),
        student_maps=own.maps, teacher_maps=theirs.maps,
    )  # fmt: skip
    method.objective(values)(outputs, labels)


def _sentences() -> Tensor:
    """Return sentences (B, 2, L) with a single repeated token."""
    sentences = torch.ones(_SAMPLES, 2, _LENGTH, dtype=torch.int32)
    sentences[:, 1] = 0
    return sentences


def _text_model(name: str, teacher: str, classes: int, layers: StudentLayers) -> "TextClassifier":
    """Build a language model with fresh weights and a small vocabulary."""
    from trainables.models.pretrained import find_folder, read_config  # imports transformers
    from trainables.models.text import build_bert, build_described, description_of, student_of_layers

    if BERT_PATTERN.fullmatch(name):
        return build_bert(name, num_classes=classes, vocabulary_size=_VOCABULARY)
    if match := LAYERS_PATTERN.fullmatch(name):
        whole = _text_model(teacher, teacher, classes, layers)
        return student_of_layers(whole, int(match[1]), which=layers)
    description = description_of(read_config(find_folder(name)))
    return build_described({**description, "vocab_size": _VOCABULARY}, num_classes=classes)
