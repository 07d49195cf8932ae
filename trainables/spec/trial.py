"""Config of one trial: a frozen, self-validating pydantic model without torch objects.

Imports neither torch nor ray, so a plan is checked and printed in well under a second.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, cached_property
from typing import Any, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import InitErrorDetails, PydanticCustomError

from trainables.spec.architectures import (
    LAYERS_PATTERN,
    check_model_name,
    check_teacher_name,
    check_text_model_name,
    ensemble_members,
    has_maps,
    layers_and_width,
)
from trainables.spec.bounds import (
    LARGEST_BATCH,
    LARGEST_RATE,
    LARGEST_WEIGHT,
    LOWEST_TEMPERATURE,
    MOST_EPOCHS,
    MOST_SPLITS,
    MOST_TEACHERS,
    SEEDS,
)
from trainables.spec.datasets import check_dataset_name
from trainables.spec.digest import digest_of
from trainables.spec.layer_matching import matched_layers
from trainables.spec.methods import (
    METHOD_SPECS,
    AdapterSettings,
    AdapterTermSettings,
    MethodSettings,
    MethodSpec,
    check_settings,
    is_known_method,
    method_spec,
    registered_settings,
    settings_fields,
)
from trainables.spec.methods.own import know_trial_fields
from trainables.spec.methods.settings import Schedule
from trainables.spec.modality import is_text
from trainables.spec.naming import unknown_name
from trainables.spec.precision import Precision
from trainables.spec.recipes import TeacherOrigin, default_epochs
from trainables.spec.text_defaults import text_defaults

Optimiser = Literal["sgd", "adamw"]
StudentLayers = Literal["skip", "first", "last"]
Augmentation = Literal["views", "none"]
Settings = TypeVar("Settings", bound=MethodSettings)

# Fields with different values in each replicate of a config. They are not part of the config's digest.
SEED_FIELDS = frozenset({"seed", "data_seed", "teacher_number", "split_number"})


class TrialConfig(BaseModel):
    """Config of one trial: teacher, student, distillation method, training settings and seeds.

    Two trials with equal configs give the same bits on CPU. `seed` draws the initial weights. `data_seed` draws the
    batch order and the augmented views. Trials with both seeds in common start from the same weights and see the same
    batches, so their differences are paired. `teacher_number` counts the teachers of a confirmation: number k is
    trained with seed `teacher_seed` + k. `split_number` counts the confirmation's splits into train and validation; the
    test split is always the same.

    Every trial has the fields below. In addition, a config has the settings of every method, validated by the method's
    own model (see `trainables.spec.methods`). Settings are given, dumped and compared like fields, as in
    `TrialConfig(method="dkd", dkd_alpha=2.0)`, and read as `config.settings.dkd_alpha`. Settings not read by the method
    are kept, because a study derives configs of other methods from one base config. Only configs of a user method have
    this method's settings.

    The defaults are for images. Some defaults differ for text datasets, see `trainables.spec.text_defaults`.

    Raises:
        ValueError: a field is unknown (the message names the nearest known field), or a value is out of bounds.
    """

    # The extra values are the methods' settings. `_check_all_fields` refuses all others.
    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    method: str = Field("pesf_kd", description="distillation method")
    dataset: str = Field("digits", description="dataset, by its canonical name")
    student: str = Field("cnn_3_4", description="student architecture")
    teacher: str = Field("cnn_32_64", description="teacher architecture; the peer's of dml and kdcl")
    teacher_recipe: TeacherOrigin = Field("short", description="how the teacher is trained, or that it was given")
    teacher_epochs: int = Field(
        0, ge=0, le=MOST_EPOCHS, description="epochs of the teacher's training; the recipe's number if not given"
    )
    teacher_digest: str = Field("", pattern="^([0-9a-f]{16})?$", description="digest of a given teacher")
    epochs: int = Field(15, ge=1, le=MOST_EPOCHS, description="passes over the training split")
    batch_size: int = Field(64, ge=1, le=LARGEST_BATCH, description="samples per step")
    precision: Precision = Field("fp32", description="precision of convolutions in training; the rest is float32")

    temperature: float = Field(
        4.0, ge=LOWEST_TEMPERATURE, le=1000, description="softens both sides of the distillation loss and of a measure"
    )
    adapter: bool = Field(False, description="add an adapter to a method that can have one")
    student_layers: StudentLayers = Field("skip", description="student bert:N: every so many-th, first or last layers")
    optimiser: Optimiser = Field("sgd", description="optimiser of the student and of all other trained networks")
    clip_norm: float = Field(
        0.0, ge=0, le=LARGEST_WEIGHT, description="largest gradient norm of each trained network; 0: no clipping"
    )
    rate_warmup: float = Field(0.0, ge=0, lt=1, description="share of the steps in which a linear schedule rises")
    student_learning_rate: float = Field(0.05, gt=0, le=LARGEST_RATE, description="student")
    student_momentum: float = Field(0.9, ge=0, lt=1, description="student: SGD (Nesterov off); AdamW's beta 1")
    student_weight_decay: float = Field(5e-4, ge=0, le=LARGEST_WEIGHT, description="student")
    student_schedule: Schedule = Field("cosine", description="the student's own learning-rate schedule")
    augmentation: Augmentation = Field("views", description="the dataset's table of views, or none")
    teacher_seed: int = Field(0, ge=0, lt=SEEDS, description="draws the teacher's weights and batch order")
    teacher_number: int = Field(
        0, ge=0, le=MOST_TEACHERS, description="added to teacher_seed: of the teachers of a confirmation, from 0"
    )
    split_seed: int = Field(0, ge=0, lt=SEEDS, description="draws the train, validation and test splits")
    split_number: int = Field(
        0, ge=0, le=MOST_SPLITS, description="of the splits of a confirmation, from 0; draws train and validation again"
    )
    data_seed: int = Field(0, ge=0, lt=SEEDS, description="draws the batch order and the views")
    seed: int = Field(0, ge=0, lt=SEEDS, description="draws the initial weights")

    @model_validator(mode="wrap")
    @classmethod
    def _check_all_fields(cls, values: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if not isinstance(values, dict):
            return handler(values)
        method = str(values.get("method", cls.model_fields["method"].default))
        known = config_fields(method)
        for name in values:
            if name not in known:
                raise ValueError(unknown_name("field", str(name), known))
        if is_text(str(values.get("dataset", ""))):
            values = text_defaults(values) | values
        own = cls.model_fields
        common = {name: value for name, value in values.items() if name in own}
        given = {name: value for name, value in values.items() if name not in own}
        settings, errors = check_settings(method, given)
        try:
            config = handler({**common, **settings})
        except ValidationError as error:
            raise _merged([error, *errors]) from None
        if errors:
            raise _merged(errors)
        # Nothing asks which fields were given. A set of their names is three quarters of a config's memory.
        object.__setattr__(config, "__pydantic_fields_set__", set())
        return config

    @field_validator("method")
    @classmethod
    def _known_method(cls, name: str) -> str:
        if not is_known_method(name):
            raise ValueError(unknown_name("method", name, METHOD_SPECS))
        return name

    @field_validator("dataset")
    @classmethod
    def _known_dataset(cls, name: str) -> str:
        return check_dataset_name(name)

    @field_validator("student", "teacher")
    @classmethod
    def _known_model(cls, name: str, info: ValidationInfo) -> str:
        if is_text(info.data.get("dataset", "")):
            return check_text_model_name(name, student=info.field_name == "student")
        return check_teacher_name(name) if info.field_name == "teacher" else check_model_name(name)

    @model_validator(mode="after")
    def _an_ensemble_of_given_teachers(self) -> Self:
        if is_text(self.dataset) or not ensemble_members(self.teacher):
            return self
        if not self.teacher_digest:
            raise ValueError(
                f"teacher {self.teacher!r} is an ensemble of trained teachers, which --teacher-checkpoint A,B,... "
                "gives: name one architecture, or give checkpoints"
            )
        entry = method_spec(self.method)
        if entry.needs_live_teacher or entry.needs_feature or entry.teacher_fields or entry.peer == "teacher":
            raise ValueError(
                f"method {self.method!r} takes one network as its teacher, and {self.teacher!r} is an ensemble, of "
                "which there are the logits alone: choose a method on logits, such as kd, or give one checkpoint"
            )
        if entry.has_adapter and self.settings_of(AdapterSettings).adapter_kind == "feature":
            raise ValueError(
                f"adapter_kind 'feature' applies the last layer of a single network, and {self.teacher!r} is an "
                "ensemble: choose serial, parallel or logit"
            )
        return self

    @model_validator(mode="after")
    def _an_adapter_where_there_can_be_one(self) -> Self:
        entry = method_spec(self.method)
        if self.adapter and not (entry.takes_adapter or entry.has_adapter):
            able = ", ".join(name for name in METHOD_SPECS if method_spec(name).takes_adapter)
            raise ValueError(
                f"method {self.method!r} takes no adapter, because {entry.no_adapter}; adapter=True goes with {able}"
            )
        return self

    @model_validator(mode="after")
    def _a_frozen_adapter_that_changes_something(self) -> Self:
        settings = self.settings_of(AdapterSettings)
        if self.method_spec.has_adapter and settings.adapter_training == "frozen":
            if settings.adapter_init == "zero":
                raise ValueError(
                    "an adapter that is frozen at a zero init changes no logit: set adapter_init=default, or choose "
                    "the method without an adapter"
                )
            if getattr(self.settings, "gap_control", "none") in ("paper", "centred"):
                raise ValueError(
                    "a gap is imposed by training the adapter, and adapter_training is 'frozen': set gap_control=none"
                )
        return self

    @model_validator(mode="after")
    def _a_variant_that_goes_with_the_method(self) -> Self:
        entry = self.method_spec
        variant = self.settings_of(AdapterTermSettings).pesf_variant
        if entry.has_adapter and entry.adapter_term and variant == "released-language":
            raise ValueError(
                f"pesf_variant 'released-language' goes with pesf_kd alone, and beside {self.method!r} an adapter has "
                "'paper' or 'released-vision'; on text, method pkd with an adapter is the released objective"
            )
        return self

    @model_validator(mode="after")
    def _epochs_enough_for_a_cycle(self) -> Self:
        read = ("student_schedule", *self.method_spec.fields & {"adapter_schedule"})
        cycles = [name for name in read if getattr(self, name) == "one_cycle"]
        if cycles and self.epochs < 2:
            raise ValueError(_no_cycle(cycles[0]))
        return self

    @model_validator(mode="after")
    def _batches_of_samples_that_can_be_compared(self) -> Self:
        smallest = method_spec(self.method).smallest_batch
        if self.batch_size < smallest:
            raise ValueError(
                f"method {self.method!r} compares the samples of a batch with each other, and batch_size "
                f"{self.batch_size} leaves nothing to compare: give batch_size {smallest} or more"
            )
        return self

    @model_validator(mode="after")
    def _a_teacher_of_its_own_where_it_can_be_trained(self) -> Self:
        if method_spec(self.method).teacher_fields and self.teacher_recipe == "checkpoint":
            raise ValueError(f"method {self.method!r} trains a teacher of its own for the student: it cannot be given")
        return self

    @model_validator(mode="after")
    def _a_method_for_these_data(self) -> Self:
        wanted = method_spec(self.method).modality
        own = "text" if is_text(self.dataset) else "images"
        if wanted not in ("any", own):
            able = ", ".join(name for name in METHOD_SPECS if method_spec(name).modality in ("any", own))
            what = "maps of the stages of networks for images" if wanted == "images" else "layers of language models"
            raise ValueError(
                f"method {self.method!r} matches {what}, and dataset {self.dataset!r} is of {own}: "
                f"methods that run on it are {able}"
            )
        if own == "text" and self.augmentation != "none":
            raise ValueError("augmentation 'views' is of images: text has one view, 'none'")
        return self

    @model_validator(mode="after")
    def _maps_where_they_are_needed(self) -> Self:
        entry = method_spec(self.method)
        verb = "matches" if entry.needs_maps else "trains its teacher with"
        for who, name in (("student", self.student), ("teacher", self.teacher)):
            if (entry.needs_maps or entry.teacher_fields) and not has_maps(name):
                raise ValueError(
                    f"method {self.method!r} {verb} maps of the nets' stages, and {who} {name!r} gives none, as "
                    "no net of torchvision or timm does here: choose another architecture, such as resnet20, or a "
                    "method that matches logits or features, such as kd or pkt"
                )
        return self

    @model_validator(mode="after")
    def _layers_that_can_be_matched(self) -> Self:
        student, teacher = layers_and_width(self.student), layers_and_width(self.teacher)
        if teacher is None or student is None or not (self.begins_as_teacher or self.method == "pkd"):
            return self  # models from a folder or the Hub are checked when they are built
        (layers, width), (of_teacher, teachers_width) = student, teacher
        assert of_teacher is not None
        matched_layers(of_teacher, layers, which=self.student_layers)
        if self.method == "pkd" and width is not None and width != teachers_width:
            raise ValueError(
                f"method 'pkd' compares states of equal width: student {self.student!r} has {width} units, teacher "
                f"{self.teacher!r} {teachers_width}; choose a student as wide as its teacher"
            )
        if self.method == "pkd" and layers == 1:
            raise ValueError(
                f"method 'pkd' matches the layers below the last, of which student {self.student!r} has none: choose "
                "one of two layers or more"
            )
        return self

    @property
    def begins_as_teacher(self) -> bool:
        """Whether the student is initialised with teacher layers. Every method then needs the teacher."""
        return LAYERS_PATTERN.fullmatch(self.student) is not None

    @property
    def has_plain_steps(self) -> bool:
        """Whether all optimisers are plain SGD without clipping, with a constant rate within each epoch."""
        schedules = self.student_schedule, self.settings_of(AdapterSettings).adapter_schedule
        return self.optimiser == "sgd" and not self.clip_norm and "linear" not in schedules

    @property
    def has_plain_adapter(self) -> bool:
        """Whether formulas can compute the adapter's step, if there is one: one trained adapter, no dropout."""
        settings = self.settings_of(AdapterSettings)
        plain = settings.adapter_count == 1 and settings.adapter_training == "joint"
        return not self.method_spec.has_adapter or (plain and not self.draws_in_adapter)

    @property
    def draws_in_adapter(self) -> bool:
        """Whether the adapter draws random numbers in every step, for dropout."""
        return self.method_spec.has_adapter and self.settings_of(AdapterSettings).adapter_dropout > 0

    @property
    def method_spec(self) -> MethodSpec:
        """The method's specification, with the adapter if the trial has one."""
        return method_spec(self.method, adapter=self.adapter)

    @property
    def settings(self) -> MethodSettings:
        """The method's settings, without adapter settings."""
        return self.settings_of(self.method_spec.settings)

    def settings_of(self, model: type[Settings]) -> Settings:
        """Return the part of the settings declared by a model, such as `AdapterSettings`."""
        # The values were validated together with the config.
        return model.model_construct(**{name: getattr(self, name) for name in model.model_fields})

    @model_validator(mode="after")
    def _settle_the_teacher(self) -> Self:
        given = self.teacher_recipe == "checkpoint"
        if given != bool(self.teacher_digest):
            raise ValueError("teacher_recipe 'checkpoint' and teacher_digest go together")
        if given and self.teacher_epochs:
            raise ValueError("teacher_epochs is for a teacher that is trained, not for one from a checkpoint")
        if given and self.teacher_number:
            raise ValueError("teacher_number is for teachers that are trained, not for one from a checkpoint")
        if given and self.split_number:
            raise ValueError(
                "split_number needs a teacher trained on that split, and one from a checkpoint may have seen its "
                "validation samples"
            )
        if self.teacher_seed + self.teacher_number >= SEEDS:
            raise ValueError(
                f"teacher_seed {self.teacher_seed} plus teacher_number {self.teacher_number} is too large: give a "
                "smaller teacher_seed"
            )
        if not given and not self.teacher_epochs:
            object.__setattr__(self, "teacher_epochs", default_epochs(self.teacher_recipe, self.dataset))
        if self.teacher_recipe == "one_cycle" and self.teacher_epochs < 2:
            raise ValueError(_no_cycle("teacher_recipe"))
        return self

    @cached_property
    def config_id(self) -> str:
        """Config identifier: versioned digest of the fields read by the trial, except the seeds.

        Fields with default values are left out, so a field added later changes no identifier.
        """
        read = self.method_spec.fields.union(type(self).model_fields) - SEED_FIELDS
        return digest_of({name: value for name, value in self.changed_fields.items() if name in read})

    @property
    def changed_fields(self) -> dict[str, Any]:
        """Fields with non-default values, as JSON values. Includes other methods' settings."""
        known = config_fields(self.method)
        return {name: each for name, each in self.model_dump(mode="json").items() if each != known[name].default}

    @property
    def seed_of_teacher(self) -> int:
        """Seed for training this trial's teacher."""
        return self.teacher_seed + self.teacher_number

    def with_numbers(self, *, teacher: int, split: int) -> "TrialConfig":
        """Return this config with another teacher and split from a confirmation.

        Args:
            teacher: teacher number, from 0.
            split: split number, from 0.
        """
        return TrialConfig(**{**self.model_dump(), "teacher_number": teacher, "split_number": split})

    def with_seeds(self, study_seed: int, replicate: int, *, paired: bool = True) -> "TrialConfig":
        """Return this config with the seeds of one replicate in a study.

        The batch order depends on (study seed, replicate) alone. If `paired`, all other random numbers also depend on
        these two values alone, so equal students start from equal weights in every config. The effect of a seed then
        cancels in the difference between two configs (Law and Kelton, Simulation Modeling and Analysis, on common
        random numbers).

        Args:
            study_seed: study seed.
            replicate: replicate number.
            paired: False for configs compared by score alone, as in a search. The initial weights then also depend on
                the config, so an association across configs does not rest on a single draw.
        """
        data_seed = derive_seed(study_seed, "data", replicate)
        own = () if paired else (self.config_id,)
        seed = derive_seed(study_seed, "init", *own, replicate)
        return TrialConfig(**{**self.model_dump(), "data_seed": data_seed, "seed": seed})


