"""Methods with another trained network: a peer, the teacher itself, or a special teacher beforehand."""

from typing import Final, Literal

from pydantic import Field

from trainables.spec.bounds import LARGEST_WEIGHT, LOWEST_TEMPERATURE
from trainables.spec.methods.settings import AdapterTrainingSettings, MethodSettings, WeightSettings
from trainables.spec.methods.spec import NO_TEACHER, TEMPERATURE, MethodSpec

Ensemble = Literal["mean", "linear", "min_logit"]


class KdclSettings(WeightSettings):
    """Settings of `kdcl`."""

    kdcl_ensemble: Ensemble = Field("min_logit", description="kdcl: how the two networks' logits become one")


class DualStudentSettings(WeightSettings):
    """Settings of `dual_student`."""

    dual_student_peer_weight: float = Field(
        0.5, ge=0, le=LARGEST_WEIGHT, description="dual_student: weight of the peer; the teacher's weight is 1"
    )


class FullTeacherSettings(AdapterTrainingSettings, WeightSettings):
    """Settings of `full_teacher`, which trains the teacher with adapter settings."""


class FriendlyTeacherSettings(MethodSettings):
    """Settings for training the teacher of `sftn`."""

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


class SftnSettings(FriendlyTeacherSettings, WeightSettings):
    """Settings of `sftn`."""


SPECS: Final = (
    MethodSpec(
        "dml",
        WeightSettings,
        TEMPERATURE,
        needs_teacher=False,
        no_adapter=NO_TEACHER,
        peer="teacher",
        published={"temperature": 1.0, "ce_weight": 1.0, "kd_weight": 1.0},
    ),
    # The minimum-logit ensemble is from the paper. The temperature is from memory and was not checked against the
    # paper.
    MethodSpec(
        "kdcl",
        KdclSettings,
        TEMPERATURE,
        needs_teacher=False,
        no_adapter=NO_TEACHER,
        peer="teacher",
        published={"temperature": 2.0, "ce_weight": 1.0, "kd_weight": 1.0, "kdcl_ensemble": "min_logit"},
    ),
    # Temperature and weights are our choice: only the abstract of the paper was available.
    MethodSpec(
        "dual_student",
        DualStudentSettings,
        TEMPERATURE,
        peer="student",
        no_adapter="two students learn from the teacher, and an adapter would follow one of them",
        published={"temperature": 4.0, "ce_weight": 1.0, "kd_weight": 1.0, "dual_student_peer_weight": 0.5},
    ),
    # The config's defaults apply. The method differs from pesf_kd only in the trained module: the teacher, not an
    # adapter.
    MethodSpec(
        "full_teacher",
        FullTeacherSettings,
        TEMPERATURE,
        trains_teacher=True,
        no_adapter="it trains the whole teacher in the adapter's place",
    ),
    MethodSpec(
        "sftn",
        SftnSettings,
        TEMPERATURE,
        teacher_settings=FriendlyTeacherSettings,
        no_adapter="its teacher is adapted to the student in a separate training beforehand",
        modality="images",
        published={
            "temperature": 4.0,
            "ce_weight": 0.1,
            "kd_weight": 0.9,
            "sftn_temperature": 4.0,
            "sftn_ce_weight": 1.0,
            "sftn_kl_weight": 3.0,
            "sftn_branch_ce_weight": 1.0,
        },
    ),
)
