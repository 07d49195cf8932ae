"""Cross-entropy, label smoothing, knowledge distillation, and distillation with a trainable adapter (PESF-KD)."""

from typing import Final, Literal, Self

from pydantic import Field, model_validator

from trainables.spec.bounds import LARGEST_WEIGHT
from trainables.spec.methods.pesf_variants import AS_PUBLISHED, AS_PUBLISHED_ON_TEXT, PesfVariant
from trainables.spec.methods.settings import Distance, DistanceSettings, MethodSettings, VariantSettings, WeightSettings
from trainables.spec.methods.spec import NO_TEACHER, TEMPERATURE, MethodSpec

GapControl = Literal["none", "paper", "centred", "placebo"]


_DISTANCES: Final[dict[PesfVariant, Distance]] = {"released-vision": "kl", "released-language": "mse"}


# Pydantic takes the fields of the last base first.
class PesfKdSettings(VariantSettings, DistanceSettings, WeightSettings):
    """Settings of `pesf_kd`, without adapter settings."""

    gap_control: GapControl = Field(
        "none", description="pesf_kd: impose the paper's or the centred gap, or shift all the teacher's logits"
    )
    gap_target: float = Field(
        0.0, ge=-100, le=100, description="pesf_kd: gap to impose, or constant that a placebo adds to the logits, nats"
    )
    gap_weight: float = Field(
        1.0, ge=0, le=LARGEST_WEIGHT, description="pesf_kd: weight of the penalty (gap - gap_target)²"
    )

    @model_validator(mode="after")
    def _an_objective_as_released(self) -> Self:
        wanted = _DISTANCES.get(self.pesf_variant, self.distance)
        if self.distance != wanted:
            raise ValueError(
                f"pesf_variant {self.pesf_variant!r} measures the distance {wanted!r}, not {self.distance!r}: "
                f"set distance={wanted}"
            )
        if self.pesf_variant != "paper" and self.gap_control != "none":
            raise ValueError(
                f"pesf_variant {self.pesf_variant!r} imposes no gap, and gap_control is {self.gap_control!r}: "
                "choose gap_control none, or pesf_variant paper"
            )
        return self


class LabelSmoothingSettings(MethodSettings):
    """Settings of `label_smoothing`."""

    label_smoothing: float = Field(0.1, ge=0, lt=1, description="share of each label spread over all classes")


SPECS: Final = (
    MethodSpec("ce", needs_teacher=False, no_adapter=NO_TEACHER),
    MethodSpec(
        "kd",
        WeightSettings,
        TEMPERATURE,
        no_adapter="kd with an adapter is pesf_kd",
        published={"temperature": 4.0, "ce_weight": 0.1, "kd_weight": 0.9},
    ),
    MethodSpec(
        "pesf_kd",
        PesfKdSettings,
        TEMPERATURE,
        has_adapter=True,
        published=AS_PUBLISHED,
        published_on_text=AS_PUBLISHED_ON_TEXT,
    ),
    MethodSpec(
        "label_smoothing",
        LabelSmoothingSettings,
        needs_teacher=False,
        no_adapter=NO_TEACHER,
        published={"label_smoothing": 0.1},
    ),
)
