"""Baseline values of the parameters that a space does not vary, shared by all spaces so that studies are comparable.

With zero initialisation, PESF-KD with an adapter that stays at zero equals the control `kd`: same weights, same
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
        why="RepDistiller's value; it rescales the logits that the gap is about, so it must not move meanwhile",
    ),
    Parameter(
        name="ce_weight",
        kind="float",
        role="fixed",
        value=1.0,
        why="labels weigh about as much as the teacher: with 0.1 on digits the student followed the adapter away from "
        "them (accuracy 0.79 against 0.87, 16 seeds)",
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
        why="one: the labels pull the adapter about as strongly as the student does through the distillation loss",
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
        why="enough to move every class of a ten-class problem, few parameters beside any student",
    ),
    Parameter(
        name="adapter_init",
        kind="categorical",
        role="fixed",
        value="zero",
        why="the first step is plain distillation, so a difference from it comes from training the adapter",
    ),
    Parameter(
        name="detach_adapter_target",
        kind="categorical",
        role="fixed",
        value=False,
        why="the student-friendly part of PESF-KD is that the distillation loss trains the adapter too",
    ),
    Parameter(
        name="adapter_learning_rate",
        kind="float",
        role="fixed",
        value=0.005,
        why="a tenth of the student's: at the student's own rate the adapter flattened the teacher on digits "
        "(accuracy 0.85 against 0.87, 16 seeds)",
    ),
    Parameter(
        name="adapter_schedule",
        kind="categorical",
        role="fixed",
        value="cosine",
        why="ends at zero, so that the last epoch's measures do not depend on where a noisy step fell",
    ),
    Parameter(
        name="student_learning_rate",
        kind="float",
        role="fixed",
        value=0.05,
        why="RepDistiller's value for SGD with momentum 0.9; the same for every config keeps the students alike",
    ),
)


def baseline_without(varied: Collection[Parameter]) -> tuple[Parameter, ...]:
    """Return the fixed baseline parameters except those in `varied`."""
    names = {parameter.name for parameter in varied}
    return tuple(parameter for parameter in BASELINE if parameter.name not in names)
