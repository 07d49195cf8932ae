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
# # Which temperature and loss weights are best for the student?
#
# PESF-KD weights three losses: the cross-entropy of the student (`ce_weight`), the divergence from the adapted teacher
# (`kd_weight`, at a `temperature`), and the cross-entropy of the adapter (`adapter_ce_weight`), which ties the adapter
# to the labels. This notebook examines which of them affected the score of the student, and which values were best. The
# *score* is the objective of the task: accuracy, or F1 or Matthews correlation for some text tasks.
#
# Each study is analysed separately (`06_many_studies` pools studies). The search is exploratory: a sampler chose the
# configs by score, on one seed each. Fresh seeds are confirmatory for the configs that ran on them. An effect is
# *clear* if the interval and the corrected test both exclude 0.

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
from analysis.reading.trials import EXAMPLES, markdown_table, objective, open_study, summarise_configs
from analysis.report.folder import read_folder
from analysis.wording.sentences import (
    by_verdict,
    comparisons_in_brief,
    comparisons_in_words,
    confirmed_in_words,
    how_many,
    quoted,
    quoted_points,
    stability_in_words,
    study_in_words,
    verdict,
)
from search_spaces import SPACES
from trainables.display.numbers import listed

# Enter the folders of your own studies here, or set the environment variable to one folder.
OWN = os.environ.get("PESFKD_STUDY")
STUDIES = [Path(OWN)] if OWN else [EXAMPLES / "fashion-temperature", EXAMPLES / "fashion-joint"]

PARAMETERS = ("temperature", "ce_weight", "kd_weight", "adapter_ce_weight")
folders = {study.name: study for study in STUDIES}
studies = {name: open_study(study) for name, study in folders.items()}
about = [study_in_words(records.trials, name) for name, records in studies.items()]
scores = {name: objective(records.trials) for name, records in studies.items()}
score = next(iter(scores.values())) if len(set(scores.values())) == 1 else "score"
varied = {name: searched_among(records.trials, PARAMETERS) for name, records in studies.items()}
Markdown("\n\n".join(about))

# %% [markdown]
# ## Correlations with the score in the search
#
# Rank correlations between configs, with the varied learning rates and schedules held. Each p-value is corrected for
# all parameters of all studies here. If a search varied many fields over few configs, little information about a single
# parameter remains, and the interval is wide.

# %%
found = [
    (name, each)
    for name, records in studies.items()
    for each in parameter_associations(records, varied[name], outcomes=["accuracy", "centred"])
]
on_score = [(name, each) for name, each in found if each.outcome == "accuracy"]
p_values = corrected([each.estimate for _, each in on_score])
groups = {
    f"with {words}": [(f"{each.parameter}, {name}", each.estimate) for name, each in found if each.outcome == outcome]
    for outcome, words in (("accuracy", score), ("centred", "the centred gap"))
}
notes = "; ".join(dict.fromkeys(f"{name}: {each.note}" for name, each in on_score))
draw_estimates(
    "Temperature and loss weights in the search",
    groups,
    f"Partial rank correlations given the learning rates and schedules, exploratory. {notes}.",
    "rank correlation, −1 to 1",
)

# %%
lines = []
for (name, each), p_value in zip(on_score, p_values, strict=True):
    is_wide = each.estimate.high - each.estimate.low > 1.8
    finding = by_verdict(
        each.estimate,
        corrected_p=p_value,
        up="higher values went with better students",
        down="lower values went with better students",
        unsure="the interval covers nearly all of −1 to 1: too few configs for the number of held fields"
        if is_wide
        else "the sign is open",
        undefined="too few configs for the number of held fields",
    )
    line = f"- **{each.parameter}** in {name}: {quoted(each.estimate, corrected_p=p_value)}: {finding}."
    slope = gap_mediation(studies[name], each.parameter, "centred")
    if isfinite(slope.total.low) and not is_wide:
        line += f" In a linear fit, {slope.unit} changes {scores[name]} by {quoted_points(slope.total)}."
    lines.append(line)
Markdown("Exploratory:\n\n" + "\n".join(lines))

# %% [markdown]
# ## Parameter with the largest correlation
#
# For each study, the score over the parameter with the largest rank correlation. The parameter was selected for the
# large correlation, so the correlation is overstated. The figure shows the trials unadjusted, and no field is held in
# the correlation of the figure.

# %%
strongest = {}
for name, each in on_score:
    size = abs(each.estimate.value)
    if name not in strongest or size > abs(strongest[name].estimate.value):
        strongest[name] = each
for name, each in strongest.items():
    show(Markdown(f"**{name}**, {each.parameter}:"))
    show(draw_parameter_effect(compute_parameter_effect(studies[name], each.parameter)))

# %% [markdown]
# ## Searched ranges

# %%
warned = []
for name, records in studies.items():
    space = SPACES.get(records.trials["space"][0].as_py())
    # The summary has the searched bounds, also those given by `--search`. A running study has only those of its space.
    parameters = read_folder(folders[name]).searched or (space.parameters if space else ())
    warned += [f"- {name}: {each.message}." for each in range_warnings(records, parameters)]
Markdown("\n".join(warned) or "No parameter has its best values at the end of the searched range.")

# %% [markdown]
# ## Independence of the studies
#
# Agreement of two studies is evidence only if they tried different values.

# %%
shared = []
for parameter in PARAMETERS:
    own = [records.trials for name, records in studies.items() if parameter in varied[name]]
    if len(own) > 1:
        values = in_common(own, parameter)
        shared.append(
            f"- {parameter}: varied by {len(own)} studies. {len(values)} of the tried values are identical in all of "
            "them"
            + (": samplers with equal seeds propose equal points, so they are not independent." if values else ".")
        )
Markdown("\n".join(shared) or "No parameter was varied by more than one of the studies here.")

# %% [markdown]
# ## Results on fresh seeds
#
# Differences from plain distillation (`kd` at the temperature of the control, without an adapter), over seeds that were
# not used to choose configs.

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
    for (name, each), p_value in zip(on_score, p_values, strict=True)
    if verdict(each.estimate, p_value) in ("up", "down")
]
largest_name, largest = max(strongest.items(), key=lambda pair: abs(pair[1].estimate.value))
settled = f"Of {len(on_score)} associations with {score}, {how_many(len(clear))} clear after correction"
settled += (
    f": {listed(clear)}."
    if clear
    else f". The largest is with {largest.parameter} in {largest_name}, {quoted(largest.estimate)}, before correction."
)
Markdown(
    f"{settled} This is exploratory and suggests further studies. Confirmatory: "
    + "; ".join(f"in {name}, {brief}" for name, brief in briefs.items())
    + ".\n\n"
    "**Conclusions.** A next study should examine the parameters that are clear here, and those with a wide interval. "
    "**Limits.** No value is shown to be the best: a lucky seed may have selected it, and only a clear comparison on "
    "fresh seeds shows more. Nor is it shown that a temperature acts *through* the gap; "
    "`04_sharpness_gap_and_accuracy` examines this."
)
