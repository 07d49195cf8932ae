"""Which architecture names `build_model` knows; imports no torch, so that a plan is checked in no time."""

import re

from trainables.naming import unknown_name

# cnn_32_64: a small convolutional net for small images, its name gives the channels of its stages.
CNN_PATTERN = re.compile(r"cnn_(\d{1,4})_(\d{1,4})")

EXAMPLES = ("cnn_3_4", "cnn_8_16", "cnn_32_64")


def check_model_name(name: str) -> str:
    """`name`, if `build_model` knows it.

    Raises:
        ValueError: naming the nearest known name.
    """
    match = CNN_PATTERN.fullmatch(name)
    if match and all(int(channels) >= 1 for channels in match.groups()):
        return name
    raise ValueError(unknown_name("model", name, EXAMPLES) + " (cnn_A_B: any channels A and B from 1 to 9999)")
