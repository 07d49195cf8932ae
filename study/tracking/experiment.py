"""Experiment names in MLflow: short, and different for different datasets."""

import hashlib
import re
from pathlib import Path
from typing import Final

from study.plan.plan import StudyPlan
from trainables.spec.datasets import FOLDER_PREFIX
from trainables.spec.own_data import is_own_data, short_name

_DIGEST: Final = 4  # characters: enough to distinguish the few datasets with the same name
_LONGEST: Final = 40  # maximum characters of a dataset name


def experiment_name(plan: StudyPlan) -> str:
    """Return the experiment name, e.g. `digits: joint` or `leaves-3f2a: joint`.

    Two folders with the same name are two datasets. The experiment name for a folder therefore ends in a digest of the
    full dataset name.
    """
    dataset = plan.base.dataset
    if not dataset.startswith(FOLDER_PREFIX) and not is_own_data(dataset):
        return f"{dataset}: {plan.space}"
    short = dataset.removeprefix(FOLDER_PREFIX)
    if is_own_data(dataset):
        short = short_name(dataset).partition(":")[2].partition(",")[0].partition("@")[0]
    name = re.sub(r"[^\w.-]+", "-", Path(short).name)[:_LONGEST]
    return f"{name}-{hashlib.sha256(dataset.encode()).hexdigest()[:_DIGEST]}: {plan.space}"


def earlier_name(plan: StudyPlan) -> str:
    """Return the experiment name in earlier versions, with the whole path to a folder."""
    return f"{short_name(plan.base.dataset)}: {plan.space}"
