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
# # Which distillation method makes the best student?
#
# `python -m study.launch --space method` trains every method with published settings on equal seeds.
# `--space method_tuned` first tunes every method with an equal budget, and then compares the best configs on fresh
# seeds. This notebook reads such a study. It shows which methods are better than plain distillation (`kd`), how certain
# the differences are, and the training costs. It reads records and trains nothing.
#
# For other studies, the notebook compares the controls and the promising configs on seeds that were not used to choose
# them. An effect is *clear* if the interval and the test, corrected for all methods, both exclude 0.

# %%
# %matplotlib inline
import os
from pathlib import Path

from IPython.display import Markdown

from analysis.figures.curves import compute_learning_curves, draw_learning_curves
from analysis.figures.methods import draw_accuracy_against_cost, draw_methods, pareto_front
from analysis.questions.confirmed_methods import confirmed_summaries
from analysis.questions.costs import config_costs
from analysis.questions.methods import methods_table
from analysis.questions.stability import rank_stability
from analysis.reading.trials import BASELINE, EXAMPLES, compare_methods, objective, open_study
from analysis.report.folder import read_folder
from analysis.wording.sentences import (
    comparisons_in_brief,
    comparisons_in_words,
    quoted_points,
    stability_in_words,
    study_in_words,
)
from trainables.display.numbers import format_number, format_percent, listed

# Enter the folder of your own study here, or set the environment variable.
STUDY = Path(os.environ.get("PESFKD_STUDY") or EXAMPLES / "fashion-method")

records = open_study(STUDY)
trials, score = records.trials, objective(records.trials)
confirmation = read_folder(STUDY).confirmation()
compared = compare_methods(trials) if confirmation is None else confirmed_summaries(trials, confirmation)
Markdown(study_in_words(trials, STUDY.name))

# %% [markdown]
# ## Score of each method
#
# The *score* of a student is the objective of the task: accuracy, or F1 or Matthews correlation for some text tasks.
# Means are over seeds, on the test split if the methods were confirmed, else on the validation split. Replicate k of
# every method uses the same batches, so every method is compared with the baseline in pairs.

# %%
draw_methods(compared)

# %%
costs = config_costs(records)
Markdown(methods_table(compared, costs))

# %%
comparisons = comparisons_in_words(compared, controls=True)
labels = {
    each.config_id: each.method if each.name == each.method else f"{each.method} ({each.name})" for each in compared
}
Markdown(f"Confirmatory:\n\n{comparisons}\n\n{stability_in_words(rank_stability(records), labels)}")

# %% [markdown]
# ## Learning curves
#
# Bands show one standard deviation over trials, not the uncertainty of the mean. Many methods have one panel each. The
# trials are those of the confirmation, if the methods were confirmed.

# %%
confirmed = None if confirmation is None else {each.config_id: each.label for each in confirmation.configs}
draw_learning_curves(compute_learning_curves(trials, records.epochs, confirmed))

# %% [markdown]
# ## Training costs
#
# FLOPs of training as a ratio to cross-entropy on the same student. This ratio is exact and equal on every machine. The
# forward passes of a stored teacher are divided among the trials that used them. The training of the teacher is not
# included.

# %%
costs = {name: cost for name, cost in costs.items() if cost.flops_to_ce is not None}
known = [each for each in compared if each.config_id in costs]
front = [
    known[i] for i in pareto_front([costs[k.config_id].flops_to_ce for k in known], [k.accuracy.value for k in known])
]
cost_summary = (
    f"Of the {len(known)} methods with known costs, {listed([each.method for each in front])} "
    f"{'is' if len(front) == 1 else 'are'} on the front: no other method has a higher mean {score} at equal or lower "
    "cost. Methods with overlapping intervals may change places with other seeds."
    if known
    else f"{STUDY.name} has no recorded costs, because an earlier version ran it."
)
Markdown(cost_summary)

# %%
draw_accuracy_against_cost(compared, costs) if known else None

# %% [markdown]
# ## The answer

# %%
best = compared[0] if compared else None
value = best.accuracy.value if best else 0.0
shown = format_percent(value, 1) if score == "accuracy" else format_number(value, 3)
first = (
    "No trial finished, so there is no answer. "
    if best is None
    else f"The highest mean {score} is that of {labels[best.config_id]}, {shown}"
    + (
        f", {quoted_points(best.against_baseline, corrected_p=best.corrected_p)} relative to {BASELINE}. "
        if best.against_baseline
        else f", {'the baseline itself' if best.method == BASELINE else 'without a comparison'}. "
    )
)
Markdown(
    f"{first}The highest of {len(compared)} means is biased upwards. Confirmatory: "
    f"{comparisons_in_brief(compared, controls=True)}. {cost_summary}\n\n"
    "**Conclusions.** The results hold for these methods with these settings, this student, this teacher and this "
    "data. **Limits.** They do not rank the methods in general. Published settings are for other pairs of networks and "
    "may be unsuitable here (`--space method_tuned` tunes every method with an equal budget). Methods without a clear "
    "difference have no order."
)
