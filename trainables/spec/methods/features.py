"""Methods for comparing the features in front of the last layer."""

from typing import Final

from pydantic import Field

from trainables.spec.bounds import LARGEST_WEIGHT, LOWEST_TEMPERATURE
from trainables.spec.methods.pesf_variants import TERM_AS_PUBLISHED
from trainables.spec.methods.settings import WeightSettings
from trainables.spec.methods.spec import MethodSpec


class RkdSettings(WeightSettings):
    """Settings of `rkd`."""

    rkd_distance_weight: float = Field(25.0, ge=0, le=LARGEST_WEIGHT, description="rkd: weight of the distances")
    rkd_angle_weight: float = Field(50.0, ge=0, le=LARGEST_WEIGHT, description="rkd: weight of the angles")


class CrdSettings(WeightSettings):
    """Settings of `crd`."""

    crd_dim: int = Field(128, ge=1, le=65_536, description="crd: width of the embeddings")
    crd_negatives: int = Field(16_384, ge=1, le=1_000_000, description="crd: samples of other classes for each sample")
    crd_temperature: float = Field(
        0.07, ge=LOWEST_TEMPERATURE, le=1000, description="crd: divides the embeddings' products"
    )
    crd_momentum: float = Field(
        0.5, ge=0, lt=1, description="crd: share of the old embedding in the memory bank's update"
    )


SPECS: Final = (
    MethodSpec(
        "pkt",
        WeightSettings,
        takes_adapter=True,
        adapter_term=True,
        needs_feature=True,
        smallest_batch=2,
        published={"ce_weight": 1.0, "kd_weight": 30_000.0},
        published_adapter=TERM_AS_PUBLISHED,
    ),
    MethodSpec(
        "rkd",
        RkdSettings,
        takes_adapter=True,
        adapter_term=True,
        needs_feature=True,
        smallest_batch=3,  # an angle has three corners
        published={"ce_weight": 1.0, "kd_weight": 1.0, "rkd_distance_weight": 25.0, "rkd_angle_weight": 50.0},
        published_adapter=TERM_AS_PUBLISHED,
    ),
    MethodSpec(
        "crd",
        CrdSettings,
        takes_adapter=True,
        adapter_term=True,
        needs_feature=True,
        published={
            "ce_weight": 1.0,
            "kd_weight": 0.8,
            "crd_dim": 128,
            "crd_negatives": 16_384,
            "crd_temperature": 0.07,
            "crd_momentum": 0.5,
        },
        published_adapter=TERM_AS_PUBLISHED,
    ),
)
