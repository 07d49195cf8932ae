"""Comparison of methods after tuning each with the same budget.

Published settings were tuned for other networks and data than those of a study, and for some methods more thoroughly
than for others. A comparison at published settings also compares these differences.
"""

from search_spaces.comparison import MethodComparison, TunedParameter

COMPARISON = MethodComparison(
    name="method_tuned",
    question="Which distillation method makes the best student after an equal tuning budget for each?",
    tuned=(
        TunedParameter(
            name="kd_weight",
            kind="float",
            low=0.001,
            high=10.0,
            relative=True,
            why="each method's loss has a size of its own, so only multiples of its published weight compare; more "
            "room below, as weights of CIFAR nets are too heavy for small ones (at: 1 instead of 1000 on digits)",
        ),
        TunedParameter(
            name="temperature",
            kind="float",
            low=1.0,
            high=16.0,
            why="as in the space `temperature`: from unsoftened outputs to close to matching logits, in ratios",
        ),
        TunedParameter(
            name="ttm_gamma",
            kind="float",
            low=0.05,
            high=1.0,
            why="the inverse of a temperature for the teacher alone, from 20 down to one that changes nothing",
        ),
        TunedParameter(
            name="label_smoothing",
            kind="float",
            low=0.01,
            high=0.5,
            why="what label smoothing has for a distillation weight: from next to nothing to half of each label",
        ),
        TunedParameter(
            name="student_learning_rate",
            kind="float",
            low=0.01,
            high=0.2,
            why="a heavier objective is a larger step: with one rate for all, it would win or lose as that",
        ),
        TunedParameter(
            name="adapter_width",
            kind="int",
            low=2,
            high=256,
            why="as in the space `adapter_width`: two to wider than small students' features, in doublings",
        ),
        TunedParameter(
            name="adapter_learning_rate",
            kind="float",
            low=0.0005,
            high=0.1,
            why="as in the space `adapter_width`: from a hundredth of the student's rate to twice it",
        ),
    ),
)
