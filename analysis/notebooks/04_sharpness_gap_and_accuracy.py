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
# PESF-KD claims that a student learns more from a teacher of similar sharpness. This notebook examines whether gap and
# score are associated in one study, whether other varied fields explain the association, and which effect the gap has
# if the study *imposed* it. The *score* of a student is the objective of the task: accuracy, or F1 or Matthews
# correlation for some text tasks.
#
# The notebook uses four gaps. The gap of the paper is the difference of log-sum-exps. A constant added to all logits
# changes this gap, but does not affect the student. The *centred* gap removes that constant. The *tempered* gap is
# computed at the temperature of the trial, and the *entropy* gap from the soft labels. All gaps are positive if the
# teacher is sharper.
#
# One association is named in advance for every study: **the centred gap with the score, between the configs of the
# search, with learning rates and schedules held.** The p-values of the others are corrected for their number. An
# association is *clear* if the interval and the test both exclude 0.

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
from analysis.reading.trials import EXAMPLES, objective, open_study
from analysis.wording.sentences import (
    association_in_words,
    by_verdict,
    how_many,
    quoted,
    quoted_points,
    study_in_words,
    verdict,
)
from trainables.display.numbers import format_number, listed

# Enter the folder of your own study here, or set the environment variable. A study of the space gap_target imposes the
# gap. Of the shipped studies, one observed the gap and another imposed it.
OWN = os.environ.get("PESFKD_STUDY")
STUDY = Path(OWN or EXAMPLES / "fashion-temperature")
SET_BY = Path(OWN or EXAMPLES / "fashion-gap")

records = open_study(STUDY)
trials, score = records.trials, objective(records.trials)
Markdown(study_in_words(trials, STUDY.name))

# %% [markdown]
# ## Observed: gap and score in the search

# %%
draw_gap_against_accuracy(compute_gap_against_accuracy(records))

# %% [markdown]
# ## Every gap, between configs and within them
#
# *Between* configs, gap and score may be associated through any field of the config. Holding the varied fields
# removes the part that they explain. *Within* a config, only the seeds differ. The two associations may have opposite
# signs and are reported separately.

# %%
associations = gap_associations(records)
defined = [each for each in associations if isfinite(each.estimate.value)]
groups = {}
for each in defined:
    groups.setdefault(association_in_words(each), []).append((f"{each.gap} gap", each.estimate))
