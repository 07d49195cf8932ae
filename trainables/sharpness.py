"""Short import path of the sharpness measures; see `trainables.losses.sharpness`."""

from trainables.losses.sharpness import centred_sharpness as centred_sharpness
from trainables.losses.sharpness import entropy as entropy
from trainables.losses.sharpness import expected_calibration_error as expected_calibration_error
from trainables.losses.sharpness import sharpness as sharpness
from trainables.losses.sharpness import sharpness_gap as sharpness_gap
