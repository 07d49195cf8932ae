"""Search space: width of the adapter's bottleneck."""

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
        why="from one that can hardly reorder classes to one wider than small students' features; a "
        "doubling, not an added unit, is what changes a bottleneck, hence the log scale",
    ),
    Parameter(
        name="adapter_learning_rate",
        kind="float",
        role="nuisance",
        value=0.005,
        low=0.0005,
        high=0.1,
        log=True,
        why="the step size that suits an adapter falls with its width, so one rate for all would favour some"
        " widths; from a hundredth of the student's rate to twice it",
    ),
)

SPACE = SearchSpace(
    name="adapter_width",
    question="How does the width of the adapter's bottleneck move the sharpness gap and the student's accuracy?",
    parameters=(*_VARIED, *baseline_without(_VARIED)),
)
