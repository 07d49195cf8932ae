"""GPUs left idle by a study, and the study's trials with the highest memory need."""

import itertools
from typing import Any, Final

from study.plan.plan import StudyPlan
from trainables.spec.trial import TrialConfig

# Fields that determine a trial's memory use. The largest searched value counts.
_SIZES: Final = ("batch_size", "adapter_width")
_LARGER: Final = {"optimiser": "adamw"}  # keeps two numbers per weight, SGD one


def idle_note(plan: StudyPlan, gpus: int) -> str:
    """Return a note on GPUs left unused by a study with `--gpus-per-trial 0`; empty without GPUs."""
    if not gpus or plan.gpus_per_trial != 0:
        return ""
    without = ", without --pack," if plan.pack not in (1, None) else ""
    are = "GPU is" if gpus == 1 else "GPUs are"
    return f"{gpus} {are} idle: --gpus-per-trial auto{without} uses {'it' if gpus == 1 else 'them'}"


def largest_configs(plan: StudyPlan) -> list[TrialConfig]:
    """Return the study configs that may need most memory: each method with each student.

    Batch size and adapter width are the largest searched values.
    """
    largest = _allowed(plan, _largest_values(plan))
    if plan.compared:
        points = [{**method.fields, **largest} for method in plan.compared]
    else:
        own = {**plan.search_space.default_point(), **largest}
        controls = (method for method in plan.controls if method != plan.base.method)
        points = [own, *({**own, "method": method, "adapter": False} for method in controls)]
    return [plan.configure({**point, "student": each}) for each, point in itertools.product(plan.students, points)]


def _largest_values(plan: StudyPlan) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for search in plan.searches:
        for each in search.parameters:
            if each.name in _SIZES and (values := [v for v in (each.high, *each.choices) if v is not None]):
                found[each.name] = max([*values, *([found[each.name]] if each.name in found else [])])
            elif _LARGER.get(each.name) in each.choices:
                found[each.name] = _LARGER[each.name]
    return found


def _allowed(plan: StudyPlan, largest: dict[str, Any]) -> dict[str, Any]:
    """Return the largest values, converted to the types of the config's fields."""
    base = plan.base.model_dump()
    return {name: type(base[name])(value) for name, value in largest.items() if name in base}
