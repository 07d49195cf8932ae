"""Methods that compare the logits of student and teacher in other ways than plain distillation."""

from typing import Final

from pydantic import Field

from trainables.spec.bounds import LARGEST_WEIGHT, LOWEST_TEMPERATURE, MOST_EPOCHS
from trainables.spec.methods.settings import MethodSettings, WeightSettings
from trainables.spec.methods.spec import TEMPERATURE, MethodSpec


class WarmupSettings(MethodSettings):
    """Warm-up of the distillation loss."""

    warmup_epochs: int = Field(
        0, ge=0, le=MOST_EPOCHS, description="dkd, dtkd: epochs in which its weight grows linearly"
    )


# Pydantic takes the fields of the last base first.
class DkdSettings(WarmupSettings, WeightSettings):
    """Settings of `dkd`."""

    dkd_alpha: float = Field(1.0, ge=0, le=LARGEST_WEIGHT, description="dkd: weight of the target class's part")
    dkd_beta: float = Field(
        8.0, ge=0, le=LARGEST_WEIGHT, description="dkd: weight of the other classes' part; depends on the pair"
    )


class DtkdSettings(WarmupSettings, WeightSettings):
    """Settings of `dtkd`."""

    dtkd_alpha: float = Field(
        3.0, ge=0, le=LARGEST_WEIGHT, description="dtkd: weight of the part with dynamic temperatures"
    )
    dtkd_beta: float = Field(
        1.0, ge=0, le=LARGEST_WEIGHT, description="dtkd: weight of the part with fixed temperature"
    )


class DistSettings(WeightSettings):
    """Settings of `dist`."""

    dist_beta: float = Field(
        1.0, ge=0, le=LARGEST_WEIGHT, description="dist: weight of the relations within each sample"
    )
    dist_gamma: float = Field(
        1.0, ge=0, le=LARGEST_WEIGHT, description="dist: weight of the relations within each class"
    )


class CtkdSettings(WeightSettings):
    """Settings of `ctkd`, which learns the temperature itself."""

    ctkd_temperature_start: float = Field(1.0, ge=LOWEST_TEMPERATURE, le=1000, description="ctkd: lowest temperature")
    ctkd_temperature_range: float = Field(20.0, gt=0, le=1000, description="ctkd: highest temperature less the lowest")
    ctkd_curriculum_epochs: int = Field(
        10, ge=1, le=MOST_EPOCHS, description="ctkd: epochs until the temperature opposes in full"
    )


class TtmSettings(WeightSettings):
    """Settings of `ttm` and `wttm`."""

    ttm_gamma: float = Field(0.1, gt=0, le=1, description="ttm, wttm: exponent of the teacher's probabilities")


SPECS: Final = (
    # The temperature is the one of logit_standardisation, in the same unit: only the abstract of the paper was
    # available.
    MethodSpec(
        "atkd",
        WeightSettings,
        TEMPERATURE,
        takes_adapter=True,
        two_classes="the teacher's confidence is ignored, because two logits over their deviation always differ by 2",
        published={"temperature": 2.0, "ce_weight": 1.0, "kd_weight": 1.0},
    ),
    MethodSpec(
        "dkd",
        DkdSettings,
        TEMPERATURE,
        takes_adapter=True,
        two_classes="the part of the other classes (dkd_beta) is constant, because there is one other class",
        published={
            "temperature": 4.0,
            "ce_weight": 1.0,
            "kd_weight": 1.0,
            "dkd_alpha": 1.0,
            "dkd_beta": 8.0,
            "warmup_epochs": 20,
        },
    ),
    MethodSpec(
        "dtkd",
        DtkdSettings,
        TEMPERATURE,
        takes_adapter=True,
        published={
            "temperature": 4.0,
            "ce_weight": 1.0,
            "kd_weight": 1.0,
            "dtkd_alpha": 3.0,
            "dtkd_beta": 1.0,
            "warmup_epochs": 20,
        },
    ),
    MethodSpec(
        "dist",
        DistSettings,
        TEMPERATURE,
        takes_adapter=True,
        smallest_batch=2,
        two_classes="the relations within each sample (dist_beta) are constant, because two points always correlate "
        "by 1 or -1",
        published={"temperature": 4.0, "ce_weight": 1.0, "kd_weight": 2.0, "dist_beta": 1.0, "dist_gamma": 1.0},
    ),
    MethodSpec(
        "logit_standardisation",
        WeightSettings,
        TEMPERATURE,
        takes_adapter=True,
        two_classes="two standardised logits are always 1 and -1, so the distillation loss has no gradient",
        two_classes_refused=True,
        published={"temperature": 2.0, "ce_weight": 0.1, "kd_weight": 9.0},
    ),
    MethodSpec(
        "ctkd",
        CtkdSettings,
        takes_adapter=True,
        published={
            "ce_weight": 0.1,
            "kd_weight": 0.9,
            "ctkd_temperature_start": 1.0,
            "ctkd_temperature_range": 20.0,
            "ctkd_curriculum_epochs": 10,
        },
    ),
    MethodSpec(
        "ttm",
        TtmSettings,
        takes_adapter=True,
        published={"ce_weight": 1.0, "kd_weight": 100.0, "ttm_gamma": 0.1},
    ),
    MethodSpec(
        "wttm",
        TtmSettings,
        takes_adapter=True,
        published={"ce_weight": 1.0, "kd_weight": 3.0, "ttm_gamma": 0.1},
    ),
)