notes = "; ".join(dict.fromkeys(f"{each.evidence}: {each.note}" for each in associations))
draw_estimates(
    f"Rank correlation of gap and {score}",
    groups,
    f"Intervals exclude 0 if the test of the correlation rejects; none if there are too few configs. {notes}.",
    f"rank correlation with {score}, −1 to 1",
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
observed = (
    "The study has no search, so the association named in advance does not exist here"
    if named is None
    else f"The association named in advance, the centred gap {association_in_words(named)}, is "
    f"{quoted(named.estimate)}: "
    + by_verdict(
        named.estimate,
        up="a larger gap went with better students",
        down="a smaller gap went with better students",
        unsure="the sign is open, since interval and test do not both exclude 0",
        undefined="there are too few configs for a value or an interval",
    )
)
Markdown(
    f"{observed}. Of the {len(others)} other associations that can be computed, {how_many(len(clear))} clear after "
    f"correction for all {len(others)}"
    + (f": {listed(clear)}. " if clear else ". ")
    + (f"{undefined} more cannot be computed from so few configs." if undefined else "")
)

# %% [markdown]
# With *all* varied fields held, only the part of the association that these fields do not explain remains. If no
# association remains, the gap may only accompany another field, such as the temperature.

# %%
whole = [each for each in associations if each.evidence == "exploratory" and each.level == "between"]
whole = [each for each in whole if each.gap == "centred"]
Markdown("\n".join(f"- The centred gap {association_in_words(each)}: {quoted(each.estimate)}." for each in whole))

# %% [markdown]
# ## Both levels in one model
#
# A regression of the score on the mean gap of each config, and on the deviation of each trial from that mean, over
# fresh seeds. The config is a random effect, and the effect within configs may differ between them. Its mean over
# configs is estimated, so the configs are the independent units of both effects.

# %%
model = gap_mixed_model(records, "centred")
spread = (
    f"The standard deviation between configs is {format_number(100 * model.config_sd, 2)} points, and between seeds of "
    f"one config {format_number(100 * model.seed_sd, 2)} points. The effect within configs differs between them by "
    f"{format_number(100 * model.slope_sd, 2)} points per nat. "
    if isfinite(model.config_sd)
    else ""
)
effects = (
    f"One nat of centred gap is associated with {quoted_points(model.between)} of {score} between configs and with "
    f"{quoted_points(model.within)} within configs. {spread}"
    if isfinite(model.between.value)
    else f"The model is not defined here: {model.between.n} configs of the searched method ran on fresh seeds, and "
    "the model needs at least four. "
)
Markdown(f"{effects}{model.evidence.capitalize()}: {model.note or 'no trials'}.")

# %% [markdown]
# ## Mediation by the gap
#
# Linear mediation splits the effect of a config field on the score into a part through the gap and the rest. The split
# is causal only under the assumptions listed below.

# %%
fields = scientific_fields(trials)
treatment = fields[0] if fields else None
split = gap_mediation(records, treatment, "centred") if treatment else None
Markdown(
    f"{split.unit.capitalize()} changes {score} by {quoted_points(split.total)} in total: by "
    f"{quoted_points(split.indirect)} through the centred gap, and by {quoted_points(split.direct)} otherwise. "
    + (
        "The total may be 0, so no share can be computed. "
        if not isfinite(split.share.value)
        else f"The share through the gap is {quoted(split.share)}"
        + (
            ": the interval contains all values from 0 to 1, so the share is open. "
            if split.share.low < 0 and split.share.high > 1
            else ". "
        )
    )
    + f"Given {treatment}, the correlation of gap and {score} is {quoted(split.robustness)}. An unmeasured common "
    "cause that produces this correlation would explain the entire indirect effect. "
    f"{split.evidence.capitalize()}: {split.note}.\n\nAssumptions:\n\n"
    + "\n".join(f"- {assumption}" for assumption in split.assumptions)
    if split and isfinite(split.total.low)
    else f"There are too few configs to split the effect of {treatment} ({split.total.n})."
    if split
    else "The search varied no numeric field except learning rates, so there is no effect to split."
)

# %% [markdown]
# ## Imposed gap
#
# A study of the space `gap_target` imposes gaps drawn at random, independent of the score. The placebo arm adds a
# constant to all teacher logits, which changes the gap of the paper but does not affect the student. Only such a study
# shows the *effect* of a smaller gap.

# %%
arms = imposed_gaps(open_study(SET_BY))
effects = [
    f"- **{arm.control}** ({arm.evidence}): one nat of target changes {arm.objective} by "
    f"{quoted_points(arm.effect)}, and the gap by {quoted(arm.reached)} nats: "
    + by_verdict(
        arm.effect,
        up="a larger gap made better students",
        down="a smaller gap made better students",
        unsure="no clear effect",
        undefined="too few configs for an interval",
    )
    + "."
    for arm in arms
]
set_gap = (
    (f"In {SET_BY.name}:\n\n" + "\n".join(effects))
    if effects
    else (
        f"{SET_BY.name} imposed no gap. `python -m study.launch --space gap_target --sampler random` runs such a "
        "study. Enter the study folder at the top."
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
    f" With {listed(after_all.held) if len(after_all.held) < 4 else f'all {len(after_all.held)} varied fields'} held, "
    f"it is {quoted(after_all.estimate)}: "
    + by_verdict(
        after_all.estimate,
        up="the association remains",
        down="the association remains",
        unsure="the remaining association is open, so the gap may only accompany those fields",
        undefined="too few configs for the number of held fields",
    )
    + "."
    if after_all
    else ""
)
Markdown(
    f"**Observed.** {observed}.{left}\n\n**Imposed.** {set_gap}\n\n"
    f"**Conclusions.** The association of gap and {score} for these configs, at the landmark. **Limits.** "
    + (
        "Observed associations are not effects. The arms above show effects, if the targets were drawn independently "
        f"of {score}."
        if arms
        else "Whether a smaller gap makes a student better is open: the gap was not imposed in this study."
    )
)
