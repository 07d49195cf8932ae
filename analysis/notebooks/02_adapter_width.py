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
# # How wide does the adapter have to be?
#
# The size of a PESF-KD adapter is the width of the bottleneck. A wider adapter can change the soft labels of the
# teacher further. This notebook examines whether the width changed the sharpness gap in one study, and whether it
# improved the student.
#
# The notebook reads records and trains nothing. Results of the *search* are exploratory: a sampler chose the configs by
# their score, and each ran on one seed. Results on *fresh seeds* are confirmatory for the configs that ran on these
# seeds, and do not extend to other widths. An effect is *clear* if the interval and the corrected test both exclude 0.
# The *score* of a student is the objective of the task: accuracy, or F1 or Matthews correlation for some text tasks.

# %%
# %matplotlib inline
import os
from math import isfinite, log2
from pathlib import Path

from IPython.display import Markdown

from analysis.figures.drawing import draw_estimates
from analysis.figures.study import compute_parameter_effect, draw_parameter_effect
from analysis.questions.importance import MIN_CONFIGS, importances, range_warnings
from analysis.questions.mediation import gap_mediation
from analysis.questions.parameters import corrected, parameter_associations, searched_among, searched_range
from analysis.questions.stability import rank_stability
from analysis.reading.trials import EXAMPLES, markdown_table, objective, open_study, summarise_configs
from analysis.report.folder import read_folder
from analysis.wording.sentences import (
    by_verdict,
    comparisons_in_brief,
    comparisons_in_words,
    confirmed_in_words,
    quoted,
    quoted_points,
    stability_in_words,
    study_in_words,
)
from search_spaces import SPACES
from trainables.display.numbers import (
    format_estimate,
    format_number,
    format_p,
    format_percent,
    format_points,
    listed,
)

# Enter the folder of your own study of the width here, or set the environment variable.
STUDY = Path(os.environ.get("PESFKD_STUDY") or EXAMPLES / "fashion-adapter_width")

records = open_study(STUDY)
trials = records.trials
about, score = study_in_words(trials, STUDY.name), objective(trials)
searched_among(trials, ["adapter_width"])
narrowest, widest = searched_range(trials, "adapter_width")
Markdown(about)

# %% [markdown]
# ## Width in the search
#
# Hollow points are configs of the search on one seed each. Bars are configs on fresh seeds. Lines are the controls.

# %%
draw_parameter_effect(compute_parameter_effect(records, "adapter_width"))

# %% [markdown]
# A good learning rate for a narrow adapter may be a bad one for a wide adapter. The following results therefore hold
# the learning rates constant that the search varied.

# %%
outcomes = {"accuracy": score, "paper": "the paper's gap", "centred": "the centred gap"}
found = {each.outcome: each for each in parameter_associations(records, ["adapter_width"], outcomes=list(outcomes))}
estimates = {name: each.estimate for name, each in found.items()}
p_values = dict(zip(estimates, corrected(list(estimates.values())), strict=True))
note = found["accuracy"].note
held = listed(found["accuracy"].held)
draw_estimates(
    "Adapter width in the search",
    {"width": [(f"with {outcomes[name]}", estimate) for name, estimate in estimates.items()]},
    f"Rank correlations given {held}, exploratory: {note}. {estimates['accuracy'].method}.",
    "rank correlation with the width, −1 to 1",
)

