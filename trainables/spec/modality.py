"""What a dataset's samples are, by its name alone; imports no torch, so that a plan is checked in no time."""

from trainables.spec.glue import GLUE_PREFIX


def is_text(dataset: str) -> bool:
    """Whether the samples of the dataset of that name are sentences, and not images."""
    return dataset.startswith(GLUE_PREFIX)


def samples_of(dataset: str) -> str:
    """What the samples of the dataset of that name are called, many of them: sentences or images."""
    return "sentences" if is_text(dataset) else "images"
