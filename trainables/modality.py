"""What a dataset's samples are, by its name alone; imports nothing, so that a plan is checked in no time."""

from typing import Final

TEXT_PREFIX: Final = "glue:"


def is_text(dataset: str) -> bool:
    """Whether the samples of the dataset of that name are sentences, and not images."""
    return dataset.startswith(TEXT_PREFIX)
