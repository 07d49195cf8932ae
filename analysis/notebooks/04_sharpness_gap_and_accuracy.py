# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Does a smaller sharpness gap make a better student?
#
# PESF-KD's claim is that a student learns more from a teacher whose outputs are about as sharp as its own. This
# notebook asks one study whether gap and accuracy go together, whether that is more than what else was varied
# along, and, if the study *set* the gap instead of watching it, what setting it did.
#
# Four gaps are looked at. The paper's is the difference of log-sum-exps, which a constant added to all logits
# moves while no student can see it. The *centred* gap leaves that constant out, the *tempered* one is taken at
# the trial's temperature, and the *entropy* gap is of the soft labels themselves. All are positive where the
# teacher is the sharper one.
#
# One association is named in advance, for whatever study is looked at: **the centred gap with accuracy, between
# the configs of the search, the learning rates and schedules held.** The others are corrected for their number.
# An association is called *clear* where its interval and its test both leave out 0.

# %%
# %matplotlib inline
import os
from math import isfinite
from pathlib import Path

from IPython.display import Markdown

from analysis.figures.drawing import draw_estimates
from analysis.figures.intervention import draw_imposed_gaps
from analysis.figures.study import compute_gap_against_accuracy, draw_gap_against_accuracy
from analysis.questions.association import gap_associations
from analysis.questions.intervention import imposed_gaps
from analysis.questions.mediation import gap_mediation
from analysis.questions.mixed import gap_mixed_model
from analysis.questions.parameters import corrected, scientific_fields
from analysis.reading.landmark import nuisance_fields
from analysis.reading.trials import EXAMPLES, open_study
from analysis.wording.sentences import (
    association_in_words,
    by_verdict,
    how_many,
    listed,
    quoted,
    quoted_points,
    study_in_words,
    verdict,
)

# The folder of your own study goes here or into the environment; one of the space gap_target set the gap, and is
# asked what that did. Of the shipped studies one watched the gap and another set it.
OWN = os.environ.get("PESFKD_STUDY")
STUDY = Path(OWN or EXAMPLES / "fashion-temperature")
SET_BY = Path(OWN or EXAMPLES / "fashion-gap")

records = open_study(STUDY)
trials = records.trials
Markdown(study_in_words(trials, STUDY.name))

# %% [markdown]
# ## Watched: gap and accuracy in the search

# %%
draw_gap_against_accuracy(compute_gap_against_accuracy(records))

# %% [markdown]
# ## Every gap, between configs and within them
#
# *Between* configs, gap and accuracy may go together for any reason that a config can have; holding what the
# search varied takes away what those fields explain. *Within* a config only seeds differ. The two may have
# opposite signs and are kept apart.

# %%
associations = gap_associations(records)
defined = [each for each in associations if isfinite(each.estimate.value)]
groups = {}
for each in defined:
    groups.setdefault(association_in_words(each), []).append((f"{each.gap} gap", each.estimate))
notes = "; ".join(dict.fromkeys(f"{each.evidence}: {each.note}" for each in associations))
draw_estimates(
    "Rank correlation of gap and accuracy",
    groups,
    f"Expanded percentile bootstrap intervals over configs, where there are enough of them. {notes}.",
    "rank correlation with accuracy, −1 to 1",
)

# %%
nuisance = nuisance_fields(trials)
named = next(
    (
        each
        for each in associations
        if each.gap == "centred" and each.evidence == "exploratory" and each.held == nuisance
    ),
    None,
)
others = [each for each in defined if each is not named]
p_values = corrected([each.estimate for each in others])
clear = [
    f"the {each.gap} gap {association_in_words(each)} ({quoted(each.estimate, corrected_p=p_value)})"
    for each, p_value in zip(others, p_values, strict=True)
    if verdict(each.estimate, p_value) in ("up", "down")
]
undefined = len(associations) - len(defined)
watched = (
    "The study searched nothing, so the association that was named in advance does not exist here"
    if named is None
    else f"The association named in advance, the centred gap {association_in_words(named)}, is "
    f"{quoted(named.estimate)}: "
    + by_verdict(
        named.estimate,
        up="a larger gap went with better students",
        down="a smaller gap went with better students",
        unsure="its sign is open, as interval and test do not both leave out 0",
        undefined="there are too few configs to define it or to give it an interval",
    )
)
Markdown(
    f"{watched}. Of the {len(others)} other associations that can be computed, {how_many(len(clear))} clear after "
    f"correction for all {len(others)}"
    + (f": {listed(clear)}. " if clear else ". ")
    + (f"{undefined} more cannot be computed from so few configs." if undefined else "")
)

# %% [markdown]
# What is left with *everything* held that the search varied is what the config's own fields do not explain. If
# an association goes away there, the gap may be a mere companion of, say, the temperature.

