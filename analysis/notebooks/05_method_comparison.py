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
# `python -m study.launch --space method` trains every method at its published settings on equal seeds, and
# `--space method_tuned` tunes each equally long first and compares the best config of each on fresh seeds. This
# notebook reads such a study and asks which methods are better than plain distillation (`kd`), how sure that is,
# and what they cost to train. It reads records and runs nothing.
#
# On a study of another kind it compares what that has: its controls, and the configs that its search found
# promising, on seeds that they were not chosen by. An effect is called *clear* where its interval and its test,
# corrected for all methods, both leave out 0.

# %%
# %matplotlib inline
import os
from pathlib import Path

from IPython.display import Markdown

from analysis.figures.methods import draw_accuracy_against_cost, draw_methods, pareto_front
from analysis.figures.study import compute_learning_curves, draw_learning_curves
from analysis.questions.costs import config_costs
from analysis.questions.methods import methods_table
from analysis.questions.stability import rank_stability
from analysis.reading.trials import BASELINE, EXAMPLES, compare_methods, open_study
from analysis.wording.sentences import (
    comparisons_in_brief,
    comparisons_in_words,
    listed,
    quoted_points,
    stability_in_words,
    study_in_words,
)

# The folder of your own study goes here or into the environment.
STUDY = Path(os.environ.get("PESFKD_STUDY") or EXAMPLES / "fashion-method")

records = open_study(STUDY)
trials = records.trials
confirmed = compare_methods(trials, confirmed=True)
compared = confirmed or compare_methods(trials)
Markdown(study_in_words(trials, STUDY.name))

# %% [markdown]
# ## What each reached
#
# Accuracy over seeds: of the test split where the methods were confirmed, of the validation split otherwise.
# Repetitions of equal number saw equal batches, so every method is compared with the baseline within them.

# %%
draw_methods(compared)

# %%
costs = config_costs(records)
Markdown(methods_table(compared, costs))

# %%
said = comparisons_in_words(compared, controls=True)
labels = {each.config_id: f"{each.method} ({each.name})" for each in compared}
Markdown(f"Confirmatory:\n\n{said}\n\n{stability_in_words(rank_stability(records), labels)}")

# %% [markdown]
# ## How they got there
#
# Bands are one standard deviation over trials, not how well the mean is known.

# %%
draw_learning_curves(compute_learning_curves(trials, records.epochs))

# %% [markdown]
# ## What they cost
#
# FLOPs of training as a ratio to cross-entropy on the same student: exact, and the same on every machine. A stored
# teacher's passes are shared out over the trials that they served, whoever stored them. Training the teacher is not
# in them.

# %%
costs = {name: cost for name, cost in costs.items() if cost.flops_to_ce is not None}
known = [each for each in compared if each.config_id in costs]
front = [
    known[i] for i in pareto_front([costs[k.config_id].flops_to_ce for k in known], [k.accuracy.value for k in known])
]
cost_said = (
    f"Of the {len(known)} whose cost is known, {listed([each.method for each in front])} "
    f"{'is' if len(front) == 1 else 'are'} on the front: what no other beats in mean accuracy at the same cost or "
    "less. Means that differ by less than their intervals may trade places on it with other seeds."
    if known
    else f"{STUDY.name} was recorded before costs were, so nothing is said of them."
)
Markdown(cost_said)

# %%
draw_accuracy_against_cost(compared, costs) if known else None

# %% [markdown]
# ## The answer

# %%
best = compared[0] if compared else None
first = (
    "Nothing finished, so there is no answer. "
    if best is None
    else f"The highest mean is that of {labels[best.config_id]}, {best.accuracy.value:.1%}"
    + (
        f", {quoted_points(best.against_baseline, corrected_p=best.corrected_p)} over {BASELINE}. "
        if best.against_baseline
        else f", {'the baseline itself' if best.method == BASELINE else 'with nothing to compare it with'}. "
    )
)
Markdown(
    f"{first}Being first of {len(compared)} flatters it: somebody has to be. Confirmatory, "
    f"{comparisons_in_brief(compared, controls=True)}. {cost_said}\n\n"
    "**What follows.** How these methods, at these settings, do with this student, this teacher and this data. **What "
    "does not.** A ranking of the methods as such: published settings are for other pairs of nets and can be far off "
    "here (`--space method_tuned` gives each an equal budget), and methods that cannot be told apart have no order."
)
