"""Search space: all adapter and objective parameters vary jointly, to find the best config."""

from search_spaces.space import Parameter, SearchSpace

SPACE = SearchSpace(
    name="joint",
    question=(
        "Which parameters of the objective and of the adapter matter most for the student when all of them vary?"
    ),
    parameters=(
        Parameter(
            name="temperature",
            kind="float",
            role="scientific",
            value=4.0,
            low=1.0,
            high=16.0,
            log=True,
            why="as in the space `temperature`: from unsoftened outputs to nearly matching logits, on a log scale",
        ),
        Parameter(
            name="ce_weight",
            kind="float",
            role="scientific",
            value=1.0,
            low=0.0,
            high=2.0,
            why="as in the space `loss_weights`: linear scale, because 0 (no labels) is a value of interest",
        ),
        Parameter(
            name="kd_weight",
            kind="float",
            role="scientific",
            value=0.9,
            low=0.1,
            high=2.0,
            why="as in the space `loss_weights`: above 0, so that every trial distils",
        ),
        Parameter(
            name="adapter_ce_weight",
            kind="float",
            role="scientific",
            value=1.0,
            low=0.01,
            high=10.0,
            log=True,
            why="as in the space `loss_weights`: log scale, because the balance between labels and student is a ratio",
        ),
        Parameter(
            name="adapter_kind",
            kind="categorical",
            role="scientific",
            value="serial",
            choices=("serial", "parallel", "logit", "feature"),
            why="as in the space `adapter_training`: input and target of the correction",
        ),
        Parameter(
            name="adapter_width",
            kind="int",
            role="scientific",
            value=16,
            low=2,
            high=256,
            log=True,
            why="as in the space `adapter_width`: from 2 to wider than the features of small students, on a log scale",
        ),
        Parameter(
            name="adapter_init",
            kind="categorical",
            role="scientific",
            value="zero",
            choices=("zero", "default"),
            why=(
                "as in the space `adapter_training`: starts from plain distillation or from a randomly perturbed "
                "teacher"
            ),
        ),
        Parameter(
            name="detach_adapter_target",
            kind="categorical",
            role="scientific",
            value=False,
            choices=(False, True),
            why="as in the space `adapter_training`: whether the student's gradient trains the adapter",
        ),
        Parameter(
            name="adapter_learning_rate",
            kind="float",
            role="nuisance",
            value=0.005,
            low=0.0005,
            high=0.1,
            log=True,
            why="width, kind and weights all rescale the adapter's gradient, so each needs its own learning rate",
        ),
        Parameter(
            name="adapter_schedule",
            kind="categorical",
            role="nuisance",
            value="cosine",
            choices=("constant", "cosine", "step"),
            why="the best learning rate of the adapter depends on the schedule",
        ),
        Parameter(
            name="student_learning_rate",
            kind="float",
            role="nuisance",
            value=0.05,
            low=0.01,
            high=0.2,
            log=True,
            why="the sum of ce_weight and kd_weight multiplies the student's gradient; tuning the learning rate "
            "prevents a larger objective from looking like a better one",
        ),
    ),
)
