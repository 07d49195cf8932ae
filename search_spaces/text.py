"""Search spaces for text, where AdamW needs learning rates a hundred times smaller and another adapter is used.

Parameters not mentioned here are the same as for images.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from search_spaces.bounds import Bounds
from search_spaces.comparison import MethodComparison, TunedParameter
from search_spaces.space import Parameter, SearchSpace, Value

_RATES: Final = (1e-6, 1e-3)
_STUDENT_RATES: Final = (1e-5, 1e-3)
_WHY_ADAPTER_RATE: Final = (
    "from a tenth of the adapter's learning rate in PESF-KD's language code to a hundred times that rate"
)
_WHY_STUDENT_RATE: Final = (
    "learning rates of AdamW: those of fine-tuning, and up to twenty times that for students trained from scratch"
)

_VALUES: Final[Mapping[str, tuple[Value, str]]] = {
    "adapter_kind": ("parallel", "the adapter of PESF-KD's language code"),
    "adapter_width": (64, "the width of PESF-KD's language code"),
    "adapter_learning_rate": (1e-5, "the adapter's value in PESF-KD's language code"),
    "adapter_schedule": ("linear", "the adapter's learning rate decays in every step, like the student's"),
}


def on_text(space: SearchSpace | MethodComparison) -> SearchSpace | MethodComparison:
    """Return the text version of a search space or comparison.

    A fixed student learning rate is removed from the space. The trial then chooses the rate, based on whether the
    student is pretrained.
    """
    if isinstance(space, MethodComparison):
        tuned = (each if isinstance(each, Bounds) else _TUNED.get(each.name, _same)(each) for each in space.tuned)
        return replace(space, tuned=tuple(tuned))
    kept = (each for each in space.parameters if (each.name, each.role) != ("student_learning_rate", "fixed"))
    return replace(space, parameters=tuple(_parameter(each) for each in kept))


def _parameter(parameter: Parameter) -> Parameter:
    name, varies = parameter.name, parameter.role != "fixed"
    if name == "adapter_learning_rate" and varies:
        return replace(parameter, value=1e-5, low=_RATES[0], high=_RATES[1], log=True, why=_WHY_ADAPTER_RATE)
    if name == "student_learning_rate":
        low, high = _STUDENT_RATES
        return replace(parameter, value=1e-4, low=low, high=high, log=True, why=_WHY_STUDENT_RATE)
    if name not in _VALUES:
        return parameter
    value, why = _VALUES[name]
    if name == "adapter_schedule" and varies:
        return replace(parameter, value=value, choices=("constant", "linear"))
    return replace(parameter, value=value) if varies else replace(parameter, value=value, why=why)


def _same(parameter: TunedParameter) -> TunedParameter:
    return parameter


_TUNED: Final[Mapping[str, Callable[[TunedParameter], TunedParameter]]] = {
    "student_learning_rate": lambda each: replace(each, low=_STUDENT_RATES[0], high=_STUDENT_RATES[1]),
    "adapter_learning_rate": lambda each: replace(each, low=_RATES[0], high=_RATES[1]),
}
