"""Search space: temperature of the distillation targets with an adapted teacher."""

from search_spaces.baseline import baseline_without
from search_spaces.space import Parameter, SearchSpace

_VARIED = (
    Parameter(
        name="temperature",
        kind="float",
        role="scientific",
        value=4.0,
        low=1.0,
        high=16.0,
        log=True,
        why="from the unsoftened outputs to where the loss is close to matching logits; it divides logits, "
        "so equal ratios are equal steps",
    ),
    Parameter(
        name="adapter_learning_rate",
        kind="float",
        role="nuisance",
        value=0.005,
        low=0.0005,
        high=0.1,
        log=True,
        why="T² holds the size of the distillation gradient only roughly as temperature moves, and the "
        "adapter feels that against a cross-entropy that does not move",
    ),
)

SPACE = SearchSpace(
    name="temperature",
    question="Which temperature serves a student best once the teacher's sharpness adapts to it?",
    parameters=(*_VARIED, *baseline_without(_VARIED)),
)
