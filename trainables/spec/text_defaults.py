"""Default settings for trials on text, where they differ from those on images; imports no torch.

Learning rates and batch sizes follow BERT fine-tuning (Devlin et al., 2019). The adapter's learning rate follows
PESF-KD's language code. A model with fresh weights has to move further than a pretrained model, so the learning rate
for fresh weights is ten times higher.
"""

from collections.abc import Mapping
from typing import Any, Final

from trainables.spec.architectures import BERT_PATTERN

_FINE_TUNING_RATE: Final = 5e-5
FIRST_WEIGHTS_RATE: Final = 5e-4

_TEXT: Final[dict[str, Any]] = {
    "student": "bert_2_128",
    "teacher": "bert_4_128",
    "epochs": 3,
    "batch_size": 32,
    "optimiser": "adamw",
    "clip_norm": 1.0,
    "rate_warmup": 0.1,
    "student_weight_decay": 0.01,
    "student_schedule": "linear",
    "adapter_kind": "parallel",
    "adapter_width": 64,
    "adapter_learning_rate": 1e-5,
    "adapter_weight_decay": 0.01,
    "adapter_schedule": "linear",
    "augmentation": "none",
}


# Settings for training a text teacher, not covered by a recipe.
TEACHER_TRAINING: Final[dict[str, Any]] = {name: _TEXT[name] for name in ("optimiser", "clip_norm", "rate_warmup")}


def text_defaults(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a text trial's default fields.

    Args:
        values: fields given by the user. Only `student` is read, because the learning rate depends on it.
    """
    student = str(values.get("student", _TEXT["student"]))
    return _TEXT | {"student_learning_rate": rate_of(student)}


def rate_of(model: str) -> float:
    """Return a text model's default AdamW learning rate."""
    return FIRST_WEIGHTS_RATE if BERT_PATTERN.fullmatch(model) else _FINE_TUNING_RATE
