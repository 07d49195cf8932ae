"""Names of a study's experiment in MLflow: short, and different for different datasets."""

import hashlib
import re
from pathlib import Path
from typing import Final

from study.plan.plan import StudyPlan
from trainables.spec.datasets import FOLDER_PREFIX
from trainables.spec.own_data import is_own_data, short_name

_DIGEST: Final = 4  # characters: they tell datasets of one name apart, of which a store has few
_LONGEST: Final = 40  # characters of a dataset's name


def experiment_name(plan: StudyPlan) -> str:
    """Return the name of the experiment, such as `digits: joint` or `leaves-3f2a: joint`.

    Two folders of the same name are two datasets, so the name of such a dataset ends in a digest of its full name.
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
    """Return the name that earlier versions used, which had the whole path of a folder."""
    return f"{short_name(plan.base.dataset)}: {plan.space}"
