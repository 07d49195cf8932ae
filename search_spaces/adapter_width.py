"""Search space: the adapter's bottleneck width."""

from search_spaces.baseline import baseline_without
from search_spaces.space import Parameter, SearchSpace

_VARIED = (
    Parameter(
        name="adapter_width",
        kind="int",
        role="scientific",
        value=16,
        low=2,
        high=256,
        log=True,
        why="from too narrow to reorder many classes to wider than the features of small students; log scale, "
        "because the effect of a bottleneck depends on the ratio of widths",
    ),
    Parameter(
        name="adapter_learning_rate",
        kind="float",
        role="nuisance",
        value=0.005,
        low=0.0005,
        high=0.1,
        log=True,
        why="the best learning rate of an adapter falls with its width, so one rate for all would favour some "
        "widths; from a hundredth of the student's rate to twice that rate",
    ),
)

SPACE = SearchSpace(
    name="adapter_width",
    question="How does the width of the adapter's bottleneck affect the sharpness gap and the student's accuracy?",
    parameters=(*_VARIED, *baseline_without(_VARIED)),
)
