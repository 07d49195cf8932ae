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
# This notebook reads the records of one study. It shows the course of the search, the scores of the repeated configs,
# and the relation of sharpness gap and score. It trains nothing and changes nothing. The *score* of a student is the
# objective of the task: accuracy, or F1 or Matthews correlation for some text tasks.
#
# The notebook opens the folder in the environment variable `PESFKD_STUDY`. Without that variable, it opens the most
# recently written study under `./study_results`.

# %%
# %matplotlib inline
import os
from pathlib import Path

from IPython.display import Markdown

from analysis.figures.curves import compute_learning_curves, draw_learning_curves
from analysis.figures.study import (
    compute_gap_against_accuracy,
    compute_history,
    compute_parameter_effect,
    draw_gap_against_accuracy,
    draw_history,
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
from trainables.display.numbers import CORRELATION_PLACES, format_in_full

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
# ## Course of the search
#
# Each point is one config on one seed. The best of many noisy trials overstates the quality of a config. The study
# therefore repeats the promising configs on fresh seeds.

# %%
draw_history(compute_history(trials))

# %% [markdown]
# ## Repeated configs
#
# Means are over fresh seeds only. Replicate k of every config starts from the same student and uses the same batches,
# so each config is compared with plain distillation in pairs. If an interval contains 0, the sign of the difference is
# open. With few replicates, the exact test cannot give a small p-value, however large the difference.

# %%
summaries = summarise_configs(trials)
Markdown(markdown_table(summaries))

# %% [markdown]
# ## Test split
#
# A confirmation runs the best configs and the controls again on fresh seeds, and evaluates only these runs on the test
# split. Without a confirmation, all results are from the validation split, which the search used to choose configs.

# %%
Markdown(confirmed_in_words(read_folder(directory).confirmation(), directory.name))

# %% [markdown]
# ## Varied parameter against score
#
# Hollow points are single search trials, bars are repeated configs, and lines are the controls. The rank
# correlation is exploratory: a sampler chose the configs, and other parameters varied at the same time.

# %%
draw_parameter_effect(compute_parameter_effect(records, varied[0] if varied else "adapter_width"))

# %% [markdown]
# ## Sharpness gap against score
#
# PESF-KD claims that a student learns more from a teacher of similar sharpness. Over the configs of a search, gap and
# score may be correlated because a third variable, such as the width or learning rate of the adapter, affects both.
# The line and the correlation describe this search. They do not show a causal effect.

# %%
gap = compute_gap_against_accuracy(records)
draw_gap_against_accuracy(gap)

# %%
found = format_in_full(gap.correlation, CORRELATION_PLACES, signed=True)
Markdown(f"Rank correlation, exploratory: {found}. *{gap.correlation.method}.*")

# %% [markdown]
# ## Epoch by epoch
#
# Bands show one standard deviation over trials. They show the spread of single trials, not the uncertainty of the mean.
# The gap is measured to the adapted teacher for PESF-KD, and to the frozen teacher for the controls.

# %%
draw_learning_curves(compute_learning_curves(trials, epochs))
