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
# # What do several studies say together?
#
# One search has few configs. This notebook pools the records of several studies, from folders or straight from
# an object store, and asks of all of them: does a smaller sharpness gap go with a better student, and did any
# config beat plain distillation on fresh seeds?
#
# Pooling is not adding up. Studies may differ in data or nets, their searches in level, and studies of equal
# seeds contain the very same controls. So runs count once, gap and accuracy are compared within studies, and
# every study is shown by itself as well. An effect is called *clear* where its interval and its test, corrected for
# what stands beside it, both leave out 0.

# %%
# %matplotlib inline
import os
from math import isfinite
from pathlib import Path

from IPython.display import Markdown

from analysis.figures.drawing import draw_estimates
from analysis.figures.pool import draw_points_by_study, points_by_study
from analysis.questions.association import between_configs, within_configs
from analysis.questions.mixed import mixed_model_at
from analysis.questions.parameters import corrected
from analysis.reading.landmark import GAPS
from analysis.reading.pooling import (
    compare_within_studies,
    distinct_runs,
    fields_varied,
    landmark_by_study,
    pool_studies,
    pool_table,
    studies_in,
    study_names,
    unequal_settings,
)
from analysis.reading.trials import EXAMPLES
from analysis.wording.sentences import by_verdict, how_many, listed, quoted, quoted_points, verdict

# Your own studies go here: folders, or URIs such as s3://BUCKET/STUDY, all of a folder by
# studies_in("s3://BUCKET/FOLDER"); or into the environment, with blanks between them.
STUDIES = os.environ.get("PESFKD_STUDIES", "").split() or [
    place for place in studies_in(EXAMPLES) if Path(place).name.endswith(("adapter_width", "joint", "temperature"))
]

pool = pool_studies(STUDIES)
once = distinct_runs(pool)
names = study_names(pool)
Markdown(pool_table(pool))

# %%
repeats = pool.trials.num_rows - once.trials.num_rows
unequal = unequal_settings(pool.trials)
differing = []
for setting, of in unequal.items():
    values = ", ".join(f"{study}: {listed([str(value) for value in own])}" for study, own in of.items())
    differing.append(f"{setting} ({values})")
Markdown(
    f"{len(names)} studies have {pool.trials.num_rows} trials. "
    + (
        f"{repeats} of them are runs that another of the studies has as well (equal config, weights and batches), so "
        f"what counts is {once.trials.num_rows} runs. "
        if repeats
        else "No run is in two of them. "
    )
    + (
        f"**The studies differ in {listed(differing)}**: their accuracies are not compared with each other, only "
        "what goes with what inside each."
        if unequal
        else "They agree in data, nets, epochs and precision."
    )
)

# %% [markdown]
# ## Gap and accuracy, study by study

# %%
GAP = "centred"
points = points_by_study(once, GAP)
draw_points_by_study(points, GAP)

# %% [markdown]
# ## Gap and accuracy within studies, all together
#
# The study is held, so that one study's higher level of accuracy cannot pose as an effect of the gap. This is
# exploratory: samplers chose the configs by accuracy, and samplers of equal seeds propose the same rates and
# temperatures, so that the studies are not wholly independent of each other.
#
# What else was varied may move both gap and accuracy. Holding every field that any of the studies varied shows
# what is left of the association once the configs' own fields explain what they can.

# %%
searched, fresh = landmark_by_study(once, searched=True), landmark_by_study(once, searched=False)
held = ["study"] if len(names) > 1 else []
pooled = {gap: between_configs(searched, gap, held=held) for gap in GAPS}
everything = [*held, *fields_varied(pool)]
left = {gap: between_configs(searched, gap, held=everything) for gap in GAPS}
inside = {gap: within_configs(fresh, gap) for gap in GAPS}
own = [(f"{each.study}, {GAP} gap", each.association.estimate) for each in points]
draw_estimates(
    "Rank correlation of gap and accuracy in several studies",
    {
        "each study by itself": own,
        "between searched configs, study held": [(f"{gap} gap", each.estimate) for gap, each in pooled.items()],
        "between searched configs, study and all varied fields held": [
            (f"{gap} gap", each.estimate) for gap, each in left.items()
        ],
        "within repeated configs, over seeds": [(f"{gap} gap", each.estimate) for gap, each in inside.items()],
    },
    f"Expanded percentile bootstrap over configs. Searched (exploratory): {searched.note}. Repeated (confirmatory): "
    f"{fresh.note}.",
    "rank correlation with accuracy, −1 to 1",
)

