import pytest
import torch
from torch import nn

from trainables.steps.adamw import AdamWTrainer
from trainables.steps.sgd import Trainer, linear_factor

SETTINGS = {"learning_rate": 0.01, "momentum": 0.9, "weight_decay": 0.1, "schedule": "constant", "epochs": 4}


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))


def gradients_of(module: nn.Module, step: int) -> None:
    module.zero_grad()
    generator = torch.Generator().manual_seed(step)
    module(torch.randn(5, 3, generator=generator)).square().sum().backward()


def test_a_step_gives_what_pytorchs_own_adamw_gives_with_no_decay_of_vectors():
    ours, theirs = network(), network()
    trainer = AdamWTrainer(ours, **SETTINGS)
    groups = [
        {"params": [p for p in theirs.parameters() if p.ndim > 1], "weight_decay": 0.1},
        {"params": [p for p in theirs.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    reference = torch.optim.AdamW(groups, lr=0.01)
    trainer.begin_epoch(0)
    for step in range(5):
        gradients_of(ours, step)
        gradients_of(theirs, step)
        trainer.step()
        reference.step()
    for own, their in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(own, their)


def test_a_parameter_without_a_gradient_stays_and_counts_its_own_steps():
    module = network()
    trainer = AdamWTrainer(module, **SETTINGS)
    trainer.begin_epoch(0)
    before = module[0].weight.detach().clone()
    gradients_of(module, 0)
    module[0].weight.grad = None
    trainer.step()
    assert torch.equal(module[0].weight, before)
    steps = {name: int(each) for name, each in trainer.state_tensors().items() if name.startswith("steps.")}
    assert steps.pop("steps.0.weight") == 0
    assert set(steps.values()) == {1}


def test_a_trainer_that_goes_on_from_a_saved_state_makes_the_same_steps():
    straight, resumed = network(), network()
    first, second = AdamWTrainer(straight, **SETTINGS), AdamWTrainer(resumed, **SETTINGS)
    first.begin_epoch(0)
    for step in range(3):
        gradients_of(straight, step)
        first.step()
    saved = {name: each.clone() for name, each in first.state_tensors().items()}
    second.load_state_tensors(saved)
    for trainer, module in ((first, straight), (second, resumed)):
        trainer.begin_epoch(1)
        gradients_of(module, 3)
        trainer.step()
    assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), resumed.parameters(), strict=True))
    del saved["variance.0.weight"]
    with pytest.raises(ValueError, match=r"0\.weight"):
        AdamWTrainer(network(), **SETTINGS).load_state_tensors(saved)


def test_a_linear_schedule_rises_in_the_warmup_and_falls_from_step_to_step():
    module = network()
    trainer = Trainer(module, **(SETTINGS | {"schedule": "linear"}), steps=5, warmup=0.2)
    rates = []
    for epoch in range(4):
        trainer.begin_epoch(epoch)
        for _ in range(5):
            gradients_of(module, 0)
            trainer.step()
            rates.append(trainer.rate)
    assert rates == [pytest.approx(0.01 * linear_factor(step, 20, 0.2)) for step in range(20)]
    assert rates[:4] == [pytest.approx(0.01 * share) for share in (0.25, 0.5, 0.75, 1.0)]
    assert rates[4] == pytest.approx(0.01)
    assert rates[-1] == pytest.approx(0.01 / 16)


def test_an_epoch_of_a_linear_schedule_depends_on_its_number_alone():
    module = network()
    trainer = Trainer(module, **(SETTINGS | {"schedule": "linear"}), steps=5)
    trainer.begin_epoch(2)
    gradients_of(module, 0)
    trainer.step()
    assert trainer.rate == pytest.approx(0.01 * 10 / 20)


@pytest.mark.parametrize("kind", [Trainer, AdamWTrainer])
def test_gradients_longer_than_the_limit_are_cut_together_and_shorter_ones_left(kind):
    for limit in (0.5, 1e6):
        module = network()
        gradients_of(module, 0)
        before = [p.grad.clone() for p in module.parameters()]
        norm = torch.stack([each.norm() for each in before]).norm()
        trainer = kind(module, **SETTINGS, clip_norm=limit)
        trainer.begin_epoch(0)
        trainer.step()
        factor = min(1.0, limit / float(norm))
        for parameter, each in zip(module.parameters(), before, strict=True):
            torch.testing.assert_close(parameter.grad, each * factor)


@pytest.mark.parametrize("kind", [Trainer, AdamWTrainer])
def test_clipped_gradients_are_those_by_hand_wherever_they_come_from(kind):
    for given in (False, True):
        module = nn.Linear(1, 1).double()
        trainer = kind(module, **SETTINGS, clip_norm=1.0)
        trainer.begin_epoch(0)
        gradients = {"weight": torch.full((1, 1), 3.0).double(), "bias": torch.full((1,), -4.0).double()}
        if not given:
            for name, parameter in module.named_parameters():
                parameter.grad = gradients[name]
        trainer.step(gradients if given else None)
        # The joint norm of 3 and −4 is 5. As in PyTorch, 1e-6 is added to the norm.
        assert gradients["weight"].item() == pytest.approx(3 / 5.000001, rel=1e-12)
        assert gradients["bias"].item() == pytest.approx(-4 / 5.000001, rel=1e-12)


@pytest.mark.parametrize("kind", [Trainer, AdamWTrainer])
def test_a_parameter_without_a_gradient_is_not_clipped_and_stays(kind):
    module = nn.Linear(1, 1).double()
    trainer = kind(module, **SETTINGS, clip_norm=1.0)
    trainer.begin_epoch(0)
    before, gradients = module.bias.detach().clone(), {"weight": torch.full((1, 1), 3.0).double()}
    trainer.step(gradients)
    assert gradients["weight"].item() == pytest.approx(3 / 3.000001, rel=1e-12)
    assert module.bias.grad is None
    assert torch.equal(module.bias, before)


def test_only_steps_that_others_can_make_are_plain():
    assert Trainer(network(), **SETTINGS).is_plain
    assert not Trainer(network(), **SETTINGS, clip_norm=1.0).is_plain
    assert not Trainer(network(), **(SETTINGS | {"schedule": "linear"}), steps=5).is_plain
    assert not AdamWTrainer(network(), **SETTINGS).is_plain
