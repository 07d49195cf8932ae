from dataclasses import replace

import pytest
import torch

from tests.trainables.conftest import small_config
from trainables.data.dataset import Dataset, Split
from trainables.models import build_model
from trainables.packing.network import PackingError, check_packable
from trainables.packing.probe import best_count
from trainables.spec.architectures import CIFAR_NAMES, is_packable
from trainables.spec.datasets import DATASETS

pytestmark = pytest.mark.study


@pytest.mark.study
@pytest.mark.parametrize(("method", "stored"), [("pesf_kd", True), ("pesf_kd", False), ("vid", True)])
def test_counts_are_tried_as_long_as_they_gain(method, stored, digits, teacher):
    probe = best_count(small_config(method=method), digits, teacher, stored=stored, counts=(2, 4))
    assert probe.packed in (1, 2, 4)
    assert set(probe.gains) <= {2, 4}
    assert all(gain > 0 for gain in probe.gains.values())
    if probe.packed > 1:
        assert probe.gains[probe.packed] == max(probe.gains[count] for count in probe.gains if count <= probe.packed)


def test_a_net_that_cannot_be_packed_is_not():
    images = torch.randint(256, (8, 3, 8, 8), dtype=torch.uint8)
    split = Split(images, torch.arange(8), torch.arange(8))
    info = replace(DATASETS["digits"], channels=3)
    dataset = Dataset(info, train=split, validation=split, read_test=lambda: split, seed=0, digest="random")
    config = small_config(student="ShuffleV2", method="ce", batch_size=4)
    assert best_count(config, dataset, None, stored=False) == (1, {})


@pytest.mark.parametrize("name", ["cnn_3_4", *CIFAR_NAMES])
def test_a_plan_knows_by_name_what_can_be_packed(name):
    student = build_model(name, num_classes=10)
    if is_packable(name):
        check_packable(student, name)
    else:
        with pytest.raises(PackingError, match=name):
            check_packable(student, name)
