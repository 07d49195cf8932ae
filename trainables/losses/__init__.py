"""Losses and sharpness as pure functions of logits."""

from trainables.losses.logits import dist_loss as dist_loss
from trainables.losses.logits import dkd_loss as dkd_loss
from trainables.losses.logits import kd_loss as kd_loss
from trainables.losses.logits import standardised_kd_loss as standardised_kd_loss
from trainables.losses.logits import ttm_loss as ttm_loss
