"""Checks of a plan with bounds from the user, made before any work starts.

The method, or one of the compared methods, must read each field. Each combination of smallest and largest values and
listed names must be a valid config. The sampler, packs and workers must be able to serve all configs.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, Final

from pydantic import ValidationError

from search_spaces import Bounds, Parameter
from search_spaces.bounds import in_words
from search_spaces.space import Value
from study.plan.bounds import FLAG
from study.plan.plan import StudyPlan
from study.plan.spaces import typed_space
from study.plan.validation import describe_validation
from trainables.display.numbers import listed
from trainables.process.errors import UsageError
from trainables.spec.architectures import is_packable, is_pretrained_text_name
from trainables.spec.methods import METHOD_SPECS, method_spec
from trainables.spec.methods.row_names import NAMING_FIELDS
from trainables.spec.modality import is_text
from trainables.spec.searchable import fields_read
from trainables.spec.text_defaults import rate_of
from trainables.spec.trial import TrialConfig

# Above this number of combinations, only the combinations of each pair of fields are tried.
_MOST_CORNERS: Final = 512


def check_bounds(plan: StudyPlan) -> None:
    """Check that the user's bounds fit the methods, the sampler and the resources of a study.

    Raises:
        UsageError: a field or a combination of values cannot be searched. The message names the argument.
    """
    if not plan.given_bounds:
        return
    _check_read(plan)
    _check_student(plan)
    _check_sampler(plan)
    for config in _corners(plan):
        _check_resources(plan, config)


def _argument(plan: StudyPlan, bounds: Bounds) -> str:
    """Return the argument with these bounds. For bounds from a user space, return the space and the bounds."""
    if bounds in plan.search:
        return f"{FLAG} {bounds.text}"
    return f"--space {typed_space(plan.space)}: {bounds.text}"


def _arguments(plan: StudyPlan, bounds: Sequence[Bounds]) -> str:
    return listed([_argument(plan, each) for each in bounds])


def _check_read(plan: StudyPlan) -> None:
    configs = [plan.configure(method.fields) for method in plan.compared] or [plan.example_config]
    read = frozenset().union(*map(fields_read, configs))
    for bounds in plan.given_bounds:
        if plan.compared and bounds.field in NAMING_FIELDS:
            raise UsageError(
                f"{_argument(plan, bounds)}: in a comparison, another {bounds.field} is another method, and all "
                "trials of a method share its name: leave it out"
            )
        if bounds.field not in read:
            raise UsageError(f"{_argument(plan, bounds)}: {_unread(plan, bounds.field)}")


def _unread(plan: StudyPlan, field: str) -> str:
    """Return why a field cannot be searched if no method reads it."""
    if field == "student_layers":
        return "it chooses the layers of a student bert:N on text, and the study has none: leave it out"
    who = f"method {plan.base.method!r} does not" if not plan.compared else "none of the compared methods"
    own = plan.base.method_spec.teacher_fields
    if field in own:
        return f"it is of the teacher that method {plan.base.method!r} trains once for all trials: fix it with --set"
    able = [name for name in METHOD_SPECS if field in method_spec(name).fields]
    able += [
        f"{name} with --adapter"
        for name in METHOD_SPECS
        if name not in able and field in method_spec(name, adapter=True).fields
    ]
    return f"{who} read {field}; methods that do: {', '.join(able) or 'none'}"


def _check_student(plan: StudyPlan) -> None:
    """Check that a study can have several students."""
    if len(plan.students) == 1:
        return
    (bounds,) = (each for each in plan.given_bounds if each.field == "student")
    shown = _argument(plan, bounds)
    if plan.compared:
        raise UsageError(
            f"{shown}: a comparison of methods is of one student, so that methods are paired: give one by --student"
        )
    if plan.base.method_spec.teacher_fields:
        raise UsageError(
            f"{shown}: method {plan.base.method!r} trains its teacher for one student: give one by --student"
        )
    if plan.pack == "auto":
        raise UsageError(f"{shown}: --pack auto measures one student: give a number of trials, or leave out --pack")
    if not is_text(plan.base.dataset):
        return
    folders = [name for name in plan.students if is_pretrained_text_name(name)]
    if folders:
        raise UsageError(
            f"{shown}: among several, students are bert_L_H or bert:N; give {folders[0]} alone, by --student"
        )
    varied = {each.field for each in plan.given_bounds} | {*plan.search_space.varied} | plan.overrides.keys()
    rates = {rate_of(name) for name in plan.students}
    if len(rates) > 1 and "student_learning_rate" not in varied:
        raise UsageError(
            f"{shown}: students with fresh weights and students with layers of the teacher need different learning "
            f"rates ({', '.join(f'{rate:g}' for rate in sorted(rates))}): add {FLAG} "
            "student_learning_rate=1e-5:1e-3:log"
        )


def _check_sampler(plan: StudyPlan) -> None:
    named = [each for each in plan.given_bounds if each.kind == "categorical"]
    if plan.sampler == "cmaes" and named:
        raise UsageError(
            f"--sampler cmaes searches ranges of numbers alone, and {_arguments(plan, named)} "
            f"{'lists' if len(named) == 1 else 'list'} values: choose tpe, random, qmc, gp or nsga2, or give LOW:HIGH"
        )


def _corners(plan: StudyPlan) -> Iterator[TrialConfig]:
    """Yield the config for each combination of extreme values with at least one of the user's bounds.

    Raises:
        UsageError: a combination is not a valid config.
    """
    given = {each.field: each for each in plan.given_bounds}
    for search in plan.searches:
        varied = [each for each in search.parameters if each.role != "fixed"]
        own = [each.name for each in varied if each.name in given]
        start = {**search.start, **{each.name: each.value for each in search.parameters}}
        for point in _points(varied, own):
            try:
                yield plan.configure({**start, **point})
            except ValidationError as error:
                least, found = _smallest(plan, start, point, error)
                named = [given[name] for name in least if name in given] or [given[name] for name in own]
                raise UsageError(
                    f"{_arguments(plan, named)}: {_combination(least)}{f' for {search.name}' if search.name else ''}: "
                    f"{describe_validation(found)}"
                ) from None


def _combination(point: dict[str, Value]) -> str:
    """Describe an invalid combination."""
    values = ", ".join(f"{name}={in_words(value)}" for name, value in point.items()) or "the start values"
    return f"{values} {'is' if len(point) == 1 else 'are'} not allowed{' together' if len(point) > 1 else ''}"


def _smallest(
    plan: StudyPlan, start: dict[str, Any], point: dict[str, Value], error: ValidationError
) -> tuple[dict[str, Value], ValidationError]:
    """Return a part of an invalid combination that is invalid together with the start values, and the error."""
    least = point
    for name in point:
        fewer = {other: value for other, value in least.items() if other != name}
        try:
            plan.configure({**start, **fewer})
        except ValidationError as found:
            least, error = fewer, found
    return least, error


def _points(varied: list[Parameter], own: list[str]) -> Iterator[dict[str, Value]]:
    """Yield combinations of extreme values: all, or those for each pair of fields with a field in `own`."""
    extremes = {each.name: _extremes(each) for each in varied}
    number = 1
    for values in extremes.values():
        number *= len(values)
    groups = [tuple(extremes)] if number <= _MOST_CORNERS else []
    if not groups:
        groups = [pair for pair in itertools.combinations(extremes, 2) if set(pair) & set(own)]
    for names in groups:
        for point in itertools.product(*(extremes[name] for name in names)):
            yield dict(zip(names, point, strict=True))


def _extremes(parameter: Parameter) -> tuple[Value, ...]:
    if parameter.kind == "categorical":
        numbers = [each for each in parameter.choices if isinstance(each, int | float) and not isinstance(each, bool)]
        return (min(numbers), max(numbers)) if len(numbers) == len(parameter.choices) else parameter.choices
    assert parameter.low is not None
    assert parameter.high is not None
    return (parameter.low, parameter.high)


def _check_resources(plan: StudyPlan, config: TrialConfig) -> None:
    """Check that packs and workers can serve a config. The plan has already checked the base config."""
    if plan.workers_per_trial > config.batch_size:
        raise UsageError(
            f"{FLAG} batch_size: {plan.workers_per_trial} workers cannot share a batch of {config.batch_size} samples: "
            "raise LOW, or use fewer workers"
        )
    if plan.pack in (1, None, "auto"):
        return
    if not is_packable(config.student):
        raise UsageError(
            f"{FLAG} student: students of architecture {config.student!r} cannot be packed: leave out --pack"
        )
    if not config.has_plain_steps:
        raise UsageError(
            f"packed trials need SGD with one learning rate per epoch and without gradient clipping, and "
            f"{_arguments(plan, plan.given_bounds)} include others: leave out --pack"
        )
    if config.draws_in_adapter:
        raise UsageError(
            f"{FLAG} adapter_dropout: packed trials cannot keep the random numbers of adapter_dropout separate: leave "
            "out --pack"
        )
