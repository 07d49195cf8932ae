"""Comparison of methods after tuning each with the same budget.

Published settings were tuned for networks and data other than the study's, and for some methods more thoroughly than
for others. A comparison at published settings also compares these differences.
"""

from search_spaces.comparison import MethodComparison, TunedParameter

COMPARISON = MethodComparison(
    name="method_tuned",
    question="Which distillation method makes the best student after an equal tuning budget for each?",
    tuned=(
        TunedParameter(
            name="kd_weight",
            kind="float",
            low=0.01,
            high=100.0,
            per="ce_weight",
            why="the same range of kd_weight : ce_weight for every method, from almost only labels to almost only the "
            "teacher; with multiples of the published weight, kd could reach a ratio of 90 and pesf_kd one of 10 (the "
            "best kd on Fashion-MNIST had 41.5). It is extended to a published ratio outside (at, sp and pkt: 1000 and "
            "more), because the scale of those losses depends on the networks",
        ),
        TunedParameter(
            name="temperature",
            kind="float",
            low=1.0,
            high=16.0,
            why="as in the space `temperature`: from unsoftened outputs to nearly matching logits, on a log scale",
        ),
        TunedParameter(
            name="ttm_gamma",
            kind="float",
            low=0.05,
            high=1.0,
            why="the inverse of a temperature of the teacher alone, from temperature 20 to 1, which changes nothing",
        ),
        TunedParameter(
            name="label_smoothing",
            kind="float",
            low=0.01,
            high=0.5,
            why=(
                "the counterpart of the distillation weight for label smoothing, from almost nothing to half of each "
                "label"
            ),
        ),
        TunedParameter(
            name="student_learning_rate",
            kind="float",
            low=0.01,
            high=0.2,
            why=(
                "a larger objective gives larger steps; with one learning rate for all methods, it would win or lose "
                "for that reason"
            ),
        ),
        TunedParameter(
            name="adapter_width",
            kind="int",
            low=2,
            high=256,
            why="as in the space `adapter_width`: from 2 to wider than the features of small students, on a log scale",
        ),
        TunedParameter(
            name="adapter_learning_rate",
            kind="float",
            low=0.0005,
            high=0.1,
            why="as in the space `adapter_width`: from a hundredth of the student's learning rate to twice that rate",
        ),
    ),
)
