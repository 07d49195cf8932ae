"""Specifications of the distillation methods by name, without torch.

Each method has one specification here and one module in `trainables.methods`, which defines `METHOD`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal

_WEIGHTS = frozenset({"ce_weight", "kd_weight"})
_DISTILLATION = _WEIGHTS | {"temperature"}
_ADAPTER_TRAINING = frozenset(
    {
        "adapter_ce_weight",
        "detach_adapter_target",
        "adapter_learning_rate",
        "adapter_momentum",
        "adapter_weight_decay",
        "adapter_schedule",
    }
)
_FRIENDLY = frozenset({"sftn_temperature", "sftn_ce_weight", "sftn_kl_weight", "sftn_branch_ce_weight"})
_GAP = frozenset({"gap_control", "gap_target", "gap_weight"})
_ADAPTER = _ADAPTER_TRAINING | {"adapter_kind", "adapter_width", "adapter_init"}


@dataclass(frozen=True)
class MethodSpec:
    """Specification of a method: fields, required networks and published values.

    Args:
        name: name of the method and of the module in `trainables.methods`.
        fields: config fields that this method reads; fields that every method reads are not listed.
        has_adapter: whether an adapter is trained with the student.
        takes_adapter: whether an adapter is optional, enabled by the config's `adapter`.
        needs_teacher: whether the student distils from a teacher that is trained beforehand.
        peer: for methods with a peer, the field of a trial's config that names the peer's architecture. The peer trains
            from scratch together with the student.
        needs_maps: whether the losses use the feature maps of both networks. The teacher must then be live, because
            stored outputs have no maps, and both architectures must provide maps.
        teacher_fields: subset of `fields` for methods that train a special teacher for the student beforehand. These
            fields configure the training of that teacher. Empty for methods with an ordinary teacher.
        trains_teacher: whether the teacher continues to train. Teacher outputs then cannot be stored.
        shares_layers: whether the student's layers run twice; see `trainables.models.text.share_layers`.
        smallest_batch: smallest batch size, for losses that compare the samples of a batch.
        modality: data that the method supports: `images` for methods that match maps with height and width, `text` for
            methods that match layers of language models.
        published: values of `fields` to start a comparison from, taken from the paper or the authors' code for
            CIFAR-100 as far as known here. Values that depend on the pair are for resnet32x4 to resnet8x4. Not every
            value was checked against the paper. Fields that are not listed keep the config's defaults.
        published_on_text: the same for text, if the values differ.
    """

    name: str
    fields: frozenset[str] = frozenset()
    has_adapter: bool = False
    takes_adapter: bool = False
    needs_teacher: bool = True
    peer: Literal["student", "teacher"] | None = None
    needs_maps: bool = False
    teacher_fields: frozenset[str] = frozenset()
    trains_teacher: bool = False
    shares_layers: bool = False
    smallest_batch: int = 1
    modality: Literal["any", "images", "text"] = "any"
    published: Mapping[str, float | str] = field(default_factory=dict)
    published_on_text: Mapping[str, float | str] = field(default_factory=dict)

    @property
    def needs_live_teacher(self) -> bool:
        """Whether the teacher must run in every step, because stored outputs are not enough."""
        return self.needs_maps or self.trains_teacher

    @property
    def companion(self) -> Literal["student", "teacher"] | None:
        """Field of a trial's config that names the network trained with the student; None if there is none."""
        return "teacher" if self.trains_teacher else self.peer


