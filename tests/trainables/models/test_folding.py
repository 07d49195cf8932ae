import pytest
import torch
from torch import nn

from trainables.costs.epoch import run_epoch
from trainables.models import build_model
from trainables.models.folding import FoldedCopy
from trainables.run.run import DistillationRun
from trainables.spec.architectures import CIFAR_NAMES
from trainables.spec.trial import TrialConfig


def trained_network(name: str, channels: int = 3, size: int = 32) -> tuple[nn.Module, torch.Tensor]:
    """Return a network in float64 with statistics and weights unlike those of a new one, and images."""
    torch.manual_seed(0)
    model = build_model(name, num_classes=10, in_channels=channels).double()
    images = torch.randn(8, channels, size, size, dtype=torch.float64)
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.uniform_(norm.bias, -0.5, 0.5)
    for _ in range(3):
        model.train()(images)
    return model.eval(), images


@pytest.mark.conformance
@pytest.mark.parametrize("name", [*CIFAR_NAMES, "cnn_8_16"])
@torch.no_grad()
def test_a_folded_net_answers_as_the_net_does(name):
    model, images = trained_network(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    folded = FoldedCopy(model, images[:2]).current()
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    left = sum(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    # Wide residual networks normalise before convolving. The first norm of a block follows a sum and cannot be folded.
    assert left == 0 if not name.startswith("wrn") else 0 < left < norms
    expected = model(images)
    assert (folded(images) - expected).abs().max() < 1e-11 * expected.abs().max()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any(parameter.requires_grad for parameter in folded.parameters())


@torch.no_grad()
def test_the_copy_follows_the_net_as_it_learns():
    model, images = trained_network("resnet8")
    copy = FoldedCopy(model, images[:2])
    first = copy.current()(images)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.mul_(1.1)
    expected = model(images)
    assert (copy.current()(images) - expected).abs().max() < 1e-11 * expected.abs().max()
    assert (first - expected).abs().max() > 1e-3 * expected.abs().max()


class Forked(nn.Module):
    """The output of the convolution is normalised and also used elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        output = self.conv(images)
        return (self.norm(output).relu() + output).mean((2, 3))


class Shared(nn.Module):
    """One norm after two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.norm = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (self.norm(self.one(images)) * self.norm(self.two(images))).mean((2, 3))


@pytest.mark.parametrize("kind", [Forked, Shared])
@torch.no_grad()
def test_what_cannot_be_folded_exactly_is_left(kind):
    torch.manual_seed(0)
    model, images = kind().eval(), torch.randn(4, 3, 8, 8)
    copy = FoldedCopy(model, images[:2])
    assert copy.pairs == []
    assert torch.equal(copy.current()(images), model(images))


@pytest.mark.study
def test_a_trial_measures_the_same_folded_and_not(digits, monkeypatch):
    def measures(least: int) -> dict[str, float]:
        monkeypatch.setattr("trainables.run.predictions._FOLDED_FROM", least)
        config = TrialConfig(method="ce", student="cnn_8_16", epochs=2)
        run = DistillationRun(config, digits, None)
        run_epoch(run)
        assert (run.predictor.folded_student is not None) == (least == 0)
        return {name: value for name, value in run_epoch(run).items() if name.startswith("val/")}

    folded, plain = measures(0), measures(10**9)
    assert folded == pytest.approx(plain, rel=1e-4, abs=1e-6)
    assert folded != plain
