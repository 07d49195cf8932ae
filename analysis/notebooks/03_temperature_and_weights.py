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
# # Which temperature and which loss weights serve the student?
#
# PESF-KD weighs three losses: the student's cross-entropy (`ce_weight`), its distance to the adapted teacher
# (`kd_weight`, at a `temperature`), and the adapter's own cross-entropy (`adapter_ce_weight`), which ties the
# adapter to the labels. This notebook asks which of them mattered to the student's accuracy, and which values it
# preferred.
#
# It looks at every study that it is given by itself, and pools nothing (`06_many_studies` does). The search is
# exploratory: a sampler chose the configs by accuracy, one seed each. Fresh seeds are confirmatory for the
# configs that ran on them. An effect is called *clear* where its interval and its test, corrected for what stands
# beside it, both leave out 0.

# %%
# %matplotlib inline
import os
from math import isfinite
from pathlib import Path

from IPython.display import Markdown
from IPython.display import display as show

from analysis.figures.drawing import draw_estimates
from analysis.figures.study import compute_parameter_effect, draw_parameter_effect
from analysis.questions.importance import range_warnings
from analysis.questions.mediation import gap_mediation
from analysis.questions.parameters import corrected, in_common, parameter_associations, searched_among
from analysis.questions.stability import rank_stability
from analysis.reading.trials import EXAMPLES, markdown_table, open_study, summarise_configs
from analysis.report.folder import read_folder
from analysis.wording.sentences import (
    by_verdict,
    comparisons_in_brief,
    comparisons_in_words,
    confirmed_in_words,
    how_many,
    listed,
    quoted,
    quoted_points,
    stability_in_words,
    study_in_words,
    verdict,
)
from search_spaces import SPACES

# The folders of your own studies go here; or one folder into the environment.
OWN = os.environ.get("PESFKD_STUDY")
STUDIES = [Path(OWN)] if OWN else [EXAMPLES / "fashion-temperature", EXAMPLES / "fashion-joint"]

PARAMETERS = ("temperature", "ce_weight", "kd_weight", "adapter_ce_weight")
folders = {study.name: study for study in STUDIES}
studies = {name: open_study(study) for name, study in folders.items()}
about = [study_in_words(records.trials, name) for name, records in studies.items()]
varied = {name: searched_among(records.trials, PARAMETERS) for name, records in studies.items()}
Markdown("\n\n".join(about))

# %% [markdown]
# ## What went with accuracy in the search
#
# Rank correlations between configs, with the learning rates and schedules held that were varied along. Each
# p-value is corrected for all the parameters of all studies here. Where a search varied many fields over few
# configs, little is left to tell one parameter by, and its interval says so.

# %%
found = [
    (name, each)
    for name, records in studies.items()
    for each in parameter_associations(records, varied[name], outcomes=["accuracy", "centred"])
]
on_accuracy = [(name, each) for name, each in found if each.outcome == "accuracy"]
p_values = corrected([each.estimate for _, each in on_accuracy])
groups = {
    f"with {what}": [(f"{each.parameter}, {name}", each.estimate) for name, each in found if each.outcome == outcome]
    for outcome, what in (("accuracy", "accuracy"), ("centred", "the centred gap"))
}
notes = "; ".join(dict.fromkeys(f"{name}: {each.note}" for name, each in on_accuracy))
draw_estimates(
    "Temperature and loss weights in the search",
    groups,
    f"Partial rank correlations given what only says how training is done, exploratory. {notes}.",
    "rank correlation, −1 to 1",
)

# %%
said = []
for (name, each), p_value in zip(on_accuracy, p_values, strict=True):
    says_little = each.estimate.high - each.estimate.low > 1.8
    what = by_verdict(
        each.estimate,
        corrected_p=p_value,
        up="higher values went with better students",
        down="lower values went with better students",
        unsure="the interval is nearly the whole of −1 to 1, so it says nothing: too few configs beside what is held"
        if says_little
        else "its sign is open",
        undefined="too few configs beside what is held",
    )
    line = f"- **{each.parameter}** in {name}: {quoted(each.estimate, corrected_p=p_value)}: {what}."
    slope = gap_mediation(studies[name], each.parameter, "centred")
    if isfinite(slope.total.low) and not says_little:
        line += f" As a straight line, {slope.unit} changes accuracy by {quoted_points(slope.total)}."
    said.append(line)
