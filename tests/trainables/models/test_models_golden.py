import json

import numpy as np
import pytest
import torch

from tests.trainables.models.golden import weight
from trainables.models import build_model, load_checkpoint


@pytest.fixture(scope="module")
def golden(golden_root):
    return json.loads((golden_root / "cifar_models.json").read_text())


@pytest.mark.parametrize("name", ["resnet20", "resnet56", "wrn_40_2", "vgg13"])
def test_a_checkpoint_of_the_literature_loads_and_gives_its_answers(name, golden, tmp_path):
    expected = golden[name]
    path = tmp_path / "ckpt_epoch_240.pth"
    torch.save({"epoch": 240, "model": {k: weight(k, s) for k, s in expected["keys"].items()}}, path)
    model = build_model(name, num_classes=100).eval()
    load_checkpoint(model, path)

    images = np.random.default_rng(7).standard_normal((4, 3, 32, 32))
    with torch.no_grad():
        outputs = model.feature_maps(torch.tensor(images, dtype=torch.float32))
    assert sum(parameter.numel() for parameter in model.parameters()) == expected["params"]
    for found, answer in ((outputs.logits, expected["logits"]), (outputs.feature, expected["feature"])):
        answer = torch.tensor(answer)
        assert ((found - answer).norm() / answer.norm()).item() < 1e-4


@pytest.mark.parametrize("depth", [20, 56])
def test_a_real_checkpoint_with_parameter_free_shortcuts_gives_its_networks_logits(depth, golden_root):
    expected = json.loads((golden_root / "option_a" / "expected.json").read_text())[f"resnet{depth}"]
    model = build_model(f"resnet{depth}a", num_classes=10).eval()
    load_checkpoint(model, golden_root / "option_a" / expected["file"])
    assert sum(parameter.numel() for parameter in model.parameters()) == expected["params"]
    images = torch.tensor(np.random.default_rng(7).standard_normal((4, 3, 32, 32)), dtype=torch.float32)
    with torch.no_grad():
        torch.testing.assert_close(model(images), torch.tensor(expected["logits"]), rtol=0, atol=1e-4)