METHOD_SPECS: Final[dict[str, MethodSpec]] = {
    spec.name: spec
    for spec in (
        MethodSpec("ce", needs_teacher=False),
        MethodSpec("kd", _DISTILLATION, published={"temperature": 4.0, "ce_weight": 0.1, "kd_weight": 0.9}),
        MethodSpec(
            "pesf_kd",
            _DISTILLATION | _ADAPTER | _GAP | {"distance"},
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
        MethodSpec(
            "label_smoothing",
            frozenset({"label_smoothing"}),
            needs_teacher=False,
            published={"label_smoothing": 0.1},
        ),
        # The temperature is the one of logit_standardisation, in the same unit: only the abstract of the paper was
        # available.
        MethodSpec("atkd", _DISTILLATION, published={"temperature": 2.0, "ce_weight": 1.0, "kd_weight": 1.0}),
        MethodSpec(
            "dkd",
            _DISTILLATION | {"dkd_alpha", "dkd_beta", "warmup_epochs"},
            takes_adapter=True,
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
            "dist",
            _DISTILLATION | {"dist_beta", "dist_gamma"},
            takes_adapter=True,
            smallest_batch=2,
            published={"temperature": 4.0, "ce_weight": 1.0, "kd_weight": 2.0, "dist_beta": 1.0, "dist_gamma": 1.0},
        ),
        MethodSpec(
            "logit_standardisation",
            _DISTILLATION,
            takes_adapter=True,
            published={"temperature": 2.0, "ce_weight": 0.1, "kd_weight": 9.0},
        ),
        MethodSpec(
            "ctkd",
            _WEIGHTS | {"ctkd_temperature_start", "ctkd_temperature_range", "ctkd_curriculum_epochs"},
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
            _WEIGHTS | {"ttm_gamma"},
            published={"ce_weight": 1.0, "kd_weight": 100.0, "ttm_gamma": 0.1},
        ),
        MethodSpec(
            "wttm",
            _WEIGHTS | {"ttm_gamma"},
            published={"ce_weight": 1.0, "kd_weight": 3.0, "ttm_gamma": 0.1},
        ),
        MethodSpec("pkt", _WEIGHTS, smallest_batch=2, published={"ce_weight": 1.0, "kd_weight": 30_000.0}),
        MethodSpec(
            "rkd",
            _WEIGHTS | {"rkd_distance_weight", "rkd_angle_weight"},
            smallest_batch=3,  # an angle has three corners
            published={"ce_weight": 1.0, "kd_weight": 1.0, "rkd_distance_weight": 25.0, "rkd_angle_weight": 50.0},
        ),
        MethodSpec(
            "crd",
            _WEIGHTS | {"crd_dim", "crd_negatives", "crd_temperature", "crd_momentum"},
            published={
                "ce_weight": 1.0,
                "kd_weight": 0.8,
                "crd_dim": 128,
                "crd_negatives": 16_384,
                "crd_temperature": 0.07,
                "crd_momentum": 0.5,
            },
        ),
        MethodSpec(
            "dml",
            _DISTILLATION,
            needs_teacher=False,
            peer="teacher",
            published={"temperature": 1.0, "ce_weight": 1.0, "kd_weight": 1.0},
        ),
        # The minimum-logit ensemble is from the paper. The temperature is from memory and was not checked against the
        # paper.
        MethodSpec(
            "kdcl",
            _DISTILLATION | {"kdcl_ensemble"},
            needs_teacher=False,
            peer="teacher",
            published={"temperature": 2.0, "ce_weight": 1.0, "kd_weight": 1.0, "kdcl_ensemble": "min_logit"},
        ),
        # Temperature and weights are our choice: only the abstract of the paper was available.
        MethodSpec(
            "dual_student",
            _DISTILLATION | {"dual_student_peer_weight"},
            peer="student",
            published={"temperature": 4.0, "ce_weight": 1.0, "kd_weight": 1.0, "dual_student_peer_weight": 0.5},
        ),
        # The config's defaults apply. The method differs from pesf_kd only in the trained module: the teacher, not an
        # adapter.
        MethodSpec("full_teacher", _DISTILLATION | _ADAPTER_TRAINING, trains_teacher=True),
        MethodSpec(
            "sftn",
            _DISTILLATION | _FRIENDLY,
            teacher_fields=_FRIENDLY,
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
        MethodSpec(
            "fitnet",
            _WEIGHTS,
            needs_maps=True,
            modality="images",
            published={"ce_weight": 1.0, "kd_weight": 100.0},
        ),
        MethodSpec(
            "at",
            _WEIGHTS,
            needs_maps=True,
            modality="images",
            published={"ce_weight": 1.0, "kd_weight": 1000.0},
        ),
        MethodSpec(
            "sp",
            _WEIGHTS,
            needs_maps=True,
            smallest_batch=2,
            modality="images",
            published={"ce_weight": 1.0, "kd_weight": 3000.0},
        ),
        MethodSpec(
            "vid",
            _WEIGHTS,
            needs_maps=True,
            modality="images",
            published={"ce_weight": 1.0, "kd_weight": 1.0},
        ),
        # Weights and temperature lie within the ranges searched in the paper. The best values depended on the task.
        MethodSpec(
            "pkd",
            _DISTILLATION | {"pkd_weight", "student_layers"},
            needs_maps=True,
            modality="text",
            published={"temperature": 5.0, "ce_weight": 0.5, "kd_weight": 0.5, "pkd_weight": 100.0},
        ),
        # Temperature, weights, threshold and epochs are our choice: the numbers of the paper were not available.
        MethodSpec(
            "pea_kd",
            _DISTILLATION | {"pea_threshold", "pea_epochs"},
            shares_layers=True,
            modality="text",
            published={"temperature": 4.0, "ce_weight": 0.5, "kd_weight": 0.5, "pea_threshold": 0.9, "pea_epochs": 1},
        ),
    )
}


def method_spec(name: str, *, adapter: bool = False) -> MethodSpec:
    """Return the specification of a method.

    Args:
        name: name of the method.
        adapter: whether to enable the adapter of a method with an optional one.
    """
    spec = METHOD_SPECS[name]
    if adapter and spec.takes_adapter:
        return replace(spec, has_adapter=True, fields=spec.fields | _ADAPTER)
    return spec
