"""Search space: weights for the objective's three terms."""

from search_spaces.baseline import baseline_without
from search_spaces.space import Parameter, SearchSpace

_VARIED = (
    Parameter(
        name="ce_weight",
        kind="float",
        role="scientific",
        value=1.0,
        low=0.0,
        high=2.0,
        why="0 distils without labels; linear scale, because 0 is a value of interest",
    ),
    Parameter(
        name="kd_weight",
        kind="float",
        role="scientific",
        value=0.9,
        low=0.1,
        high=2.0,
        why="starts above 0, because without distillation the adapter does not affect the student (the control "
        "`ce` covers that case); linear scale, so that the ratio to ce_weight covers both sides of 1",
    ),
    Parameter(
        name="adapter_ce_weight",
        kind="float",
        role="scientific",
        value=1.0,
        low=0.01,
        high=10.0,
        log=True,
        why="near 0, the adapter ignores the labels and can lower the loss by copying the student; for large "
        "values, it ignores the student; log scale, because the balance is a ratio",
    ),
    Parameter(
        name="student_learning_rate",
        kind="float",
        role="nuisance",
        value=0.05,
        low=0.01,
        high=0.2,
        log=True,
        why="the sum of ce_weight and kd_weight multiplies the student's gradient; with a fixed learning rate, a "
        "larger objective would win or lose only because of its larger steps",
    ),
    Parameter(
        name="adapter_learning_rate",
        kind="float",
        role="nuisance",
        value=0.005,
        low=0.0005,
        high=0.1,
        log=True,
        why="kd_weight and adapter_ce_weight multiply the adapter's gradient in the same way",
    ),
)

SPACE = SearchSpace(
    name="loss_weights",
    question=(
        "How should the student's two losses and the adapter's cross-entropy be weighted relative to each other?"
    ),
    parameters=(*_VARIED, *baseline_without(_VARIED)),
)