# %%
whole = [each for each in associations if each.evidence == "exploratory" and each.level == "between"]
whole = [each for each in whole if each.gap == "centred"]
Markdown("\n".join(f"- The centred gap {association_in_words(each)}: {quoted(each.estimate)}." for each in whole))

# %% [markdown]
# ## Both levels in one model
#
# Accuracy on each config's mean gap and on each trial's difference from it, over fresh seeds, with the config as
# a random effect.

# %%
model = gap_mixed_model(records, "centred")
spread = (
    f"Configs differ by a standard deviation of {100 * model.config_sd:.2f} points and seeds of one config by "
    f"{100 * model.seed_sd:.2f}. "
    if isfinite(model.config_sd)
    else ""
)
effects = (
    f"A nat of centred gap goes with {quoted_points(model.between)} of accuracy between configs and with "
    f"{quoted_points(model.within)} within them. {spread}"
    if isfinite(model.between.value)
    else f"The model is not defined here: {model.between.n} configs of the searched method ran on fresh seeds, and one "
    "level for each effect takes at least four. "
)
Markdown(f"{effects}{model.evidence.capitalize()}: {model.note or 'no trials'}.")

# %% [markdown]
# ## How much goes through the gap?
#
# Linear mediation splits the effect of a field of the config on accuracy into what goes through the gap and what
# does not. The split is causal only under the assumptions listed below it.

# %%
fields = scientific_fields(trials)
treatment = fields[0] if fields else None
split = gap_mediation(records, treatment, "centred") if treatment else None
Markdown(
    f"{split.unit.capitalize()} changes accuracy by {quoted_points(split.total)} in all; by "
    f"{quoted_points(split.indirect)} through the centred gap, and by {quoted_points(split.direct)} otherwise. "
    + (
        "As the total may be 0, there is nothing to take a share of. "
        if not isfinite(split.share.value)
        else f"The share that goes through the gap is {quoted(split.share)}"
        + (
            ": its interval holds everything from none of it to all of it, so nothing can be said of the share. "
            if split.share.low < 0 and split.share.high > 1
            else ". "
        )
    )
    + f"Given {treatment}, gap and accuracy are correlated by {quoted(split.robustness)}: an unmeasured cause of both "
    "that leaves as much correlation between them explains the whole indirect effect away. "
    f"{split.evidence.capitalize()}: {split.note}.\n\nIt takes for granted:\n\n"
    + "\n".join(f"- {assumption}" for assumption in split.assumptions)
    if split and isfinite(split.total.low)
    else f"There are too few configs to split the effect of {treatment} ({split.total.n})."
    if split
    else "The search varied no number but rates, so there is no effect to split."
)

# %% [markdown]
# ## Set: an imposed gap
#
# A study of the space `gap_target` pulls the gap to targets that were drawn without looking, and has a placebo: a
# constant on all of the teacher's logits, which moves the paper's gap and which no student can see. Only such a
# study speaks of what narrowing the gap *does*.

# %%
arms = imposed_gaps(open_study(SET_BY))
effects = [
    f"- **{arm.control}** ({arm.evidence}): a nat of target changes accuracy by {quoted_points(arm.effect)}, and the "
    f"gap by {quoted(arm.reached)} nats: "
    + by_verdict(
        arm.effect,
        up="a larger gap made better students",
        down="a smaller gap made better students",
        unsure="no effect that could be told from none",
        undefined="too few configs for an interval",
    )
    + "."
    for arm in arms
]
set_gap = (
    (f"In {SET_BY.name}:\n\n" + "\n".join(effects))
    if effects
    else (
        f"{SET_BY.name} imposed no gap. `python -m study.launch --space gap_target --sampler random` runs a study that "
        "does; name its folder at the top."
    )
)
Markdown(set_gap)

# %%
draw_imposed_gaps(arms) if arms else None

# %% [markdown]
# ## The answer

# %%
after_all = whole[-1] if len(whole) > 1 else None
left = (
    f" With {listed(after_all.held) if len(after_all.held) < 4 else f'all {len(after_all.held)} varied fields'} held "
    f"it is {quoted(after_all.estimate)}: "
    + by_verdict(
        after_all.estimate,
        up="still there",
        down="still there",
        unsure="what is left of it is open, so the gap may be a companion of those fields and nothing more",
        undefined="too few configs beside so much that is held",
    )
    + "."
    if after_all
    else ""
)
Markdown(
    f"**Watched.** {watched}.{left}\n\n**Set.** {set_gap}\n\n"
    "**What follows.** How gap and accuracy went together here, at the landmark and for these configs. **What does "
    "not.** "
    + (
        "That watched associations are effects; the arms above are what speaks of effects, as far as their targets "
        "were drawn without looking at accuracy."
        if arms
        else "That narrowing the gap makes a student better, or that it does not: nobody set the gap in this study."
    )
)
