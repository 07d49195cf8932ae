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
# # Joint analysis of several studies
#
# One search has few configs. This notebook pools the records of several studies, from folders or from an object store.
# It examines whether a smaller sharpness gap is associated with a better student, and whether any config was better
# than plain distillation on fresh seeds.
#
# The *score* of a student is the objective of the task: accuracy, or F1 or Matthews correlation for some text tasks.
# Studies may differ in data, networks and level of the score, and studies with equal seeds contain identical controls.
# Each run is therefore counted once, gap and score are compared within studies, and each study is also shown
# separately. An effect is *clear* if the interval and the corrected test both exclude 0.

# %%
# %matplotlib inline
import os
from math import isfinite
from pathlib import Path

from IPython.display import Markdown

from analysis.figures.drawing import capitalised, draw_estimates
from analysis.figures.pool import draw_points_by_study, points_by_study
from analysis.questions.across import differences_across, differences_in_words
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
from analysis.reading.trials import EXAMPLES, objective
from analysis.wording.sentences import by_verdict, how_many, quoted, quoted_points, verdict
from trainables.display.numbers import format_points, listed, p_bound

# Enter your own studies here: folders, or URIs such as s3://BUCKET/STUDY. studies_in("s3://BUCKET/FOLDER") lists all
# studies of a folder. The environment variable takes the same places, separated by spaces.
STUDIES = os.environ.get("PESFKD_STUDIES", "").split() or [
    place for place in studies_in(EXAMPLES) if Path(place).name.endswith(("adapter_width", "joint", "temperature"))
]

pool = pool_studies(STUDIES)
once = distinct_runs(pool)
names, score = study_names(pool), objective(pool.trials)
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
        f"{repeats} of them repeat a run of another study (equal config, weights and batches), so "
        f"{once.trials.num_rows} runs count. "
        if repeats
        else "No two studies share a run. "
    )
    + (
        f"**The studies differ in {listed(differing)}**: scores are not compared between studies, only "
        "associations within each study."
        if unequal
        else "The studies agree in data, networks, epochs and precision."
    )
)

# %% [markdown]
# ## Gap and score, study by study

# %%
GAP = "centred"
points = points_by_study(once, GAP)
draw_points_by_study(points, GAP)

# %% [markdown]
# ## Gap and score within all studies
#
# The study is held, so that different levels of the score between studies do not appear as an effect of the gap. The
# result is exploratory: samplers chose the configs by score, and samplers with equal seeds propose the same learning
# rates and temperatures. The studies are therefore not fully independent.
#
# Other varied fields may affect both gap and score. Holding all fields that any study varied shows the part of the
# association that these fields do not explain.

# %%
searched, fresh = landmark_by_study(once, searched=True), landmark_by_study(once, searched=False)
held = ["study"] if len(names) > 1 else []
pooled = {gap: between_configs(searched, gap, held=held) for gap in GAPS}
everything = [*held, *fields_varied(pool)]
left = {gap: between_configs(searched, gap, held=everything) for gap in GAPS}
inside = {gap: within_configs(fresh, gap) for gap in GAPS}
own = [(f"{each.study}, {GAP} gap", each.association.estimate) for each in points]
draw_estimates(
    f"Rank correlation of gap and {score} in several studies",
    {
        "each study separately": own,
        "between searched configs, study held": [(f"{gap} gap", each.estimate) for gap, each in pooled.items()],
        "between searched configs, study and all varied fields held": [
            (f"{gap} gap", each.estimate) for gap, each in left.items()
        ],
        "within repeated configs, over seeds": [(f"{gap} gap", each.estimate) for gap, each in inside.items()],
    },
    f"Intervals exclude 0 if the test of the correlation rejects. Searched (exploratory): {searched.note}. "
    f"Repeated (confirmatory): {fresh.note}.",
    f"rank correlation with {score}, −1 to 1",
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
    unsure=f"the association of gap and {score} is open",
    undefined="there are too few configs for a result",
)
beyond = by_verdict(
    left[GAP].estimate,
    corrected_p=p_values["left", GAP],
    up="an association remains that the ranks of those fields do not explain",
    down="an association remains that the ranks of those fields do not explain",
    unsure="the remaining association is open, so the gap may only accompany those fields",
    undefined="too few configs for the number of held fields",
)
of_model = (
    f"one nat of centred gap is associated with {quoted_points(model.between)} between configs and with "
    f"{quoted_points(model.within)} within configs"
    if isfinite(model.between.value)
    else f"not defined, because {model.between.n} configs of the searched methods are too few"
)
Markdown(
    f"- **Between configs**, with the study held, the rank correlation of centred gap and {score} is "
    f"{quoted(pooled[GAP].estimate, corrected_p=p_values['between', GAP])}: {together}. Separately and uncorrected, "
    f"{signs.count('down')} of {len(points)} studies show a clear negative correlation, and {signs.count('up')} a "
    "clear positive one.\n"
    f"- **Between configs with all fields held** that any study varied ({len(everything) - len(held)} fields): "
    f"{quoted(left[GAP].estimate, corrected_p=p_values['left', GAP])}: {beyond}.\n"
    f"- **Within configs**, over seeds: {quoted(inside[GAP].estimate, corrected_p=p_values['within', GAP])}. "
    "Replicate k uses the same batches in all configs, so the configs are not fully independent here, and the interval "
    "is somewhat too short.\n"
    f"- **Mixed model** of {fresh.trials.num_rows} runs on fresh seeds: {of_model}.\n\n"
    f"P-values are corrected for all {len(p_values)} rank correlations here, of four gaps."
)

