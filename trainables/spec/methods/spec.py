"""Specification of a distillation method: everything known about a method without torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from trainables.spec.methods.settings import AdapterSettings, AdapterTermSettings, MethodSettings

TEMPERATURE: Final = frozenset({"temperature"})
NO_TEACHER: Final = "it has no frozen teacher with logits that an adapter could change"


@dataclass(frozen=True)
class MethodSpec:
    """Specification of a method: settings, required networks and published values.

    Args:
        name: method name; for methods of this package also the module name in `trainables.methods`.
        settings: the method's settings, without adapter settings.
        trial_fields: fields of every trial, such as `temperature`, also read by the losses.
        has_adapter: whether an adapter is trained with the student.
        takes_adapter: whether an adapter is optional, enabled by the config's `adapter`.
        adapter_term: whether the optional adapter adds a separate distillation term, because the method's losses have
            no teacher logits. See `trainables.methods.adapter_term`.
        no_adapter: why a method without an adapter takes none, as a clause.
        needs_teacher: whether the student distils from a pretrained teacher.
        peer: for methods with a peer, the config field with the peer's architecture. The peer trains from scratch
            together with the student.
        needs_maps: whether the losses use both networks' feature maps. The teacher must then be live, because stored
            outputs have no maps, and both architectures must provide maps.
        needs_feature: whether the losses compare the teacher's penultimate feature. An ensemble has none.
        needs_class_distances: whether the losses use distances between the classes, measured on the frozen teacher's
            logits when a trial begins; see `trainables.run.class_distances`.
        teacher_settings: for methods with a special teacher, trained for the student beforehand, the settings of this
            training. `settings` inherits from this class. None for methods with an ordinary teacher.
        trains_teacher: whether the teacher continues to train. Teacher outputs then cannot be stored.
        shares_layers: whether the student's layers run twice; see `trainables.models.text.share_layers`.
        smallest_batch: smallest batch size, for losses comparing the samples within a batch.
        two_classes: lost part of the losses on a dataset with two classes, as a clause; empty if nothing is lost.
        two_classes_refused: whether two classes leave nothing of the distillation loss, so new studies are refused.
        modality: supported data: `images` for methods matching maps with height and width, `text` for methods matching
            layers of language models.
        published: start values of `fields` for a comparison, taken from the paper or the authors' code for CIFAR-100 as
            far as known here. If values depend on the pair, they are for resnet32x4 to resnet8x4. Not every value was
            checked against the paper. Missing fields keep the config's defaults.
        published_on_text: the same for text, if the values differ.
        published_on_task: further values for a comparison on one dataset, by canonical dataset name.
        published_adapter: further values for a comparison with the optional adapter.
    """

    name: str
    settings: type[MethodSettings] = MethodSettings
    trial_fields: frozenset[str] = frozenset()
    has_adapter: bool = False
    takes_adapter: bool = False
    adapter_term: bool = False
    no_adapter: str = ""
    needs_teacher: bool = True
    peer: Literal["student", "teacher"] | None = None
    needs_maps: bool = False
    needs_feature: bool = False
    needs_class_distances: bool = False
    teacher_settings: type[MethodSettings] | None = None
    trains_teacher: bool = False
    shares_layers: bool = False
    smallest_batch: int = 1
    two_classes: str = ""
    two_classes_refused: bool = False
    modality: Literal["any", "images", "text"] = "any"
    published: Mapping[str, float | str] = field(default_factory=dict)
    published_on_text: Mapping[str, float | str] = field(default_factory=dict)
    published_on_task: Mapping[str, Mapping[str, float | str]] = field(default_factory=dict)
    published_adapter: Mapping[str, float | str] = field(default_factory=dict)

    @property
    def fields(self) -> frozenset[str]:
        """Config fields read by this method; fields read by every method are not listed."""
        adapter = set(AdapterSettings.model_fields) if self.has_adapter else set()
        if self.has_adapter and self.adapter_term:
            adapter |= TEMPERATURE.union(AdapterTermSettings.model_fields)
        return self.trial_fields.union(self.settings.model_fields, adapter)

    @property
    def teacher_fields(self) -> frozenset[str]:
        """Config fields for training the method's special teacher; empty if the teacher is an ordinary one."""
        return frozenset(() if self.teacher_settings is None else self.teacher_settings.model_fields)

    @property
    def needs_live_teacher(self) -> bool:
        """Whether the teacher must run in every step, because stored outputs are not enough."""
        return self.needs_maps or self.trains_teacher

    @property
    def companion(self) -> Literal["student", "teacher"] | None:
        """Config field with the name of the network trained together with the student; None without one."""
        return "teacher" if self.trains_teacher else self.peer
