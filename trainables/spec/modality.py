"""Modality of a dataset, from the name alone; imports no torch, so plans are checked quickly."""

from trainables.spec.glue import GLUE_PREFIX


def is_text(dataset: str) -> bool:
    """Return whether the samples of a dataset are sentences rather than images."""
    return dataset.startswith(GLUE_PREFIX)


def samples_of(dataset: str) -> str:
    """Return the plural noun for the samples of a dataset: sentences or images."""
    return "sentences" if is_text(dataset) else "images"
