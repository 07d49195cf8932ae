"""Config of one trial: a frozen pydantic model that validates itself and holds no torch object.

Imports neither torch nor ray, so a plan is checked and printed in well under a second.
"""

import hashlib
import json
from functools import cached_property
from typing import Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from trainables.spec.architectures import (
    LAYERS_PATTERN,
    check_model_name,
    check_text_model_name,
    has_maps,
    layers_and_width,
)
from trainables.spec.datasets import check_dataset_name
from trainables.spec.layer_matching import matched_layers
from trainables.spec.methods import METHOD_SPECS, MethodSpec, method_spec
from trainables.spec.modality import is_text
from trainables.spec.naming import unknown_name
from trainables.spec.precision import Precision
from trainables.spec.recipes import TeacherOrigin, default_epochs
from trainables.spec.text_defaults import text_defaults

AdapterKind = Literal["serial", "parallel", "logit", "feature"]
AdapterInit = Literal["zero", "default"]
Schedule = Literal["constant", "cosine", "step", "linear"]
Optimiser = Literal["sgd", "adamw"]
StudentLayers = Literal["skip", "first", "last"]
Augmentation = Literal["views", "none"]
Distance = Literal["kl", "mse"]
Ensemble = Literal["mean", "linear", "min_logit"]
GapControl = Literal["none", "paper", "centred", "placebo"]

# Upper bounds are far above practical values. They keep every value within the range of files, databases and float32.
LARGEST_BATCH: Final = 1_000_000
LARGEST_WEIGHT: Final = 1e9
LARGEST_RATE: Final = 1e38  # float32; a rate that is too high stops the trial with an error that names epoch and batch
LOWEST_TEMPERATURE: Final = 1e-6  # divides logits and products; smaller values would overflow float32
SEEDS: Final = 2**63  # range of SQLite integers

# Fields that differ between replicates of a config. They are not part of the config's digest.
SEED_FIELDS = frozenset({"seed", "data_seed"})
# Fields added after the first recorded plans. The digest of a plan contains a whole config.
_YOUNGER_THAN_PLANS = frozenset(
    {
        "gap_control",
        "gap_target",
        "gap_weight",
        "optimiser",
        "clip_norm",
        "rate_warmup",
        "student_layers",
        "pkd_weight",
        "pea_threshold",
        "pea_epochs",
    }
)
# Fields added after the first recorded trials. They are left out of the digest while at their defaults. So a config
# keeps its digest, and with it the seeds that a study derives from the digest.
_YOUNGER_FIELDS = _YOUNGER_THAN_PLANS | frozenset(
    {
        "adapter",
        "distance",
        "label_smoothing",
        "warmup_epochs",
        "dkd_alpha",
        "dkd_beta",
        "dist_beta",
        "dist_gamma",
        "ttm_gamma",
        "ctkd_temperature_start",
        "ctkd_temperature_range",
        "ctkd_curriculum_epochs",
        "rkd_distance_weight",
        "rkd_angle_weight",
        "crd_dim",
        "crd_negatives",
        "crd_temperature",
        "crd_momentum",
        "kdcl_ensemble",
        "dual_student_peer_weight",
        "sftn_temperature",
        "sftn_ce_weight",
        "sftn_kl_weight",
        "sftn_branch_ce_weight",
    }
)


