"""Methods that compare the layers of language models."""

from typing import Final

from pydantic import Field

from trainables.spec.bounds import LARGEST_WEIGHT, MOST_EPOCHS
from trainables.spec.methods.settings import DistanceSettings, WeightSettings
from trainables.spec.methods.spec import TEMPERATURE, MethodSpec


# Pydantic takes the fields of the last base first.
class PkdSettings(DistanceSettings, WeightSettings):
    """Settings of `pkd`."""

    pkd_weight: float = Field(
        100.0, ge=0, le=LARGEST_WEIGHT, description="pkd: weight of the distances between [CLS] states"
    )


class PeaKdSettings(WeightSettings):
    """Settings of `pea_kd`."""

    pea_threshold: float = Field(
        0.9, ge=0, le=1, description="pea_kd: from which probability on the teacher counts as confident"
    )
    pea_epochs: int = Field(
        1, ge=0, le=MOST_EPOCHS, description="pea_kd: first epochs, that tell how the teacher answers"
    )


SPECS: Final = (
    # Weights and temperature lie within the ranges searched in the paper. The best values depended on the task.
    MethodSpec(
        "pkd",
        PkdSettings,
        TEMPERATURE | {"student_layers"},
        takes_adapter=True,
        needs_maps=True,
        modality="text",
        published={"temperature": 5.0, "ce_weight": 0.5, "kd_weight": 0.5, "pkd_weight": 100.0},
    ),
    # Temperature, weights, threshold and epochs are our choice: the numbers of the paper were not available.
    MethodSpec(
        "pea_kd",
        PeaKdSettings,
        TEMPERATURE,
        shares_layers=True,
        modality="text",
        published={"temperature": 4.0, "ce_weight": 0.5, "kd_weight": 0.5, "pea_threshold": 0.9, "pea_epochs": 1},
    ),
)
