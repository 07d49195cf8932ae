"""Methods and spaces as users write them, in files."""

METHOD = '''
from pydantic import Field
from torch import Tensor

from trainables.losses.parts import LossParts, StepOutputs
from trainables.methods.method import Method, weighted_sum
from trainables.spec.methods import MethodSpec, WeightSettings


class MatchingSettings(WeightSettings):
    """Settings."""

    matching_power: float = Field(2.0, ge=1, le=8, description="exponent")


def losses(
    outputs: StepOutputs, labels: Tensor, *, matching_power: float, ce_weight: float, kd_weight: float
) -> LossParts:
    """Match logits."""
    difference = outputs.student_logits - outputs.target_logits()
    kd = (difference.abs() ** matching_power).mean()
    return weighted_sum(outputs, labels, kd, ce_weight=ce_weight, kd_weight=kd_weight)


METHOD = Method(MethodSpec("matching", MatchingSettings, published={"matching_power": 1.5, "kd_weight": 0.1}), losses)
'''
SPACE = """
from search_spaces import Parameter, SearchSpace

SPACE = SearchSpace(
    name="powers of my own",
    question="Which power matches logits best?",
    parameters=(
        Parameter(
            name="matching_power", kind="float", role="scientific", low=1.0, high=4.0, value=2.0,
            why="between the absolute and the fourth power",
        ),
        Parameter(
            name="student_learning_rate", kind="float", role="nuisance", low=0.01, high=0.1, log=True, value=0.05,
            why="around the usual rate",
        ),
    ),
)
"""
COMPARISON = """
from search_spaces import MethodComparison
from search_spaces.comparison import TunedParameter

SPACE = MethodComparison(
    name="mine",
    question="Which method is best after tuning its rate and its weight?",
    tuned=(TunedParameter(name="student_learning_rate", kind="float", low=0.01, high=0.1, why="as usual"),),
    searches=1,
)
"""
