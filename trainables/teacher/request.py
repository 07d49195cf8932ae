"""What the teacher's command line asks for, checked before anything heavy is imported."""

import re
import shlex
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from pydantic import ValidationError

from trainables.data.registry import dataset_info
from trainables.spec.architectures import LIBRARY_PATTERN, absolute_name, check_model_name, check_text_model_name
from trainables.spec.datasets import expand_home
from trainables.spec.modality import is_text
from trainables.spec.precision import Precision, resolve_precision
from trainables.spec.recipes import TeacherRecipe, find_recipe
from trainables.spec.teacher_trial import training_config
from trainables.spec.trial import TrialConfig

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,149}")
_DEVICE: Final = re.compile(r"cpu|cuda(:[0-9]{1,3})?")
_MOST_THREADS: Final = 1024


_FLAGS: Final = {"student": "model", "data_seed": "seed"}


class RequestError(ValueError):
    """What was asked for cannot be done: says what was given, what is allowed and what to do."""


@dataclass(frozen=True)
class TeacherRequest:
    """One teacher to train; equal requests give equal weights, to the bit on CPU.

    Args:
        dataset: canonical name.
        model: architecture.
        recipe: how it is trained.
        seed: draws its weights and its batch order.
        split_seed: draws the data's splits.
        precision: of the convolutions.
        device: where it runs.
        threads: of the CPU; sums differ in their last bits with their number.
        pretrained: begins with the weights that torchvision or timm publish.
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
        """What the teacher is called unless it is named."""
        recipe = f"{self.recipe.name}-{self.recipe.epochs}-seed{self.seed}" + "-pretrained" * self.pretrained
        return re.sub(r"[^A-Za-z0-9._-]+", "-", f"{self.dataset}-{self.model}-{recipe}").lstrip("-._")[:150]

    @property
    def values(self) -> dict[str, Any]:
        """Everything by the name of its flag, with underscores."""
        own = {name: value for name, value in asdict(self).items() if name != "recipe"}
        recipe = asdict(self.recipe)
        return {**own, "recipe": recipe.pop("name"), **recipe}

    @property
    def description(self) -> str:
        """All of it for a person."""
        recipe = self.recipe
        steps = ", ".join(map(str, recipe.milestones))
        return (
            f"{self.model} on {self.dataset}, recipe {recipe.name}: {optimiser_name(self.dataset)} at "
            f"{recipe.learning_rate:g} ({recipe.schedule}"
            + (f", a tenth after each of {steps}" if steps else "")
            + f"), momentum {recipe.momentum:g}, weight decay {recipe.weight_decay:g}, batch {recipe.batch_size}, "
            f"{recipe.epochs} epochs, seed {self.seed}, {self.precision} on {self.device}"
        )

    @property
    def command(self) -> str:
        """What to type to train this teacher, whatever the defaults may be then."""
        words = ["python", "-m", "trainables.teacher"]
        for name, value in self.values.items():
            flag = f"--{name.replace('_', '-')}"
            words += [flag, str(value)] if not isinstance(value, bool) else [flag] * value
        return shlex.join(words)

    def training_config(self) -> TrialConfig:
        """The trial that the training is."""
        return training_config(
            self.recipe,
            dataset=self.dataset,
            model=self.model,
            seed=self.seed,
            split_seed=self.split_seed,
            precision=self.precision,
        )


def optimiser_name(dataset: str) -> str:
    """What teachers on a dataset are trained by, for a person."""
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
    """A checked request.

    Args:
        dataset: canonical name.
        model: architecture.
        recipe: literature or short.
        overrides: fields of the recipe to have otherwise; None leaves it.
        seed: of the training.
        split_seed: of the data.
        precision: auto, fp32 or bf16.
        device: cpu, cuda or cuda:N.
        threads: of the CPU.
        pretrained: begin with published weights.

    Raises:
        RequestError: with one line per value that is out of its bounds.
    """
    try:
        dataset = expand_home(dataset)
        size = dataset_info(dataset).image_size
        model = absolute_name(check_text_model_name(model)) if is_text(dataset) else check_model_name(model)
        found = find_recipe(recipe, dataset=dataset, model=model)
        if not _DEVICE.fullmatch(device):
            raise ValueError(f"--device {device!r}: use cpu, cuda or cuda:N")
        if not 1 <= threads <= _MOST_THREADS:
            raise ValueError(f"--threads {threads}: use 1 to {_MOST_THREADS}")
        if pretrained and not LIBRARY_PATTERN.fullmatch(model):
            raise ValueError(f"--pretrained: weights are published for torchvision:NAME and timm:NAME, not for {model}")
        resolved = resolve_precision(precision, student=model, image_size=size, device=device)
    except ValueError as error:
        raise RequestError(str(error)) from None
    found = replace(found, **{name: value for name, value in overrides.items() if value is not None})
    request = TeacherRequest(dataset, model, found, seed, split_seed, resolved, device, threads, pretrained)
    try:
        request.training_config()
    except ValidationError as error:
        raise RequestError("\n".join(dict.fromkeys(map(_in_words, error.errors())))) from None
    return request


def check_name(name: str) -> str:
    """`name`, if a folder may be called so.

    Raises:
        RequestError: it may not.
    """
    if not _NAME.fullmatch(name):
        raise RequestError(
            f"--name {name!r}: use 1 to 150 letters, digits, '.', '_' or '-', starting with a letter or digit"
        )
    return name


def _in_words(finding: Any) -> str:
    message = str(finding["msg"]).removeprefix("Value error, ")
    if not finding["loc"]:
        return message
    field = str(finding["loc"][0])
    flag = _FLAGS.get(field, field.removeprefix("student_").replace("_", "-"))
    return f"--{flag}: {message} (given: {finding['input']!r})"
