"""Bounds for numbers in a trial's config.

The upper bounds are far above practical values. They keep every value within the range of files, databases and float32.
"""

from typing import Final

LARGEST_BATCH: Final = 1_000_000
LARGEST_WEIGHT: Final = 1e9
LARGEST_RATE: Final = 1e38  # float32; a rate that is too high stops the trial with an error that names epoch and batch
LOWEST_TEMPERATURE: Final = 1e-6  # divides logits and products; smaller values would overflow float32
MOST_EPOCHS: Final = 100_000
MOST_SPLITS: Final = 1000  # of one confirmation
MOST_TEACHERS: Final = 1000  # in one confirmation; each is trained and stored
SEEDS: Final = 2**63  # SQLite integer range