know_trial_fields(TrialConfig.model_fields)


def _no_cycle(field: str) -> str:
    return (
        f"{field} 'one_cycle' ends at 1/250,000 of the learning rate, so nothing is learnt in one epoch: give 2 epochs "
        f"or more, or another {'recipe' if field == 'teacher_recipe' else 'schedule'}"
    )


def config_fields(*methods: str) -> Mapping[str, FieldInfo]:
    """Return all config fields: the fields of every trial and all registered methods' settings.

    Args:
        methods: method names. The settings of user methods among them are included.

    Raises:
        ValueError: a method declares a setting with another field's name.
    """
    return _fields_with(registered_settings(*methods))


def own_fields(method: str, values: Mapping[str, Any], others: Iterable[str]) -> dict[str, Any]:
    """Return config values without other user methods' settings.

    A study derives the configs of all methods from one base config. Only configs of a user method have this method's
    settings.

    Args:
        method: the config's method.
        values: fields by name.
        others: the study's methods.
    """
    foreign = config_fields(*others).keys() - config_fields(method).keys()
    return {name: value for name, value in values.items() if name not in foreign}


@cache
def _fields_with(models: tuple[type[MethodSettings], ...]) -> Mapping[str, FieldInfo]:
    settings = settings_fields(models)
    if taken := settings.keys() & TrialConfig.model_fields.keys():
        raise ValueError(f"every trial has a field {min(taken)!r}: a method cannot declare a setting of that name")
    return {**TrialConfig.model_fields, **settings}


def _merged(errors: Sequence[ValidationError]) -> ValidationError:
    """Return one error with the findings from all `errors`."""
    if len(errors) == 1:
        return errors[0]
    findings = [
        InitErrorDetails(
            type=PydanticCustomError("config", "{msg}", {"msg": each["msg"]}), loc=each["loc"], input=each["input"]
        )
        for error in errors
        for each in error.errors(include_url=False)
    ]
    return ValidationError.from_exception_data(TrialConfig.__name__, findings)


def seed_of_split(seed: int, number: int) -> int:
    """Return the seed for drawing train and validation of a split.

    Args:
        seed: split seed.
        number: split number; number 0 uses the split seed itself.
    """
    return derive_seed("split", seed, number) if number else seed


def derive_seed(*parts: int | str) -> int:
    """Return a 63-bit seed derived from the labels in `parts`, equal on every machine."""
    digest = hashlib.sha256("\x1f".join(str(part) for part in parts).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
