"""Base class for method settings, and settings shared by several methods."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from trainables.spec.bounds import LARGEST_RATE, LARGEST_WEIGHT
from trainables.spec.methods.pesf_variants import PesfVariant

AdapterKind = Literal["serial", "parallel", "logit", "feature"]
AdapterTraining = Literal["joint", "first", "frozen"]
AdapterInit = Literal["zero", "default", "normal"]
Distance = Literal["kl", "mse"]
Schedule = Literal["constant", "cosine", "step", "linear", "one_cycle"]
AdapterSchedule = Literal["constant", "cosine", "step", "linear", "one_cycle", "released"]


class MethodSettings(BaseModel):
    """Base class for a method's settings. Subclasses declare one field per setting, each with a default.

    Field names are unique over all methods, because configs, plans and records are flat. Two methods share a field by
    inheriting it from the same class.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class WeightSettings(MethodSettings):
    """Weights of the student's cross-entropy and the distillation loss."""

    ce_weight: float = Field(1.0, ge=0, le=LARGEST_WEIGHT, description="weight of the student's cross-entropy")
    kd_weight: float = Field(
        0.9, ge=0, le=LARGEST_WEIGHT, description="weight of the distillation loss (T² included in it)"
    )


class DistanceSettings(MethodSettings):
    """Distance between student's and teacher's softened predictions."""

    distance: Distance = Field("kl", description="pesf_kd, pkd: Kullback-Leibler, or squared error of probabilities")


class AdapterLossSettings(MethodSettings):
    """Losses for the adapter, or for a teacher trained with the student."""

    adapter_ce_weight: float = Field(
        1.0, ge=0, le=LARGEST_WEIGHT, description="weight of the adapted teacher's cross-entropy"
    )
    detach_adapter_target: bool = Field(False, description="stop the distillation loss's gradient to the adapter")


class AdapterModuleSettings(MethodSettings):
    """Adapter form."""

    adapter_kind: AdapterKind = Field("serial", description="where the adapter's correction comes from")
    adapter_width: int = Field(16, ge=1, le=65_536, description="units in the adapter's bottleneck")
    adapter_init: AdapterInit = Field(
        "zero", description="zero: step 0 is plain KD; default: PyTorch's; normal: BERT's N(0, 0.02)"
    )
    adapter_count: int = Field(1, ge=1, le=64, description="adapters with own weights; their logits are averaged")
    adapter_training: AdapterTraining = Field(
        "joint", description="joint: with the student; first: with another student, then frozen; frozen: not at all"
    )
    adapter_dropout: float = Field(0.0, ge=0, lt=1, description="dropout of the adapter's bottleneck output")


class AdapterOptimiserSettings(MethodSettings):
    """Optimiser for the adapter, or for a teacher trained with the student."""

    adapter_learning_rate: float = Field(0.005, gt=0, le=LARGEST_RATE, description="adapter (full_teacher: teacher)")
    adapter_momentum: float = Field(0.9, ge=0, lt=1, description="adapter: SGD (Nesterov off); AdamW's beta 1")
    adapter_weight_decay: float = Field(5e-4, ge=0, le=LARGEST_WEIGHT, description="adapter")
    adapter_schedule: AdapterSchedule = Field(
        "cosine", description="the adapter's own learning-rate schedule; released: as in PESF-KD's vision code"
    )
    adapter_clip: bool = Field(True, description="apply clip_norm to the adapter as well")


# Pydantic takes the fields of the last base first.
class AdapterTrainingSettings(AdapterOptimiserSettings, AdapterLossSettings):
    """Training settings for the adapter, or for a teacher trained with the student."""


class VariantSettings(MethodSettings):
    """PESF-KD variant."""

    pesf_variant: PesfVariant = Field(
        "paper", description="adapter's objective: the paper's, or that of the authors' code for images or text"
    )


# Pydantic takes the fields of the last base first.
class AdapterTermSettings(VariantSettings):
    """Distillation through an adapter, in addition to a method without teacher logits in the loss."""

    adapter_kd_weight: float = Field(
        1.0, ge=0, le=LARGEST_WEIGHT, description="crd and others with --adapter: weight of pesf_kd's distance"
    )


class AdapterSettings(AdapterOptimiserSettings, AdapterModuleSettings, AdapterLossSettings):
    """Adapter on the teacher, and adapter training.

    Every method with an adapter reads these fields in addition to `MethodSpec.settings`.
    """
