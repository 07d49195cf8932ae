"""Search space: adapter kind, and settings for adapter training."""

from search_spaces.baseline import baseline_without
from search_spaces.space import Parameter, SearchSpace

_VARIED = (
    Parameter(
        name="adapter_kind",
        kind="categorical",
        role="scientific",
        value="serial",
        choices=("serial", "parallel", "logit", "feature"),
        why=(
            "PESF-KD's vision and language code use different kinds; `logit` and `feature` limit the inputs of "
            "the correction"
        ),
    ),
    Parameter(
        name="adapter_init",
        kind="categorical",
        role="scientific",
        value="zero",
        choices=("zero", "default"),
        why="zero starts from plain distillation, PyTorch's default from a randomly perturbed teacher",
    ),
    Parameter(
        name="detach_adapter_target",
        kind="categorical",
        role="scientific",
        value=False,
        choices=(False, True),
        why="True blocks the student's gradient to the adapter, which is then only fine-tuned on labels; this "
        "separates student-friendliness from a better teacher",
    ),
    Parameter(
        name="adapter_learning_rate",
        kind="float",
        role="scientific",
        value=0.005,
        low=0.0005,
        high=0.1,
        log=True,
        why="how fast the adapted teacher changes is part of the question; from a hundredth of the student's "
        "learning rate to twice that rate, on a log scale",
    ),
    Parameter(
        name="adapter_schedule",
        kind="categorical",
        role="nuisance",
        value="cosine",
        choices=("constant", "cosine", "step"),
        why="the best learning rate depends on the schedule",
    ),
)

SPACE = SearchSpace(
    name="adapter_training",
    question=(
        "Which kind of adapter, with which initialisation, learning rate and source of gradients, helps the "
        "student most?"
    ),
    parameters=(*_VARIED, *baseline_without(_VARIED)),
)