# %%
levels = {"between": pooled, "left": left, "within": inside}
keys = [(level, gap) for level in levels for gap in GAPS]
p_values = dict(zip(keys, corrected([levels[level][gap].estimate for level, gap in keys]), strict=True))
signs = [verdict(each.association.estimate) for each in points]
model = mixed_model_at(fresh, GAP, held=held)
together = by_verdict(
    pooled[GAP].estimate,
    corrected_p=p_values["between", GAP],
    up="a larger gap went with better students",
    down="a smaller gap went with better students",
    unsure="whether gap and accuracy go together is open",
    undefined="there are too few configs to tell",
)
beyond = by_verdict(
    left[GAP].estimate,
    corrected_p=p_values["left", GAP],
    up="something of it is left that those fields, by their ranks, do not explain",
    down="something of it is left that those fields, by their ranks, do not explain",
    unsure="what is left of it is open, so the gap may be a companion of those fields and nothing more",
    undefined="too few configs to hold so many fields",
)
of_model = (
    f"a nat of centred gap goes with {quoted_points(model.between)} between configs and with "
    f"{quoted_points(model.within)} within them"
    if isfinite(model.between.value)
    else f"not defined, as {model.between.n} configs of the searched methods are too few"
)
Markdown(
    f"- **Between configs**, the study held, the centred gap and accuracy are rank correlated by "
    f"{quoted(pooled[GAP].estimate, corrected_p=p_values['between', GAP])}: {together}. Studies that show a clear "
    f"negative correlation by themselves, uncorrected: {signs.count('down')} of {len(points)}; a clear positive one: "
    f"{signs.count('up')}.\n"
    f"- **Between configs with everything held** that any study varied ({len(everything) - len(held)} fields): "
    f"{quoted(left[GAP].estimate, corrected_p=p_values['left', GAP])}: {beyond}.\n"
    f"- **Within configs**, over seeds: {quoted(inside[GAP].estimate, corrected_p=p_values['within', GAP])}. "
    "Repetitions of equal number saw equal batches, also across configs, so the configs are not quite independent "
    "here, which makes an interval somewhat short.\n"
    f"- **Mixed model** of {fresh.trials.num_rows} runs on fresh seeds: {of_model}.\n\n"
    f"P-values of rank correlations are corrected for all {len(p_values)} of them here, of four gaps."
)

# %% [markdown]
# ## Did any config beat plain distillation?
#
# Each config against `kd` in its own study, paired by replicate, on seeds that it was not chosen by. Where
# studies have the same control runs, the comparisons share them; the correction holds for that too.

# %%
compared = compare_within_studies(pool)
draw_estimates(
    "Accuracy less that of plain distillation, on fresh seeds",
    {
        name: [
            (each.name, each.against_baseline) for study, each in compared if study == name and each.against_baseline
        ]
        for name in names
    },
    "Confirmatory, validation split. "
    + "; ".join(dict.fromkeys(each.against_baseline.method for _, each in compared if each.against_baseline)),
    "difference in accuracy (fraction)",
)

# %%
lines = [
    f"- {study}, {each.name}: {quoted_points(each.against_baseline, corrected_p=each.corrected_p)}"
    for study, each in compared
    if each.against_baseline
]
verdicts = [verdict(each.against_baseline, each.corrected_p) for _, each in compared if each.against_baseline]
Markdown("\n".join(lines) or "No config ran on the same fresh seeds as plain distillation.")

# %% [markdown]
# ## The answer

# %%
least = min((2 / 2**each.against_baseline.n for _, each in compared if each.against_baseline), default=1.0)
small = min(1.0, least * len(verdicts))
Markdown(
    f"Over {len(names)} studies ({listed(names)}) and {pooled[GAP].estimate.n} searched configs, {together} "
    f"(the study held, {quoted(pooled[GAP].estimate, corrected_p=p_values['between', GAP])}; exploratory); with every "
    f"varied field held, {beyond}. "
    f"Of {len(verdicts)} configs that ran again on fresh seeds, {how_many(verdicts.count('up'))} clearly better than "
    f"plain distillation and {how_many(verdicts.count('down'))} clearly worse. "
    + (
        f"With so few pairs no p-value could fall below {small:.2g} after correction, so no difference could have "
        "been clear: only more seeds can settle it."
        if verdicts and small > 0.05
        else ""
    )
    + "\n\n**What follows.** What these studies, taken together, are compatible with: the intervals above. **What does "
    "not.** That the gap is a cause, as what moved it (the temperature, the width, the weights) was varied along and "
    "differs from study to study. Nor anything about other data or nets than those in the table at the top."
)
