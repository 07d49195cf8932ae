"""Request from the teacher command line, checked before any heavy import."""

import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from pydantic import ValidationError

from trainables.data.registry import dataset_info
from trainables.process.errors import UsageError
from trainables.spec.architectures import (
    LIBRARY_PATTERN,
    absolute_name,
    check_model_name,
    check_text_model_name,
    is_model_code,
)
from trainables.spec.datasets import expand_home, is_code
from trainables.spec.modality import is_text
from trainables.spec.own_data import short_name
from trainables.spec.precision import Precision, resolve_precision
from trainables.spec.recipes import TeacherRecipe, find_recipe
from trainables.spec.teacher_trial import training_config
from trainables.spec.trial import TrialConfig
from trainables.user_code.installed import installed_reference
from trainables.user_code.loading import canonical_name

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,149}")
_DEVICE: Final = re.compile(r"cpu|cuda(:[0-9]{1,3})?")
_MOST_THREADS: Final = 1024
_FLAGS: Final = {"student": "model", "data_seed": "seed"}


class RequestError(UsageError):
    """Invalid request. The message gives the rejected value, the allowed values and a remedy."""


@dataclass(frozen=True)
class TeacherRequest:
    """Request to train one teacher. Equal requests give equal weights, on the CPU bit for bit.

    Args:
        dataset: canonical name.
        model: architecture.
        recipe: training recipe.
        seed: seed for the weights and the batch order.
        split_seed: seed for the data splits.
        precision: convolution precision.
        device: device to train on.
        threads: CPU thread count. The number changes the last bits of sums.
        pretrained: whether to start from the weights published by torchvision or timm.
    """

    dataset: str
    model: str
    recipe: TeacherRecipe
    seed: int
    split_seed: int
    precision: Precision
    device: str
    threads: int
    pretrained: bool

    @property
    def default_name(self) -> str:
        """Teacher name if the user gives none."""
        recipe = f"{self.recipe.name}-{self.recipe.epochs}-seed{self.seed}" + "-pretrained" * self.pretrained
        return re.sub(r"[^A-Za-z0-9._-]+", "-", f"{short_name(self.dataset)}-{self.model}-{recipe}").lstrip("-._")[:150]

    @property
    def values(self) -> dict[str, Any]:
        """All values by flag name, with underscores."""
        own = {name: value for name, value in asdict(self).items() if name != "recipe"}
        recipe = asdict(self.recipe)
        return {**own, "recipe": recipe.pop("name"), **recipe}

    @property
    def description(self) -> str:
        """Request description for the user."""
        recipe = self.recipe
        steps = ", ".join(map(str, recipe.milestones))
        return (
            f"{self.model} on {short_name(self.dataset)}, recipe {recipe.name}: {optimiser_name(self.dataset)} at "
            f"{recipe.learning_rate:g} ({recipe.schedule}"
            + (f", divided by 10 after epochs {steps}" if steps else "")
            + f"), momentum {recipe.momentum:g}, weight decay {recipe.weight_decay:g}, batch {recipe.batch_size}, "
            f"{recipe.epochs} epochs, seed {self.seed}, {self.precision} on {self.device}"
        )

    @property
    def command(self) -> str:
        """Command for training this teacher, independent of future defaults."""
        words = ["python", "-m", "trainables.teacher"]
        for name, value in self.values.items():
            flag = f"--{name.replace('_', '-')}"
            words += [flag, str(value)] if not isinstance(value, bool) else [flag] * value
        return shlex.join(words)

    def training_config(self) -> TrialConfig:
        """Return the trial config for the training."""
        return training_config(
            self.recipe,
            dataset=self.dataset,
            model=self.model,
            seed=self.seed,
            split_seed=self.split_seed,
            precision=self.precision,
        )


def optimiser_name(dataset: str) -> str:
    """Return the optimiser name for teachers on a dataset, for the user."""
    return "AdamW" if is_text(dataset) else "SGD"


def resolve_request(
    *,
    dataset: str,
    model: str,
    recipe: str,
    overrides: dict[str, Any],
    seed: int,
    split_seed: int,
    precision: str,
    device: str,
    threads: int,
    pretrained: bool = False,
) -> TeacherRequest:
    """Check the values of the command line and return the request.

    Args:
        dataset: canonical name.
        model: architecture.
        recipe: literature, short or one_cycle.
        overrides: replacement values for recipe fields. None keeps the recipe's value.
        seed: training seed.
        split_seed: seed for the data splits.
        precision: auto, fp32 or bf16.
        device: cpu, cuda or cuda:N.
        threads: CPU thread count.
        pretrained: whether to start from published weights.

    Raises:
        RequestError: some values are invalid. The message has one line per recipe value out of bounds.
    """
    try:
        with _named("dataset"):
            dataset = canonical_name(dataset) if is_code(dataset) else expand_home(dataset)
            size = dataset_info(dataset).image_size
        with _named("model"):
            model = absolute_name(check_text_model_name(model)) if is_text(dataset) else _image_model(model)
        found = find_recipe(recipe, dataset=dataset, model=model)
        if not _DEVICE.fullmatch(device):
            raise ValueError(f"--device {device!r}: use cpu, cuda or cuda:N")
        if not 1 <= threads <= _MOST_THREADS:
            raise ValueError(f"--threads {threads}: use 1 to {_MOST_THREADS}")
        if pretrained and not LIBRARY_PATTERN.fullmatch(model):
            raise ValueError(f"--pretrained: weights are published for torchvision:NAME and timm:NAME, not for {model}")
        with _named("precision"):
            resolved = resolve_precision(precision, student=model, image_size=size, device=device)
    except ValueError as error:
        raise RequestError(str(error)) from None
    found = replace(found, **{name: value for name, value in overrides.items() if value is not None})
    request = TeacherRequest(dataset, model, found, seed, split_seed, resolved, device, threads, pretrained)
    try:
        request.training_config()
    except ValidationError as error:
        raise RequestError("\n".join(dict.fromkeys(map(_error_message, error.errors())))) from None
    return request


@contextmanager
def _named(flag: str) -> Iterator[None]:
    """Name the flag in an error from the block."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"--{flag}: {error}") from None


def _image_model(model: str) -> str:
    """Return the name of a known model, or the canonical name of a user network such as `net.py:make`."""
    model = installed_reference("model", model, is_ours=_is_known_model) or model
    if is_model_code(model):
        return canonical_name(model)
    return check_model_name(model)


def _is_known_model(name: str) -> bool:
    try:
        check_model_name(name)
    except ValueError:
        return False
    return True


def check_name(name: str) -> str:
    """Return `name` if it is a valid folder name.

    Raises:
        RequestError: the name is invalid.
    """
    if not _NAME.fullmatch(name):
        raise RequestError(
            f"--name {name!r}: use 1 to 150 letters, digits, '.', '_' or '-', starting with a letter or digit"
        )
    return name


def _error_message(finding: Any) -> str:
    message = str(finding["msg"]).removeprefix("Value error, ")
    if not finding["loc"]:
        return message
    field = str(finding["loc"][0])
    flag = _FLAGS.get(field, field.removeprefix("student_").replace("_", "-"))
    return f"--{flag}: {message} (given: {finding['input']!r})"