# %% [markdown]
# ## Comparison with plain distillation
#
# Each config is compared with `kd` of the same study, paired by replicate, on seeds that were not used to choose the
# config. If studies contain the same control runs, the comparisons share them. The correction remains valid then.

# %%
compared = compare_within_studies(pool)
draw_estimates(
    f"{capitalised(score)} minus {score} of plain distillation, on fresh seeds",
    {
        name: [
            (each.name, each.against_baseline) for study, each in compared if study == name and each.against_baseline
        ]
        for name in names
    },
    "Confirmatory, validation split. "
    + "; ".join(dict.fromkeys(each.against_baseline.method for _, each in compared if each.against_baseline)),
    f"difference in {score}" + (" (fraction)" if score == "accuracy" else ""),
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
# ## Differences over all studies
#
# A random-effects model combines the differences of a method from `kd` over studies, one config per study: the one that
# the search preferred, on seeds that were not used to choose it. The mean is for such studies on average. The interval
# "in a further study" is where the difference of one more study of this kind is expected. τ is the standard deviation
# of the effect between studies, and I² the share of the variation between studies that seeds do not explain.

# %%
across = differences_across(pool)
Markdown(differences_in_words(across))

# %% [markdown]
# ## The answer

# %%
least = min((2 / 2**each.against_baseline.n for _, each in compared if each.against_baseline), default=1.0)
small = min(1.0, least * len(verdicts))
over_studies = [
    f"the difference of {each.method} from {each.baseline} is {quoted_points(each.combined.mean)}, and "
    + (
        f"in a further study it is expected between {format_points(each.combined.prediction.low)} and "
        f"{format_points(each.combined.prediction.high)}"
        if isfinite(each.combined.prediction.low)
        else "two studies cannot say by how much in a further one"
    )
    for each in across
    if isfinite(each.combined.mean.value)
]
Markdown(
    f"Over {len(names)} studies ({listed(names)}) and {pooled[GAP].estimate.n} searched configs, {together} "
    f"(with the study held, {quoted(pooled[GAP].estimate, corrected_p=p_values['between', GAP])}; exploratory). "
    f"With all varied fields held, {beyond}. "
    f"Of {len(verdicts)} configs repeated on fresh seeds, {how_many(verdicts.count('up'))} clearly better than "
    f"plain distillation and {how_many(verdicts.count('down'))} clearly worse. "
    + (
        f"With so few pairs, no corrected p-value can fall below {p_bound(small)}, so no difference could have been "
        "clear. A clear result needs more seeds."
        if verdicts and small > 0.05
        else ""
    )
    + (f" On average, {'; '.join(over_studies)}." if over_studies else "")
    + "\n\n**Conclusions.** The intervals above contain the effects that fit these studies. **Limits.** The gap is not "
    "shown to be a cause, because the fields that changed it (temperature, width, weights) varied at the same time and "
    "differ between studies. The results do not extend to other data or networks than those in the first table."
)
