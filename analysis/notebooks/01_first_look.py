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
# # A first look at a study
#
# This notebook reads the records of one study and shows how its search went, what its repeated configs
# reached, and how the sharpness gap and the accuracy lie to each other. It runs nothing and changes
# nothing.
#
# It opens the folder that the environment variable `PESFKD_STUDY` names, or else the study under
# `./study_results` that was written to last.

# %%
# %matplotlib inline
import os
from pathlib import Path

from IPython.display import Markdown

from analysis.figures.study import (
    compute_gap_against_accuracy,
    compute_history,
    compute_learning_curves,
    compute_parameter_effect,
    draw_gap_against_accuracy,
    draw_history,
    draw_learning_curves,
    draw_parameter_effect,
)
from analysis.reading.trials import (
    find_study,
    markdown_table,
    open_study,
    select,
    summarise_configs,
    survivor_note,
    varied_fields,
)
from analysis.report.folder import read_folder
from analysis.wording.sentences import confirmed_in_words

directory = find_study(os.environ.get("PESFKD_STUDY"), Path("study_results"))
records = open_study(directory)
trials, epochs = records.trials, records.epochs

# %%
searched = select(trials, stages=["search"], statuses=None)
varied = varied_fields(trials)
spaces = ", ".join(sorted(set(trials["space"].to_pylist())))
Markdown(
    f"**{directory.name}**, search space *{spaces}*: {trials.num_rows} trials recorded, "
    f"{searched.num_rows} of them in the search, which varied {', '.join(varied) or 'nothing'}. "
    f"{survivor_note(trials) or ''}"
)

# %% [markdown]
# ## How the search went
#
# Each point is one config on one seed. The best of many noisy trials looks better than its config is, which
# is why the study repeats the promising ones on fresh seeds.

# %%
draw_history(compute_history(trials))

# %% [markdown]
# ## What the repeated configs reached
#
# Means are over fresh seeds alone. Repetitions of the same number began from the same student and saw the same
# batches, so each config is compared with plain distillation within them. An interval that holds 0 leaves the
# sign of the difference open; with few repetitions the exact test cannot give a small p-value, whatever the
# difference.

# %%
summaries = summarise_configs(trials)
Markdown(markdown_table(summaries))

# %% [markdown]
# ## What the test split says
#
# A confirmation runs the best configs and the controls on fresh seeds once more, and reads the test split for them
# alone. Without one, everything here is of the validation split, which the search has chosen by.

# %%
Markdown(confirmed_in_words(read_folder(directory).confirmation(), directory.name))

# %% [markdown]
# ## What was varied, against accuracy
#
# Hollow points are single search trials, bars are repeated configs, and lines are the controls. The rank
# correlation is exploratory: a sampler chose the configs, and other fields varied along.

# %%
draw_parameter_effect(compute_parameter_effect(records, varied[0] if varied else "adapter_width"))

# %% [markdown]
# ## Sharpness gap against accuracy
#
# PESF-KD's claim is that a student learns more from a teacher whose sharpness is close to its own. Over the
# configs of a search, gap and accuracy may move together because a third thing, such as the adapter's width
# or learning rate, moves both: the line and the correlation describe this search and prove no cause.

# %%
gap = compute_gap_against_accuracy(records)
draw_gap_against_accuracy(gap)

# %%
Markdown(f"Rank correlation, exploratory: {gap.correlation}. *{gap.correlation.method}.*")

# %% [markdown]
# ## Epoch by epoch
#
# Bands are one standard deviation over trials: how far single trials lie from the mean, not how well the
# mean is known. The gap is to what teaches: the adapted teacher for PESF-KD, the frozen one for the controls.

# %%
draw_learning_curves(compute_learning_curves(trials, epochs))
