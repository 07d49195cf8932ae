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
# The width of its bottleneck is the size of PESF-KD's adapter: a wider one can move the teacher's soft labels
# further. This notebook asks of one study whether the width moved the sharpness gap, and whether the student
# was any better for it.
#
# It reads records and runs nothing. What the *search* shows is exploratory: a sampler chose the configs by their
# accuracy, and each ran on one seed. What *fresh seeds* show is confirmatory for the configs that ran on them,
# and says nothing of other widths. An effect is called *clear* where its interval and its test, corrected for
# what stands beside it, both leave out 0.

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
from analysis.reading.trials import EXAMPLES, markdown_table, open_study, summarise_configs
from analysis.report.folder import read_folder
from analysis.wording.sentences import (
    by_verdict,
    comparisons_in_brief,
    comparisons_in_words,
    confirmed_in_words,
    listed,
    quoted,
    quoted_points,
    signed,
    stability_in_words,
    study_in_words,
)
from search_spaces import SPACES

# The folder of your own study, which varied the width, goes here or into the environment.
STUDY = Path(os.environ.get("PESFKD_STUDY") or EXAMPLES / "fashion-adapter_width")

records = open_study(STUDY)
trials = records.trials
about = study_in_words(trials, STUDY.name)
searched_among(trials, ["adapter_width"])
narrowest, widest = searched_range(trials, "adapter_width")
Markdown(about)

# %% [markdown]
# ## What the search saw of the width
#
# Hollow points are configs of the search on one seed each, bars are configs on fresh seeds, lines are the
# controls.

# %%
draw_parameter_effect(compute_parameter_effect(records, "adapter_width"))

# %% [markdown]
# A learning rate that suits a narrow adapter need not suit a wide one, so the rates that the search varied
# along are held in what follows.

# %%
outcomes = {"accuracy": "accuracy", "paper": "the paper's gap", "centred": "the centred gap"}
found = {each.outcome: each for each in parameter_associations(records, ["adapter_width"], outcomes=list(outcomes))}
estimates = {name: each.estimate for name, each in found.items()}
p_values = dict(zip(estimates, corrected(list(estimates.values())), strict=True))
note = found["accuracy"].note
held = listed(found["accuracy"].held)
draw_estimates(
    "The adapter's width in the search",
    {"width": [(f"with {outcomes[name]}", estimate) for name, estimate in estimates.items()]},
    f"Rank correlations given {held}, exploratory: {note}. {estimates['accuracy'].method}.",
    "rank correlation of the width, −1 to 1",
)

# %%
per_doubling = gap_mediation(records, "adapter_width", "centred").total
doublings = log2(widest / narrowest) if narrowest > 0 else 0.0
on_accuracy = by_verdict(
    estimates["accuracy"],
    corrected_p=p_values["accuracy"],
    up="wider adapters went with better students",
    down="wider adapters went with worse students",
    unsure="the search does not tell whether a wider adapter goes with a better or a worse student",
    undefined="there are too few configs to say anything of the width and accuracy",
)
on_gap = by_verdict(
    estimates["centred"],
    corrected_p=p_values["centred"],
    up="wider adapters went with a larger (centred) gap",
    down="wider adapters went with a smaller (centred) gap",
    unsure="whether the width moves the (centred) gap is open",
    undefined="there are too few configs to say anything of the width and the gap",
)
Markdown(
    f"Exploratory, {note}. Over widths from {narrowest:g} to {widest:g} with {held} held, the width's rank "
    f"correlation with accuracy is {quoted(estimates['accuracy'], corrected_p=p_values['accuracy'])}, with the "
    f"paper's gap {quoted(estimates['paper'], corrected_p=p_values['paper'])} and with the centred gap "
    f"{quoted(estimates['centred'], corrected_p=p_values['centred'])}: {on_accuracy}; {on_gap}.\n\n"
    + (
        f"As a straight line, a doubling of the width changes accuracy by {quoted_points(per_doubling, digits=2)}. "
        f"{doublings:.1f} doublings lie between the narrowest and the widest adapter: if the line holds, from end to "
        f"end that is between {signed(100 * doublings * per_doubling.low, 1)} and "
        f"{signed(100 * doublings * per_doubling.high, 1)} points. An interval says more than a missing star: an "
        "effect beyond its ends does not fit these data, one within them does."
        if isfinite(per_doubling.low)
        else "For a line through accuracy over the width there are too few configs."
    )
)

# %% [markdown]
# ## Was it the width that mattered, and was its range wide enough?
#
# PED-ANOVA asks what sets the best configs apart from all that were tried. Its shares add up to one even where
# nothing matters, hence the p-values, of accuracies shuffled over the configs.

# %%
space = SPACES.get(trials["space"][0].as_py())
parameters = space.parameters if space else ()
ranked = importances(records, parameters, "PED-ANOVA", draws=100)
rows = [
    f"| {each.parameter} | {each.estimate.value:.2f} [{each.estimate.low:.2f}, {each.estimate.high:.2f}] "
    f"| {each.estimate.p_value:.2f} | {each.first:.0%} |"
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
            *(warned or ["No best value crowds at the end of its range."]),
        ]
    )
    if ranked
    else f"No importances: they take a space that this version knows, and at least {MIN_CONFIGS} configs."
)

# %% [markdown]
# ## What held on fresh seeds
#
# Means and differences below are over seeds that no config was chosen by. Repetitions of the same number saw
# equal batches from equal first weights, so each config is compared with plain distillation (`kd`, the teacher
# without an adapter) within them.

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
    f"{quoted_points(per_doubling, digits=2)} a doubling, exploratory"
    if isfinite(per_doubling.low)
    else ""
)
apart = listed(matters) if matters else "nothing that can be told from chance"
Markdown(
    f"In {STUDY.name}, {on_accuracy}{effect}. What set its best configs apart: {apart}. Confirmatory: "
    f"{comparisons_in_brief(summaries)}.\n\n"
    "**What follows.** For this student, this teacher and this data, the intervals above. **What does not.** That "
    "the width cannot matter elsewhere: an interval that holds 0 leaves small effects of either sign open, other "
    "pairs of nets may have more of a gap to close, and a width that was not repeated on fresh seeds has only its "
    "one lucky or unlucky seed to speak for it."
)
