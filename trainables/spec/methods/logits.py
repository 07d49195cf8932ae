"""Methods that compare student and teacher logits in other ways than plain distillation.

Scale-decoupled distillation (Wei, Luo and Luo, "Scale Decoupled Distillation", 2024) is not a separate method here.
This method applies the loss of `kd`, `dkd` or `nkd` to logits of the whole image and of image regions. Region logits
need the last feature maps, which stored outputs do not have. Without regions (scale `[1]` in the authors' code), the
method equals `kd`, `dkd` or `nkd`.
"""

from typing import Final

from pydantic import Field

from trainables.spec.bounds import LARGEST_WEIGHT, LOWEST_TEMPERATURE, MOST_EPOCHS
from trainables.spec.methods.settings import MethodSettings, WeightSettings
from trainables.spec.methods.spec import TEMPERATURE, MethodSpec


class WarmupSettings(MethodSettings):
    """Warm-up of the distillation loss."""

    warmup_epochs: int = Field(
        0, ge=0, le=MOST_EPOCHS, description="dkd, dtkd, rld: epochs in which its weight grows linearly"
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


class NkdSettings(WeightSettings):
    """Settings of `nkd`."""

    nkd_gamma: float = Field(1.5, ge=0, le=LARGEST_WEIGHT, description="nkd: weight of the other classes' part")


# Pydantic takes the fields of the last base first.
class RldSettings(WarmupSettings, WeightSettings):
    """Settings of `rld`."""

    rld_alpha: float = Field(
        1.0, ge=0, le=LARGEST_WEIGHT, description="rld: weight of the part of the teacher's confidence"
    )
    rld_beta: float = Field(
        8.0, ge=0, le=LARGEST_WEIGHT, description="rld: weight of the classes below the label; depends on the pair"
    )


class MlkdSettings(WeightSettings):
    """Settings of `mlkd`."""

    mlkd_batch_weight: float = Field(
        1.0, ge=0, le=LARGEST_WEIGHT, description="mlkd: weight of the relations between samples"
    )
    mlkd_class_weight: float = Field(
        1.0, ge=0, le=LARGEST_WEIGHT, description="mlkd: weight of the relations between classes"
    )


class WkdSettings(WeightSettings):
    """Settings of `wkd_l`."""

    wkd_weight: float = Field(
        600.0, ge=0, le=LARGEST_WEIGHT, description="wkd_l: weight of the transport; depends on the pair"
    )
    wkd_sharpening: float = Field(
        1.0, gt=0, le=1000, description="wkd_l: factor of the classes' distances in the cost of the transport"
    )
    wkd_decay_start: float = Field(
        0.625, ge=0, le=1, description="wkd_l: share of the epochs after which the transport's weight falls to 0"
    )


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
    # The settings of the authors' config for resnet34 to resnet18.
    MethodSpec(
        "nkd",
        NkdSettings,
        TEMPERATURE,
        takes_adapter=True,
        two_classes="the part of the other classes (nkd_gamma) is constant, because there is one other class",
        published={"temperature": 3.0, "ce_weight": 1.0, "kd_weight": 1.0, "nkd_gamma": 3.5},
    ),
    MethodSpec(
        "pld",
        WeightSettings,
        TEMPERATURE,
        no_adapter="the teacher's probabilities weight the ranks, and an adapter would move the weight to the last "
        "rank, which costs nothing",
        two_classes="there is nothing to rank after the label, so the loss is a cross-entropy weighted by the "
        "teacher's confidence",
        published={"temperature": 4.0, "ce_weight": 0.0, "kd_weight": 1.0},
    ),
    # The command in the authors' README for vgg13 to vgg8, with the defaults of their code.
    MethodSpec(
        "rld",
        RldSettings,
        TEMPERATURE,
        takes_adapter=True,
        two_classes="the part of the classes below the label (rld_beta) is constant, because there is at most one",
        published={
            "temperature": 4.0,
            "ce_weight": 1.0,
            "kd_weight": 1.0,
            "rld_alpha": 1.0,
            "rld_beta": 8.0,
            "warmup_epochs": 20,
        },
    ),
    MethodSpec(
        "mlkd",
        MlkdSettings,
        TEMPERATURE,
        takes_adapter=True,
        published={
            "temperature": 4.0,
            "ce_weight": 0.1,
            "kd_weight": 0.9,
            "mlkd_batch_weight": 1.0,
            "mlkd_class_weight": 1.0,
        },
    ),
    MethodSpec(
        "wkd_l",
        WkdSettings,
        TEMPERATURE,
        takes_adapter=True,
        needs_class_distances=True,
        two_classes="the transport between the other classes (wkd_weight) is constant, because there is one",
        published={
            "temperature": 8.0,
            "ce_weight": 1.0,
            "kd_weight": 1.0,
            "wkd_weight": 600.0,
            "wkd_sharpening": 1.0,
            "wkd_decay_start": 0.625,
        },
    ),
)
