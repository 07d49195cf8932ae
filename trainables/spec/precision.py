"""Floating-point precision in training.

`fp32` computes everything in float32. `bf16` runs the networks' convolutions in bfloat16 during training (autocast).
Weights, momentum buffers, heads, adapters, losses and the entire evaluation stay in float32. A trial's config always
names one of the two. `resolve_precision` replaces `auto` beforehand, depending on the machine, so a recorded trial
means the same everywhere.

Only CUDA devices need torch here, so plans are checked quickly.
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

# Time of a bfloat16 step (including the layout change) relative to float32, on one core with AVX512_BF16 and AMX:
# 0.27-0.45 on CIFAR's networks, 0.41-0.51 on 28 × 28 images from cnn_16_32 up, and 1.14 for cnn_3_4 at 8 × 8. For
# cnn_32_64 at 8 × 8 the time is 0.67, but the layout alone gives 0.76.
WIDE: Final = 16  # channels in the widest layer
_SMALLEST_IMAGE: Final = 16


def resolve_precision(requested: str, *, student: str, image_size: int, device: str = "cpu") -> Precision:
    """Return the requested precision, with `auto` replaced by `fp32` or `bf16`.

    `auto` selects bf16 if the processor supports bfloat16 and the student is large enough to run faster.

    Args:
        requested: `auto`, `fp32` or `bf16`.
        student: student architecture.
        image_size: height and width in pixels.
        device: `cpu`, or `cuda` with or without a number.

    Raises:
        ValueError: `requested` is none of these.
    """
    if requested not in ("auto", *PRECISIONS):
        raise ValueError(unknown_name("precision", requested, ("auto", *PRECISIONS)))
    if requested != "auto":
        return "bf16" if requested == "bf16" else "fp32"
    large = image_size >= _SMALLEST_IMAGE and _has_wide_convolutions(student)
    return "bf16" if large and computes_bfloat16(device) else "fp32"


@cache
def computes_bfloat16(device: str) -> bool:
    """Return whether `device` has native bfloat16 instructions; emulation does not count."""
    if device.startswith("cuda"):
        cuda = import_module("torch").cuda  # import by name: only CUDA needs torch
        return bool(cuda.is_available() and cuda.is_bf16_supported(including_emulation=False))
    try:
        flags = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        return False  # not Linux: other systems' processors have not been measured
    return flags is not None and not {"avx512_bf16", "amx_bf16"}.isdisjoint(flags[1].split())


def _has_wide_convolutions(student: str) -> bool:
    small = CNN_PATTERN.fullmatch(student)
    return small is None or max(int(small[1]), int(small[2])) >= WIDE
