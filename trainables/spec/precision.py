"""In which arithmetic a trial trains.

`fp32` is float32 throughout. `bf16` runs the networks' convolutions in bfloat16 while they train (autocast);
weights, momenta, heads, adapters, losses, and everything about an evaluation stay in float32. A trial says
one of the two: which of them a machine gains by is settled beforehand, by `resolve_precision`, so that a recorded
trial means the same everywhere.

Resolving imports no torch except for CUDA, so that a plan is checked in no time.
"""

import re
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Final, Literal, get_args

from trainables.spec.architectures import CNN_PATTERN
from trainables.spec.naming import unknown_name

Precision = Literal["fp32", "bf16"]
PRECISIONS: Final[tuple[str, ...]] = get_args(Precision)

# On one core with AVX512_BF16 and AMX a step in bfloat16, its layout included, takes 0.27-0.45 of one in float32 on
# CIFAR's nets, 0.41-0.51 on 28 × 28 from cnn_16_32 up, and 1.14 on cnn_3_4 at 8 × 8; of cnn_32_64 at 8 × 8 it takes
# 0.67, but 0.76 is due to the layout alone.
WIDE: Final = 16  # channels, of the layer that has most
_SMALLEST_IMAGE: Final = 16


def resolve_precision(requested: str, *, student: str, image_size: int, device: str = "cpu") -> Precision:
    """`fp32` or `bf16`: what `auto` comes to on this machine, or the one that was asked for.

    `auto` is bf16 where the processor computes in bfloat16 and the student is large enough to gain by it.

    Args:
        requested: `auto`, `fp32` or `bf16`.
        student: its architecture's name.
        image_size: height and width in pixels.
        device: `cpu`, or `cuda` with or without a number.

    Raises:
        ValueError: for anything else requested.
    """
    if requested not in ("auto", *PRECISIONS):
        raise ValueError(unknown_name("precision", requested, ("auto", *PRECISIONS)))
    if requested != "auto":
        return "bf16" if requested == "bf16" else "fp32"
    large = image_size >= _SMALLEST_IMAGE and _has_wide_convolutions(student)
    return "bf16" if large and computes_bfloat16(device) else "fp32"


@cache
def computes_bfloat16(device: str) -> bool:
    """Whether this machine's `device` has instructions for bfloat16; one that emulates them has not."""
    if device.startswith("cuda"):
        cuda = import_module("torch").cuda  # by name: whoever resolves nothing on CUDA needs no torch
        return bool(cuda.is_available() and cuda.is_bf16_supported(including_emulation=False))
    try:
        flags = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        return False  # no Linux: other systems' processors have not been measured
    return flags is not None and not {"avx512_bf16", "amx_bf16"}.isdisjoint(flags[1].split())


def _has_wide_convolutions(student: str) -> bool:
    small = CNN_PATTERN.fullmatch(student)
    return small is None or max(int(small[1]), int(small[2])) >= WIDE
