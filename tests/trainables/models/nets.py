"""Untrained networks with weights determined by a seed."""

import torch

from trainables.models import DistillationModel, build_model


def build(name: str = "resnet8", *, num_classes: int = 10, in_channels: int = 3, seed: int = 0) -> DistillationModel:
    torch.manual_seed(seed)
    return build_model(name, num_classes=num_classes, in_channels=in_channels)
