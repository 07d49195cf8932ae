"""Weights that are equal on every machine."""

import math
import zlib

import numpy as np
import torch


def weight(key: str, shape: list[int]) -> torch.Tensor:
    """Return weights drawn from the key's name, equal on every machine."""
    rng = np.random.default_rng(zlib.crc32(key.encode()))
    if key.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    if key.endswith("running_var"):
        values = rng.uniform(0.5, 1.5, shape)
    elif len(shape) > 1:
        values = rng.standard_normal(shape) * (0.5 if len(shape) == 4 else 1.0) / math.sqrt(np.prod(shape[1:]))
    elif key.endswith("weight"):
        values = rng.uniform(0.5, 1.5, shape)
    else:
        values = rng.standard_normal(shape) * 0.1
    return torch.tensor(values, dtype=torch.float32)
