"""Cross-entropy, label smoothing, knowledge distillation, and distillation with a trainable adapter (PESF-KD)."""

from typing import Final, Literal

from pydantic import Field

from trainables.spec.bounds import LARGEST_WEIGHT
from trainables.spec.methods.settings import MethodSettings, WeightSettings
from trainables.spec.methods.spec import TEMPERATURE, MethodSpec

Distance = Literal["kl", "mse"]
GapControl = Literal["none", "paper", "centred", "placebo"]


class PesfKdSettings(WeightSettings):
    """Settings of `pesf_kd`, without those of the adapter."""

    distance: Distance = Field("kl", description="pesf_kd: Kullback-Leibler, or squared error of probabilities")
    gap_control: GapControl = Field(
        "none", description="pesf_kd: impose the paper's or the centred gap, or shift all the teacher's logits"
    )
    gap_target: float = Field(
        0.0, ge=-100, le=100, description="pesf_kd: the gap to impose, or what a placebo adds to the logits, nats"
    )
    gap_weight: float = Field(1.0, ge=0, le=LARGEST_WEIGHT, description="pesf_kd: of the penalty (gap - gap_target)²")


class LabelSmoothingSettings(MethodSettings):
    """Settings of `label_smoothing`."""

    label_smoothing: float = Field(0.1, ge=0, lt=1, description="share of each label spread over all classes")


SPECS: Final = (
    MethodSpec("ce", needs_teacher=False),
    MethodSpec("kd", WeightSettings, TEMPERATURE, published={"temperature": 4.0, "ce_weight": 0.1, "kd_weight": 0.9}),
    MethodSpec(
        "pesf_kd",
        PesfKdSettings,
        TEMPERATURE,
        has_adapter=True,
        # Defaults of the authors' vision code (train_student_DDP.py). kd_weight is from the README.
        published={
            "temperature": 6.0,
            "ce_weight": 1.0,
            "kd_weight": 1.0,
            "adapter_ce_weight": 1.0,
            "adapter_width": 32,
            "adapter_init": "default",
            "adapter_learning_rate": 2e-5,
        },
        published_on_text={"temperature": 5.0, "ce_weight": 0.3, "kd_weight": 0.7, "distance": "mse"},
    ),
    MethodSpec("label_smoothing", LabelSmoothingSettings, needs_teacher=False, published={"label_smoothing": 0.1}),
)
