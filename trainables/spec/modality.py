"""Dataset modality, from the name alone; imports no torch, so plans are checked quickly."""

from trainables.spec.glue import GLUE_PREFIX


def is_text(dataset: str) -> bool:
    """Return whether a dataset's samples are sentences rather than images."""
    return dataset.startswith(GLUE_PREFIX)


def samples_of(dataset: str) -> str:
    """Return the plural noun for a dataset's samples: sentences or images."""
    return "sentences" if is_text(dataset) else "images"
