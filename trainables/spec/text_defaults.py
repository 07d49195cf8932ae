"""What a trial on text begins with instead of what one on images does; imports no torch.

Rates and batches are those of fine-tuning BERT (Devlin et al., 2019) and, of the adapter, of PESF-KD's language code. A
network that begins from first weights has to move further than one that was trained before: it learns at ten times
the rate.
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


# How a teacher is trained on text, beside its recipe.
TEACHER_TRAINING: Final[dict[str, Any]] = {name: _TEXT[name] for name in ("optimiser", "clip_norm", "rate_warmup")}


def text_defaults(values: Mapping[str, Any]) -> dict[str, Any]:
    """What the fields of a trial on text are that nobody gave.

    Args:
        values: fields that were given.
    """
    student = str(values.get("student", _TEXT["student"]))
    return _TEXT | {"student_learning_rate": rate_of(student)}


def rate_of(model: str) -> float:
    """At which AdamW trains a text model of that name unless it is told otherwise."""
    return FIRST_WEIGHTS_RATE if BERT_PATTERN.fullmatch(model) else _FINE_TUNING_RATE
