"""Search space: temperature for the distillation targets with an adapted teacher."""

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
        why="from unsoftened outputs to nearly matching logits; log scale, because logits are divided by the "
        "temperature",
    ),
    Parameter(
        name="adapter_learning_rate",
        kind="float",
        role="nuisance",
        value=0.005,
        low=0.0005,
        high=0.1,
        log=True,
        why="the factor T² keeps the size of the distillation gradient only roughly constant over temperatures, "
        "while the adapter's cross-entropy gradient does not depend on the temperature",
    ),
)

SPACE = SearchSpace(
    name="temperature",
    question="Which temperature is best for a student when the sharpness of the teacher adapts to the student?",
    parameters=(*_VARIED, *baseline_without(_VARIED)),
)
