"""Several given teachers as one: an ensemble with the mean of their probabilities."""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import torch

from trainables.models import CheckpointError, build_model
from trainables.models.ensemble import TeacherEnsemble
from trainables.spec.architectures import ensemble_name
from trainables.storage.tensors import tensors_digest
from trainables.teacher.given import GIVEN_FORMAT, UNKNOWN_DATA, DataShape, GivenTeacher


def join_given_teachers(teachers: Sequence[GivenTeacher], paths: Sequence[Path], shape: DataShape) -> GivenTeacher:
    """Return the ensemble of given teachers, in checkpoint order.

    Args:
        teachers: two or more teachers with image models.
        paths: their checkpoints, for messages.
        shape: data shape.

    Raises:
        CheckpointError: two checkpoints contain the same weights.
    """
    for (first, one), (second, other) in combinations(zip(paths, teachers, strict=True), 2):
        if one.digest == other.digest:
            raise CheckpointError(f"{first} and {second} contain the same teacher: name it once")
    name = ensemble_name([each.identity["architecture"] for each in teachers])
    model = build_model(name, num_classes=shape.num_classes, in_channels=shape.in_channels)
    assert isinstance(model, TeacherEnsemble)
    for member, each in zip(model.members, teachers, strict=True):
        member.load_state_dict(each.weights)
    model.means.copy_(torch.tensor([each.identity["mean"] for each in teachers]))
    model.deviations.copy_(torch.tensor([each.identity["std"] for each in teachers]))
    weights = model.state_dict()
    identity = {
        "format": GIVEN_FORMAT,
        "architecture": name,
        "num_classes": shape.num_classes,
        "in_channels": shape.in_channels,
        "mean": [0.0] * shape.in_channels,  # the ensemble takes pixels in [0, 1]
        "std": [1.0] * shape.in_channels,
        "weights": tensors_digest(weights),
    }
    data = {each.data_digest for each in teachers}
    return GivenTeacher(identity, weights, data.pop() if len(data) == 1 else UNKNOWN_DATA)