# %%
per_doubling = gap_mediation(records, "adapter_width", "centred").total
doublings = log2(widest / narrowest) if narrowest > 0 else 0.0
on_score = by_verdict(
    estimates["accuracy"],
    corrected_p=p_values["accuracy"],
    up="wider adapters went with better students",
    down="wider adapters went with worse students",
    unsure="the search leaves open whether wider adapters went with better or worse students",
    undefined=f"there are too few configs to relate width and {score}",
)
on_gap = by_verdict(
    estimates["centred"],
    corrected_p=p_values["centred"],
    up="wider adapters went with a larger (centred) gap",
    down="wider adapters went with a smaller (centred) gap",
    unsure="the effect of the width on the (centred) gap is open",
    undefined="there are too few configs to relate width and gap",
)
Markdown(
    f"Exploratory, {note}. Widths from {narrowest:g} to {widest:g}, with {held} held. The rank correlation of the "
    f"width with {score} is {quoted(estimates['accuracy'], corrected_p=p_values['accuracy'])}, with the "
    f"paper's gap {quoted(estimates['paper'], corrected_p=p_values['paper'])} and with the centred gap "
    f"{quoted(estimates['centred'], corrected_p=p_values['centred'])}: {on_score}; {on_gap}.\n\n"
    + (
        f"In a linear fit, doubling the width changes {score} by {quoted_points(per_doubling, digits=2)}. "
        f"The widest adapter is {doublings:.1f} doublings wider than the narrowest. If the fit holds, the "
        f"difference between them is between {format_number(100 * doublings * per_doubling.low, 1, signed=True)} and "
        f"{format_points(doublings * per_doubling.high)}. Effects outside this interval do not fit these data, "
        "effects inside it do."
        if isfinite(per_doubling.low)
        else f"There are too few configs for a linear fit of {score} to the width."
    )
)

# %% [markdown]
# ## Importance of the width, and the searched range
#
# PED-ANOVA compares the best configs with all searched configs. The shares of importance add up to one even if no
# parameter matters. The p-values therefore compare them with scores that are shuffled over the configs.

# %%
space = SPACES.get(trials["space"][0].as_py())
# The summary has the searched bounds, also those given by `--search`. A running study has only those of its space.
parameters = read_folder(STUDY).searched or (space.parameters if space else ())
ranked = importances(records, parameters, "PED-ANOVA", draws=100)
rows = [
    f"| {each.parameter} | {format_estimate(each.estimate, 2)} | {format_p(each.estimate.p_value)} "
    f"| {format_percent(each.first)} |"
    for each in ranked
]
warned = [f"- {warning.message}." for warning in range_warnings(records, parameters)]
Markdown(
    "\n".join(
        [
            "| parameter | share of importance | p | ranks first in |",
            "| --- | --- | --- | --- |",
            *rows,
            "",
            f"n = {ranked[0].estimate.n} configs, exploratory: {ranked[0].estimate.method}.",
            "",
            *(warned or ["No parameter has its best values at the end of the searched range."]),
        ]
    )
    if ranked
    else f"No importances: they need a search space of this version and at least {MIN_CONFIGS} configs."
)

# %% [markdown]
# ## Results on fresh seeds
#
# Means and differences are over seeds that were not used to choose configs. Replicate k of every config uses the same
# initial weights and batches, so each config is compared in pairs with plain distillation (`kd`, the teacher without
# an adapter).

# %%
summaries = summarise_configs(trials)
Markdown(markdown_table(summaries))

# %%
names = {each.config_id: each.name for each in summaries}
compared = comparisons_in_words(summaries)
Markdown(f"Confirmatory:\n\n{compared}\n\n{stability_in_words(rank_stability(records), names)}")

# %%
Markdown(confirmed_in_words(read_folder(STUDY).confirmation(), STUDY.name))

# %% [markdown]
# ## The answer

# %%
matters = [each.parameter for each in ranked if each.estimate.p_value is not None and each.estimate.p_value <= 0.05]
effect = (
    f": {quoted(estimates['accuracy'], corrected_p=p_values['accuracy'])}, "
    f"{quoted_points(per_doubling, digits=2)} per doubling, exploratory"
    if isfinite(per_doubling.low)
    else ""
)
apart = listed(matters) if matters else "none clearly"
Markdown(
    f"In {STUDY.name}, {on_score}{effect}. Parameters that distinguish the best configs: {apart}. Confirmatory: "
    f"{comparisons_in_brief(summaries)}.\n\n"
    "**Conclusions.** The intervals above hold for this student, this teacher and this data. **Limits.** The width may "
    "matter elsewhere. An interval that contains 0 leaves small effects of either sign open. Other pairs of networks "
    "may have a larger gap to close. The result of a width that was not repeated rests on one seed."
)
