"""Search space: kind of the adapter, and settings of the adapter's training."""

from search_spaces.baseline import baseline_without
from search_spaces.space import Parameter, SearchSpace

_VARIED = (
    Parameter(
        name="adapter_kind",
        kind="categorical",
        role="scientific",
        value="serial",
        choices=("serial", "parallel", "logit", "feature"),
        why="PESF-KD's vision and language code differ here; `logit` and `feature` bound what the correction may see",
    ),
    Parameter(
        name="adapter_init",
        kind="categorical",
        role="scientific",
        value="zero",
        choices=("zero", "default"),
        why="zero starts from plain distillation, PyTorch's from a randomly disturbed teacher",
    ),
    Parameter(
        name="detach_adapter_target",
        kind="categorical",
        role="scientific",
        value=False,
        choices=(False, True),
        why="True stops the student from moving the teacher: what is left is fine-tuning on labels, which "
        "tells student-friendliness from a better teacher",
    ),
    Parameter(
        name="adapter_learning_rate",
        kind="float",
        role="scientific",
        value=0.005,
        low=0.0005,
        high=0.1,
        log=True,
        why="how fast the teacher may follow is part of this question; from a hundredth of the student's "
        "rate to twice it, in ratios",
    ),
    Parameter(
        name="adapter_schedule",
        kind="categorical",
        role="nuisance",
        value="cosine",
        choices=("constant", "cosine", "step"),
        why="the rate that works depends on whether and when it decays",
    ),
)

SPACE = SearchSpace(
    name="adapter_training",
    question="Which adapter, started and trained how fast and by whose gradient, helps the student most?",
    parameters=(*_VARIED, *baseline_without(_VARIED)),
)
