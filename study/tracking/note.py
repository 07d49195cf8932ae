"""Notes on MLflow's pages: the study's question and plan, and the list of studies in an experiment."""

import json
import re
from collections.abc import Mapping
from typing import Final

from study.plan.plan import StudyPlan
from study.plan.repetitions import replicates_in_words
from study.plan.teacher_choice import describe_teacher
from study.tracking.view import CONFIGS, VIEW_PREFIX, VIEW_TAG, all_trials, configs_view
from trainables.spec.own_data import short_name

# The page shows the first line of an experiment's note, about 150 letters, so the newest study's links stand first.
_LINK: Final = r"\[[a-z ]+\]\([^)\s]*\)"
_NEWEST: Final = re.compile(rf"Results of \*\*.+?\*\* \({_LINK}(?:, {_LINK})*\)\.")
_OTHERS: Final = "Other studies: "
_EARLIER_FORMAT: Final = "Results by study: "  # all links behind the question, as versions before wrote them
_MOST_STUDIES: Final = 20
_REST: Final = "earlier ones under *Views*"


def note_text(plan: StudyPlan) -> str:
    """Return the first part of the parent's note: the question, and the plan in one sentence."""
    return (
        f"**{plan.search_space.question}**\n\n"
        f"{_trials_in_words(plan)} on {replicates_in_words(plan)} fresh seeds each; {plan.base.epochs} epochs; "
        f"{plan.base.teacher} → {', '.join(plan.students)} on {short_name(plan.base.dataset)}. Teacher: "
        f"{describe_teacher(plan)}.{_confirmation_in_words(plan)}"
    )


def _confirmation_in_words(plan: StudyPlan) -> str:
    if plan.confirmation is None:
        return ""
    seeds = plan.confirmation.seeds_in_words
    epochs = f", in {plan.confirm_epochs} epochs each" if plan.confirm_epochs != plan.base.epochs else ""
    request = plan.confirmation
    several = [
        f"{count} {name}" for count, name in ((request.splits, "splits"), (request.teachers, "teachers")) if count > 1
    ]
    over = f", divided over {' x '.join(several)}" if several else ""
    return f" Then the {plan.confirmation.configs} best are confirmed on {seeds} additional seeds{over}{epochs}."


def _trials_in_words(plan: StudyPlan) -> str:
    methods = ", ".join(method.name for method in plan.compared)
    if not plan.compared:
        number = f"At most {plan.trials}" if plan.until is not None else f"{plan.trials}"
        return (
            f"{number} configs by {plan.sampler}, the {min(plan.promising, plan.trials)} best and the controls "
            f"({', '.join(plan.controls)})"
        )
    if plan.searches:
        return f"For each method {plan.trials} configs by {plan.sampler}, and the best of them ({methods})"
    return f"The methods {methods} at their published settings"


def experiment_note(note: str, question: str, tags: Mapping[str, str], experiment_id: str) -> str:
    """Return the note at the top of an experiment's page: links to the views of all studies, and the question.

    Without the links, the page would show only one row per study, and no trial. The newest study's links stand before
    the question, the others behind it.

    Args:
        note: existing note. The user's text is kept.
        question: the studies' question.
        tags: experiment tags, including the saved views.
        experiment_id: the experiment.
    """
    ours = {tag: each for tag, each in tags.items() if tag.startswith(f"{VIEW_TAG}{VIEW_PREFIX}")}
    views = [(tag, json.loads(each)) for tag, each in ours.items() if not tag.endswith(CONFIGS)]
    newest = sorted(views, key=lambda each: -each[1]["createdAt"])
    listed = []
    for tag, view in newest[:_MOST_STUDIES]:
        of = experiment_id, tag.removeprefix(f"{VIEW_TAG}{VIEW_PREFIX}")
        grouped = [f"[configs]({configs_view(*of)})"] if f"{tag}{CONFIGS}" in ours else []  # not in earlier versions
        charts, table = f"[charts]({all_trials(*of, charts=True)})", f"[all trials]({all_trials(*of)})"
        listed.append(f"**{view['name']}** ({', '.join([*grouped, charts, table])})")
    others = listed[1:] + [_REST] * (len(newest) > _MOST_STUDIES)
    lines = (note or question).split("\n")
    found = next((number for number, line in enumerate(lines) if _is_ours(line)), 0)
    text = lines[found].partition(f"{_OTHERS}**")[0].partition(_EARLIER_FORMAT)[0].strip()
    place = _NEWEST.search(text)
    before, after = (text[: place.start()], text[place.end() :]) if place else ("", f" {text}")
    behind = f" {_OTHERS}{', '.join(others)}" if others else ""
    lines[found] = f"{before}Results of {listed[0]}.{after}{behind}"
    return "\n".join(lines)


def _is_ours(line: str) -> bool:
    return bool(_NEWEST.search(line)) or f"{_OTHERS}**" in line or _EARLIER_FORMAT in line
