"""Beliefs about good values of searched fields: `--prior temperature=4`.

A belief is a truncated normal distribution around a value, on the field's scale. For categories, the believed category
has all the weight. The first proposal has the believed values. Let n be the proposal number, counted from 0, and b a
tenth of the number of trials. With probability b / (b + n), proposal n draws all believed fields from their
distributions. Otherwise the sampler chooses them. The probability falls at the rate of the exponent b / n of the prior
in πBO (Hvarfner et al., πBO: Augmenting Acquisition Functions with User Beliefs for Bayesian Optimization, ICLR 2022).
πBO weights an acquisition function, which only some samplers have. Drawing whole proposals from the prior works with
every sampler, as in PriorBand (Mallik et al., NeurIPS 2023). The sampler sees the results of these proposals like all
others. A wrong belief therefore costs a share of the trials, which falls with their number.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any, Final, Protocol

from pydantic import BaseModel, ConfigDict, Field

from search_spaces import Bounds, Parameter
from search_spaces.bounds import in_words
from search_spaces.space import Value
from study.plan.bounds import read_value, split_argument
from study.plan.methods import Search
from study.plan.options import OPTIONS
from trainables.process.errors import UsageError
from trainables.spec.searchable import limits_of

_FLAG: Final = OPTIONS["prior"].long_flag
_USUAL_SPREAD: Final = 0.1  # fraction of the range's width, on the field's scale
_INFLUENCE: Final = 0.1  # fraction of the trials
_SMALLEST: Final = 1e-12  # distance of a probability from 0 and 1


class Belief(BaseModel):
    """Belief that a value is good for a field.

    Args:
        field: field in the trial configs.
        value: believed value.
        spread: standard deviation, or a factor above 1 on a log scale; None for a tenth of the range.
        spread: standard deviation, or a factor above 1 on a log scale; None for a tenth of the range.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    field: str
    value: bool | int | float | str
    spread: float | None = Field(None, gt=0)

    @property
    def text(self) -> str:
        """The belief as an argument of `--prior`."""
        spread = "" if self.spread is None else f":{in_words(self.spread)}"
        return f"{self.field}={in_words(self.value)}{spread}"

    def centre(self, parameter: Parameter) -> Value:
        """Return the believed value, or the nearest one on a grid of steps."""
        return _bounds_of(parameter).start(self.value)

    def draw(self, parameter: Parameter, probability: float) -> Value:
        """Return a quantile of the belief within a parameter's bounds.

        Args:
            parameter: searched parameter.
            probability: cumulative probability, from 0 to 1.
        """
        if parameter.kind == "categorical":
            return self.centre(parameter)
        assert parameter.low is not None
        assert parameter.high is not None
        assert isinstance(self.value, int | float)
        low, high, mean = (_scaled(each, log=parameter.log) for each in (parameter.low, parameter.high, self.value))
        deviation = (high - low) * _USUAL_SPREAD if self.spread is None else _scaled(self.spread, log=parameter.log)
        normal = NormalDist(mean, deviation)
        first, last = normal.cdf(low), normal.cdf(high)
        quantile = min(max(first + probability * (last - first), _SMALLEST), 1 - _SMALLEST)
        drawn = normal.inv_cdf(quantile)
        return _bounds_of(parameter).start(math.exp(drawn) if parameter.log else drawn)


class BelievingPlan(Protocol):
    """Study plan with the attributes needed here; implemented by `study.plan.plan.StudyPlan`."""

    @property
    def space(self) -> str:
        """Space name."""

    @property
    def trials(self) -> int:
        """Number of trials per search."""

    @property
    def overrides(self) -> Mapping[str, Any]:
        """Fixed fields."""

    @property
    def searches(self) -> tuple[Search, ...]:
        """The study's searches."""

    @property
    def prior(self) -> tuple[Belief, ...]:
        """Beliefs."""


def read_beliefs(arguments: Sequence[str], methods: Sequence[str] = ()) -> tuple[Belief, ...]:
    """Return the beliefs given by `--prior`.

    Args:
        arguments: one argument for each field, for example `temperature=4` or `temperature=4:2`.
        methods: the user's own methods. Their settings can be searched too.

    Raises:
        UsageError: an argument cannot be read, or a field does not accept the value.
    """
    found: dict[str, Belief] = {}
    for argument in arguments:
        belief = _read(argument, methods)
        if belief.field in found:
            raise UsageError(f"{_FLAG} {argument}: {belief.field} is given twice by {_FLAG}: leave out one of the two")
        found[belief.field] = belief
    return tuple(found.values())


def _read(argument: str, methods: Sequence[str]) -> Belief:
    field, text = split_argument(argument, _FLAG, f"FIELD=VALUE, such as {_FLAG} temperature=4", methods)
    limits, shown = limits_of(field, *methods), f"{_FLAG} {argument}"
    if not text:
        raise UsageError(f"{shown}: no value is given; {field} has {limits.in_words}")
    if limits.kind not in ("float", "int"):
        return Belief(field=field, value=read_value(text, limits, shown), spread=None)
    value, has_spread, spread = (part.strip() for part in text.partition(":"))
    return Belief(
        field=field,
        value=read_value(value, limits, shown),
        spread=_spread(spread, field, value, shown) if has_spread else None,
    )