Markdown("Exploratory:\n\n" + "\n".join(said))

# %% [markdown]
# ## The parameter that stood out most
#
# For every study, accuracy over the parameter whose rank correlation with it is the largest. It is chosen for
# being the largest, so it looks stronger than it is. The figure shows the trials as they are; its own correlation
# holds nothing.

# %%
strongest = {}
for name, each in on_accuracy:
    size = abs(each.estimate.value)
    if name not in strongest or size > abs(strongest[name].estimate.value):
        strongest[name] = each
for name, each in strongest.items():
    show(Markdown(f"**{name}**, {each.parameter}:"))
    show(draw_parameter_effect(compute_parameter_effect(studies[name], each.parameter)))

# %% [markdown]
# ## Was the range wide enough?

# %%
warned = []
for name, records in studies.items():
    space = SPACES.get(records.trials["space"][0].as_py())
    warned += [f"- {name}: {each.message}." for each in range_warnings(records, space.parameters if space else ())]
Markdown("\n".join(warned) or "No best value crowds at the end of its range.")

# %% [markdown]
# ## Do the studies bear each other out?
#
# Two studies agree as two witnesses only where they looked at different things.

# %%
shared = []
for parameter in PARAMETERS:
    own = [records.trials for name, records in studies.items() if parameter in varied[name]]
    if len(own) > 1:
        values = in_common(own, parameter)
        shared.append(
            f"- {parameter}: {len(own)} studies varied it, and {len(values)} of the values that they tried are the "
            "same in all of them, to the last digit"
            + (": samplers of equal seeds propose equal points, so these are not independent." if values else ".")
        )
Markdown("\n".join(shared) or "No parameter was varied by more than one of the studies here.")

# %% [markdown]
# ## What held on fresh seeds
#
# Differences to plain distillation (`kd` at its own temperature, without an adapter), over seeds that no config
# was chosen by.

# %%
briefs = {}
for name, records in studies.items():
    summaries = summarise_configs(records.trials)
    briefs[name] = comparisons_in_brief(summaries)
    names = {each.config_id: each.name for each in summaries}
    show(Markdown(f"**{name}**\n\n{markdown_table(summaries)}"))
    stable = stability_in_words(rank_stability(records), names)
    show(Markdown(f"Confirmatory:\n\n{comparisons_in_words(summaries)}\n\n{stable}"))
    show(Markdown(confirmed_in_words(read_folder(folders[name]).confirmation(), name)))

# %% [markdown]
# ## The answer

# %%
clear = [
    f"{each.parameter} in {name} ({'higher' if each.estimate.value > 0 else 'lower'} is better, "
    f"{quoted(each.estimate, corrected_p=p_value)})"
    for (name, each), p_value in zip(on_accuracy, p_values, strict=True)
    if verdict(each.estimate, p_value) in ("up", "down")
]
largest_name, largest = max(strongest.items(), key=lambda pair: abs(pair[1].estimate.value))
settled = f"Of {len(on_accuracy)} associations with accuracy, {how_many(len(clear))} clear after correction"
settled += (
    f": {listed(clear)}."
    if clear
    else f". The largest is that of {largest.parameter} in {largest_name}, {quoted(largest.estimate)}, before "
    "correction."
)
Markdown(
    f"{settled} This is exploratory: it says where to look next. Confirmatory: "
    + "; ".join(f"in {name}, {brief}" for name, brief in briefs.items())
    + ".\n\n"
    "**What follows.** Where a next study should look: at what is clear here, and at what has too wide an interval to "
    "be left aside. **What does not.** That a value is the best: the search chose it by a lucky seed, and only a clear "
    "comparison on fresh seeds would say so. Nor that a temperature works *through* the gap; that is the question of "
    "`04_sharpness_gap_and_accuracy`."
)
