"""Methods for comparing language model layers."""

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
    pea_wrong_threshold: float = Field(
        0.0, ge=0, le=1, description="pea_kd: the same where the teacher is wrong; 0: pea_threshold for both"
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
    # Numbers in the authors' code: T, α and each task's thresholds (`pea_kd.py` names the differences). Tasks without
    # thresholds there use CoLA's. The number of first epochs is ours.
    MethodSpec(
        "pea_kd",
        PeaKdSettings,
        TEMPERATURE,
        shares_layers=True,
        no_adapter="the student first learns how the frozen teacher answers, and an adapter changes the answers",
        modality="text",
        published={
            "temperature": 10.0,
            "ce_weight": 0.3,
            "kd_weight": 0.7,
            "pea_threshold": 0.95,
            "pea_wrong_threshold": 0.7,
            "pea_epochs": 1,
        },
        published_on_task={
            f"glue:{task}": {"pea_threshold": right, "pea_wrong_threshold": wrong}
            for task, right, wrong in (
                ("rte", 0.8, 0.6),
                ("mrpc", 0.95, 0.75),
                ("sst2", 0.98, 0.8),
                ("qnli", 0.98, 0.7),
                ("cola", 0.95, 0.7),
            )
        },
    ),
)