class TrialConfig(BaseModel):
    """Config of one trial: teacher, student, distillation method, training settings and seeds.

    Two trials with equal configs give the same bits on CPU. `seed` draws the initial weights. `data_seed` draws the
    batch order and the augmented views. Trials that share both seeds start from the same weights and see the same
    batches, so their differences are paired.

    The defaults below are for images. Some defaults differ for text datasets, see `trainables.spec.text_defaults`.

    Raises:
        ValueError: a field is unknown (the message names the nearest known field), or a value is out of bounds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    method: str = Field("pesf_kd", description="distillation method")
    dataset: str = Field("digits", description="dataset, by its canonical name")
    student: str = Field("cnn_3_4", description="student architecture")
    teacher: str = Field("cnn_32_64", description="teacher architecture; the peer's of dml and kdcl")
    teacher_recipe: TeacherOrigin = Field("short", description="how the teacher is trained, or that it was given")
    teacher_epochs: int = Field(0, ge=0, le=100_000, description="of its training; as the recipe says if not given")
    teacher_digest: str = Field("", pattern="^([0-9a-f]{16})?$", description="of a teacher that was given")
    epochs: int = Field(15, ge=1, le=100_000, description="passes over the training split")
    batch_size: int = Field(64, ge=1, le=LARGEST_BATCH, description="samples per step")
    precision: Precision = Field("fp32", description="of the convolutions in training; the rest is float32")

    temperature: float = Field(
        4.0, ge=LOWEST_TEMPERATURE, le=1000, description="softens both sides of the distillation loss"
    )
    ce_weight: float = Field(1.0, ge=0, le=LARGEST_WEIGHT, description="weight of the student's cross-entropy")
    kd_weight: float = Field(
        0.9, ge=0, le=LARGEST_WEIGHT, description="weight of the distillation loss (T² included in it)"
    )
    adapter_ce_weight: float = Field(
        1.0, ge=0, le=LARGEST_WEIGHT, description="weight of the adapted teacher's cross-entropy"
    )

    adapter: bool = Field(False, description="train an adapter beside dkd, dist or logit_standardisation")
    adapter_kind: AdapterKind = Field("serial", description="where the adapter's correction comes from")
    adapter_width: int = Field(16, ge=1, le=65_536, description="units in the adapter's bottleneck")
    adapter_init: AdapterInit = Field("zero", description="zero: step 0 is plain KD; default: PyTorch's")
    detach_adapter_target: bool = Field(False, description="stop the distillation loss's gradient to the adapter")

    distance: Distance = Field("kl", description="pesf_kd: Kullback-Leibler, or squared error of probabilities")
    gap_control: GapControl = Field(
        "none", description="pesf_kd: impose the paper's or the centred gap, or shift all the teacher's logits"
    )
    gap_target: float = Field(
        0.0, ge=-100, le=100, description="pesf_kd: the gap to impose, or what a placebo adds to the logits, nats"
    )
    gap_weight: float = Field(1.0, ge=0, le=LARGEST_WEIGHT, description="pesf_kd: of the penalty (gap - gap_target)²")
    label_smoothing: float = Field(0.1, ge=0, lt=1, description="share of each label spread over all classes")
    warmup_epochs: int = Field(0, ge=0, le=100_000, description="dkd: epochs in which its weight grows linearly")
    dkd_alpha: float = Field(1.0, ge=0, le=LARGEST_WEIGHT, description="dkd: weight of the target class's part")
    dkd_beta: float = Field(
        8.0, ge=0, le=LARGEST_WEIGHT, description="dkd: weight of the other classes' part; depends on the pair"
    )
    dist_beta: float = Field(
        1.0, ge=0, le=LARGEST_WEIGHT, description="dist: weight of the relations within each sample"
    )
    dist_gamma: float = Field(
        1.0, ge=0, le=LARGEST_WEIGHT, description="dist: weight of the relations within each class"
    )
    ttm_gamma: float = Field(0.1, gt=0, le=1, description="ttm, wttm: exponent of the teacher's probabilities")
    ctkd_temperature_start: float = Field(1.0, ge=LOWEST_TEMPERATURE, le=1000, description="ctkd: lowest temperature")
    ctkd_temperature_range: float = Field(20.0, gt=0, le=1000, description="ctkd: highest temperature less the lowest")
    ctkd_curriculum_epochs: int = Field(
        10, ge=1, le=100_000, description="ctkd: epochs until the temperature opposes in full"
    )
    rkd_distance_weight: float = Field(25.0, ge=0, le=LARGEST_WEIGHT, description="rkd: weight of the distances")
    rkd_angle_weight: float = Field(50.0, ge=0, le=LARGEST_WEIGHT, description="rkd: weight of the angles")
    crd_dim: int = Field(128, ge=1, le=65_536, description="crd: width of the embeddings")
    crd_negatives: int = Field(16_384, ge=1, le=1_000_000, description="crd: samples of other classes for each sample")
    crd_temperature: float = Field(
        0.07, ge=LOWEST_TEMPERATURE, le=1000, description="crd: divides the embeddings' products"
    )
    crd_momentum: float = Field(0.5, ge=0, lt=1, description="crd: share of the old embedding in what is remembered")
    kdcl_ensemble: Ensemble = Field("min_logit", description="kdcl: how the two networks' logits become one")
    dual_student_peer_weight: float = Field(
        0.5, ge=0, le=LARGEST_WEIGHT, description="dual_student: of the peer, beside the teacher's 1"
    )
    sftn_temperature: float = Field(
        4.0, ge=LOWEST_TEMPERATURE, le=1000, description="sftn: softens teacher and branches in its training"
    )
    sftn_ce_weight: float = Field(
        1.0, ge=0, le=LARGEST_WEIGHT, description="sftn: of the teacher's cross-entropy in its training"
    )
    sftn_kl_weight: float = Field(3.0, ge=0, le=LARGEST_WEIGHT, description="sftn: of its divergence from the branches")
    sftn_branch_ce_weight: float = Field(
        1.0, ge=0, le=LARGEST_WEIGHT, description="sftn: of the branches' cross-entropy"
    )

    pkd_weight: float = Field(
        100.0, ge=0, le=LARGEST_WEIGHT, description="pkd: weight of the distances between [CLS] states"
    )
    pea_threshold: float = Field(
        0.9, ge=0, le=1, description="pea_kd: from which probability on the teacher counts as confident"
    )
    pea_epochs: int = Field(1, ge=0, le=100_000, description="pea_kd: first epochs, that tell how the teacher answers")

    student_layers: StudentLayers = Field("skip", description="student bert:N: every so many-th, first or last layers")
    optimiser: Optimiser = Field("sgd", description="of everybody who learns")
    clip_norm: float = Field(
        0.0, ge=0, le=LARGEST_WEIGHT, description="longest gradient of each who learns; 0: none is cut"
    )
    rate_warmup: float = Field(0.0, ge=0, lt=1, description="share of the steps in which a linear schedule rises")
    student_learning_rate: float = Field(0.05, gt=0, le=LARGEST_RATE, description="student")
    student_momentum: float = Field(0.9, ge=0, lt=1, description="student: SGD (Nesterov off); AdamW's beta 1")
    student_weight_decay: float = Field(5e-4, ge=0, le=LARGEST_WEIGHT, description="student")
    student_schedule: Schedule = Field("cosine", description="the student's own learning-rate schedule")
    adapter_learning_rate: float = Field(0.005, gt=0, le=LARGEST_RATE, description="adapter (full_teacher: teacher)")
    adapter_momentum: float = Field(0.9, ge=0, lt=1, description="adapter: SGD (Nesterov off); AdamW's beta 1")
    adapter_weight_decay: float = Field(5e-4, ge=0, le=LARGEST_WEIGHT, description="adapter")
    adapter_schedule: Schedule = Field("cosine", description="the adapter's own learning-rate schedule")

    augmentation: Augmentation = Field("views", description="the dataset's table of views, or none")
    teacher_seed: int = Field(0, ge=0, lt=SEEDS, description="draws the teacher's weights and batch order")
    split_seed: int = Field(0, ge=0, lt=SEEDS, description="draws the train, validation and test splits")
    data_seed: int = Field(0, ge=0, lt=SEEDS, description="draws the batch order and the views")
    seed: int = Field(0, ge=0, lt=SEEDS, description="draws the initial weights")

    @model_validator(mode="before")
    @classmethod
    def _name_the_nearest_field(cls, values: Any) -> Any:
        if isinstance(values, dict):
            known = list(cls.model_fields)
            for name in values:
                if name not in known:
                    raise ValueError(unknown_name("field", str(name), known))
            if is_text(str(values.get("dataset", ""))):
                return text_defaults(values) | values
        return values

    @field_validator("method")
    @classmethod
    def _known_method(cls, name: str) -> str:
        if name not in METHOD_SPECS:
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
        return check_model_name(name)

    @model_validator(mode="after")
    def _an_adapter_where_there_can_be_one(self) -> Self:
        entry = method_spec(self.method)
        if self.adapter and not (entry.takes_adapter or entry.has_adapter):
            able = ", ".join(name for name in METHOD_SPECS if method_spec(name).takes_adapter)
            hint = "; kd with an adapter is pesf_kd" if self.method == "kd" else ""
            raise ValueError(f"method {self.method!r} takes no adapter{hint}; adapter=True goes with {able}")
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
        """Whether the student is initialised with layers of the teacher. Every method then needs the teacher."""
        return LAYERS_PATTERN.fullmatch(self.student) is not None

    @property
    def has_plain_steps(self) -> bool:
        """Whether all optimisers are plain SGD without clipping, with a constant rate within each epoch."""
        schedules = self.student_schedule, self.adapter_schedule
        return self.optimiser == "sgd" and not self.clip_norm and "linear" not in schedules

    @property
    def method_spec(self) -> MethodSpec:
        """Specification of the method, with the adapter if the trial has one."""
        return method_spec(self.method, adapter=self.adapter)

    @model_validator(mode="after")
    def _settle_the_teacher(self) -> Self:
        given = self.teacher_recipe == "checkpoint"
        if given != bool(self.teacher_digest):
            raise ValueError("teacher_recipe 'checkpoint' and teacher_digest go together")
        if given and self.teacher_epochs:
            raise ValueError("teacher_epochs is for a teacher that is trained, not for one from a checkpoint")
        if not given and not self.teacher_epochs:
            object.__setattr__(self, "teacher_epochs", default_epochs(self.teacher_recipe, self.dataset))
        return self

    @cached_property
    def config_id(self) -> str:
        """Identifier of the config: first 12 hex digits of a digest over all fields except the seeds."""
        content = self._without_defaults(_YOUNGER_FIELDS)
        for name in SEED_FIELDS:
            del content[name]
        if (self.teacher_recipe, self.teacher_epochs) == ("short", default_epochs("short", self.dataset)):
            for name in ("teacher_recipe", "teacher_epochs", "teacher_digest"):  # also added later
                del content[name]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def content_of_plan(self) -> dict[str, Any]:
        """Fields that enter a plan's digest. Later fields enter only if set, so old plans keep their digest."""
        return self._without_defaults(_YOUNGER_THAN_PLANS)

    def _without_defaults(self, names: frozenset[str]) -> dict[str, Any]:
        """Return all fields as JSON values, without those in `names` that are at their defaults."""
        content = self.model_dump(mode="json")
        fields = type(self).model_fields
        return {name: each for name, each in content.items() if name not in names or each != fields[name].default}

    def with_seeds(self, study_seed: int, replicate: int, *, paired: bool = True) -> "TrialConfig":
        """Return this config with the seeds of one replicate in a study.

        The batch order depends on (study seed, replicate) alone. If `paired`, all other random numbers also depend on
        these two values alone, so equal students start from equal weights in every config. The effect of a seed then
        cancels in the difference between two configs (Law and Kelton, Simulation Modeling and Analysis, on common
        random numbers).

        Args:
            study_seed: seed of the study.
            replicate: number of the replicate.
            paired: False for configs that are compared by their own scores alone, as in a search. The initial weights
                then also depend on the config, so an association across configs does not rest on a single draw.
        """
        data_seed = derive_seed(study_seed, "data", replicate)
        own = () if paired else (self.config_id,)
        seed = derive_seed(study_seed, "init", *own, replicate)
        return TrialConfig(**{**self.model_dump(), "data_seed": data_seed, "seed": seed})


def derive_seed(*parts: int | str) -> int:
    """Return a 63-bit seed derived from the labels in `parts`, equal on every machine."""
    digest = hashlib.sha256("\x1f".join(str(part) for part in parts).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
