"""Baseline values for parameters not varied by a space, shared by all spaces so studies are comparable.

With zero initialisation, PESF-KD with an adapter at constant zero equals the control `kd`: same weights, same
temperature.
"""

from collections.abc import Collection

from search_spaces.space import Parameter

BASELINE: tuple[Parameter, ...] = (
    Parameter(
        name="temperature",
        kind="float",
        role="fixed",
        value=4.0,
        why="RepDistiller's value; it rescales the logits that define the gap, so it stays constant",
    ),
    Parameter(
        name="ce_weight",
        kind="float",
        role="fixed",
        value=1.0,
        why="labels have about the weight of the teacher: with 0.1 on digits, the student followed the adapter "
        "away from the labels (accuracy 0.79 instead of 0.87, 16 seeds)",
    ),
    Parameter(
        name="kd_weight",
        kind="float",
        role="fixed",
        value=0.9,
        why="RepDistiller's value for plain distillation",
    ),
    Parameter(
        name="adapter_ce_weight",
        kind="float",
        role="fixed",
        value=1.0,
        why=(
            "with 1, the gradients of the labels and of the distillation loss have about the same size at the adapter"
        ),
    ),
    Parameter(
        name="adapter_kind",
        kind="categorical",
        role="fixed",
        value="serial",
        why="the adapter of PESF-KD's vision code",
    ),
    Parameter(
        name="adapter_width",
        kind="int",
        role="fixed",
        value=16,
        why="enough to change every class of a ten-class problem, with few parameters compared with any student",
    ),
    Parameter(
        name="adapter_init",
        kind="categorical",
        role="fixed",
        value="zero",
        why="the first step is plain distillation, so any difference comes from training the adapter",
    ),
    Parameter(
        name="detach_adapter_target",
        kind="categorical",
        role="fixed",
        value=False,
        why="in PESF-KD, the distillation loss also trains the adapter, which makes the teacher student-friendly",
    ),
    Parameter(
        name="adapter_learning_rate",
        kind="float",
        role="fixed",
        value=0.005,
        why="a tenth of the student's learning rate: at the full rate, the adapter flattened the teacher on "
        "digits (accuracy 0.85 instead of 0.87, 16 seeds)",
    ),
    Parameter(
        name="adapter_schedule",
        kind="categorical",
        role="fixed",
        value="cosine",
        why=(
            "the learning rate ends at zero, so that noise of the last steps does not affect the measures of the "
            "last epoch"
        ),
    ),
    Parameter(
        name="student_learning_rate",
        kind="float",
        role="fixed",
        value=0.05,
        why=(
            "RepDistiller's value for SGD with momentum 0.9; equal for all configs, so that students are trained alike"
        ),
    ),
)


def baseline_without(varied: Collection[Parameter]) -> tuple[Parameter, ...]:
    """Return the fixed baseline parameters except those in `varied`."""
    names = {parameter.name for parameter in varied}
    return tuple(parameter for parameter in BASELINE if parameter.name not in names)