def _spread(text: str, field: str, value: str, shown: str) -> float:
    try:
        spread = float(text)
    except ValueError:
        raise UsageError(f"{shown}: the spread {text!r} is not a number: give VALUE or VALUE:SPREAD") from None
    if not (math.isfinite(spread) and spread > 0):
        raise UsageError(f"{shown}: the spread must be above 0; to fix the value, give --set {field}={value}")
    return spread


def check_beliefs(plan: BelievingPlan) -> None:
    """Check that a search varies each believed field, and that the value is within the bounds.

    Raises:
        UsageError: a belief does not fit the search. The message names the argument.
    """
    for belief in plan.prior:
        shown = f"{_FLAG} {belief.text}"
        if not plan.searches:
            raise UsageError(f"{shown}: space {plan.space!r} searches nothing: leave it out")
        if belief.field in plan.overrides:
            raise UsageError(f"{shown} and --set {belief.field}: a field is either searched or fixed: leave out one")
        searched = [(search, each) for search in plan.searches for each in _varied(search) if each.name == belief.field]
        if not searched:
            names = dict.fromkeys(each.name for search in plan.searches for each in _varied(search))
            raise UsageError(
                f"{shown}: the study does not search {belief.field}. It searches {', '.join(names)}; --search "
                f"{belief.field}=... adds the field"
            )
        for search, parameter in searched:
            _check_within(belief, parameter, f"{shown}{f', for {search.name}' if search.name else ''}")


def _check_within(belief: Belief, parameter: Parameter, shown: str) -> None:
    value, spread = belief.value, belief.spread
    if parameter.kind == "categorical":
        if not parameter.contains(value):
            raise UsageError(f"{shown}: the search chooses from {parameter.domain}: give one of these values")
        if spread is not None:
            raise UsageError(f"{shown}: listed values have no spread: give {belief.field}={in_words(value)}")
        return
    assert parameter.low is not None
    assert parameter.high is not None
    assert isinstance(value, int | float)
    if not parameter.low <= value <= parameter.high:
        raise UsageError(
            f"{shown}: the value is outside the searched range {parameter.domain}: give a value within it, or a wider "
            f"range by --search {belief.field}=LOW:HIGH"
        )
    if spread is None:
        return
    if parameter.log and spread <= 1:
        raise UsageError(
            f"{shown}: {belief.field} is searched on a log scale, where the spread is a factor: give one above 1, such "
            f"as {belief.field}={in_words(value)}:2"
        )
    widest = parameter.high / parameter.low if parameter.log else parameter.high - parameter.low
    if spread > widest:
        raise UsageError(
            f"{shown}: the spread exceeds the searched range {parameter.domain}: give one up to {in_words(widest)}, or "
            "leave out the belief, which then says nothing"
        )


def believed_point(plan: BelievingPlan, search: Search) -> dict[str, Value]:
    """Return the believed values for a search's fields; empty if no belief concerns them."""
    parameters = {each.name: each for each in _varied(search)}
    return {each.field: each.centre(parameters[each.field]) for each in plan.prior if each.field in parameters}


def drawn_point(plan: BelievingPlan, search: Search, number: int, draws: Sequence[float]) -> dict[str, Value] | None:
    """Return believed fields drawn from the beliefs, or None if the sampler shall choose.

    Args:
        plan: study plan.
        search: search of the proposal.
        number: proposal number, from 1.
        draws: uniform random numbers from 0 to 1, one more than the number of beliefs.
    """
    parameters = {each.name: each for each in _varied(search)}
    beliefs = [each for each in plan.prior if each.field in parameters]
    if not beliefs or draws[0] >= influence(plan.trials, number):
        return None
    drawn = zip(beliefs, draws[1:], strict=False)
    return {each.field: each.draw(parameters[each.field], draw) for each, draw in drawn}


def influence(trials: int, number: int) -> float:
    """Return the probability of drawing a proposal from the beliefs.

    Args:
        trials: number of trials in the search.
        number: proposal number, from 0.
    """
    weight = max(1.0, _INFLUENCE * trials)
    return weight / (weight + number)


def belief_lines(plan: BelievingPlan) -> list[tuple[str, str]]:
    """Return the preview line on the beliefs, as name and text; none without beliefs."""
    if not plan.prior:
        return []
    drawn = sum(influence(plan.trials, number) for number in range(1, plan.trials))
    later = f"about {drawn:.0f} of the {plan.trials} proposals are drawn around this, most of them early"
    return [("believes", f"{_texts(plan)}: proposed first, and {later}" if plan.trials > 1 else _texts(plan))]


def belief_notes(plan: BelievingPlan) -> list[str]:
    """Return a sentence on the beliefs, for tables and reports; none without beliefs."""
    return [f"Beliefs given by {_FLAG} guided the search: {_texts(plan)}."] if plan.prior else []


def _texts(plan: BelievingPlan) -> str:
    return ", ".join(each.text for each in plan.prior)


def _varied(search: Search) -> list[Parameter]:
    return [each for each in search.parameters if each.role != "fixed"]


def _bounds_of(parameter: Parameter) -> Bounds:
    return Bounds(
        field=parameter.name,
        kind=parameter.kind,
        low=parameter.low,
        high=parameter.high,
        log=parameter.log,
        step=parameter.step,
        choices=parameter.choices,
    )


def _scaled(value: float, *, log: bool) -> float:
    return math.log(value) if log else float(value)
