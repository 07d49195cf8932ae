import copy
import math

import pytest
import torch
from torch import nn

from trainables.process.randomness import seeded
from trainables.steps.sgd import SCHEDULES, Trainer, count_parameters, schedule_factor, sgd_step


def build_trainer(**changes: object) -> Trainer:
    """Return a trainer of a small network with batch norm, with changed values."""
    with seeded(0):
        module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    values = {"learning_rate": 0.1, "momentum": 0.9, "weight_decay": 0.01, "schedule": "cosine", "epochs": 8}
    return Trainer(module, **(values | changes))


def take_step(trainer: Trainer) -> None:
    """Take one optimisation step on fixed inputs."""
    images = torch.arange(12, dtype=torch.float32).view(4, 3).sin()
    trainer.forget_gradients()
    trainer.module(images).square().sum().backward()
    trainer.step()


def test_a_constant_schedule_stays_at_one():
    assert [schedule_factor("constant", epoch, 10) for epoch in range(10)] == [1.0] * 10


def test_a_cosine_schedule_falls_from_one_to_zero():
    factors = [schedule_factor("cosine", epoch, 4) for epoch in range(5)]
    assert factors == pytest.approx([1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2, 0])


def test_a_step_schedule_falls_tenfold_at_epochs_150_180_and_210_of_240():
    factors = {epoch: schedule_factor("step", epoch, 240) for epoch in (0, 149, 150, 179, 180, 209, 210, 239)}
    expected = {0: 1, 149: 1, 150: 0.1, 179: 0.1, 180: 0.01, 209: 0.01, 210: 0.001, 239: 0.001}
    assert factors == pytest.approx(expected)


@pytest.mark.parametrize("epochs", [2, 3, 4, 5, 10, 15, 30, 60, 240])
def test_a_one_cycle_schedule_is_that_of_pytorch_with_its_defaults(epochs):
    parameter = nn.Parameter(torch.zeros((), dtype=torch.float64))
    optimiser = torch.optim.SGD([parameter], lr=1.0, momentum=0.9)
    reference = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=0.3, total_steps=epochs)
    for epoch in range(epochs):
        assert 0.3 * schedule_factor("one_cycle", epoch, epochs) == pytest.approx(
            optimiser.param_groups[0]["lr"], rel=1e-12, abs=0
        )
        optimiser.step()
        if epoch < epochs - 1:
            reference.step()
    factors = [schedule_factor("one_cycle", epoch, epochs) for epoch in range(epochs)]
    assert factors[-1] == pytest.approx(1 / 250_000)
    assert max(factors) <= 1
    if epochs >= 10:
        assert factors[0] == pytest.approx(1 / 25)
        assert abs(factors.index(max(factors)) - (0.3 * epochs - 1)) < 1


def test_one_cycle_steps_are_those_of_pytorchs_optimiser_and_scheduler_at_constant_momentum():
    epochs, images = 7, torch.arange(12, dtype=torch.float64).view(4, 3).sin()
    with seeded(0):
        module = nn.Sequential(nn.Linear(3, 2), nn.Tanh()).double()
    theirs = copy.deepcopy(module)
    ours = Trainer(module, learning_rate=0.1, momentum=0.9, weight_decay=0.01, schedule="one_cycle", epochs=epochs)
    optimiser = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=0.1, total_steps=epochs, cycle_momentum=False)
    for epoch in range(epochs):
        ours.begin_epoch(epoch)
        for _ in range(3):
            ours.forget_gradients()
            module(images).sum().backward()
            ours.step()
            optimiser.zero_grad()
            theirs(images).sum().backward()
            optimiser.step()
        if epoch < epochs - 1:
            scheduler.step()
        for own, other in zip(module.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(own, other, rtol=1e-12, atol=1e-14)


def test_an_unknown_schedule_is_refused_by_name():
    with pytest.raises(ValueError, match="'cosin'; did you mean 'cosine'"):
        schedule_factor("cosin", 0, 1)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_each_epoch_begins_at_the_rate_of_its_schedule(schedule):
    late = {"late_rate": 0.1} if schedule == "released" else {}  # the student's rate
    trainer = build_trainer(schedule=schedule, **late)
    for epoch in (5, 0, 7):
        trainer.begin_epoch(epoch)
        if schedule == "released" and epoch:
            assert trainer.rate == pytest.approx(0.1 * schedule_factor("step", epoch, 8))
            continue
        assert trainer.rate == pytest.approx(0.1 * schedule_factor(schedule, epoch, 8))


def test_a_step_is_sgd_with_momentum_and_coupled_weight_decay_on_every_parameter():
    trainer = build_trainer()
    trainer.begin_epoch(0)
    momenta: dict[str, torch.Tensor] = {}
    for _ in range(3):
        before = {name: p.detach().clone() for name, p in trainer.module.named_parameters()}
        take_step(trainer)
        for name, parameter in trainer.module.named_parameters():
            gradient = parameter.grad + 0.01 * before[name]
            momenta[name] = 0.9 * momenta[name] + gradient if name in momenta else gradient
            torch.testing.assert_close(parameter.detach(), before[name] - 0.1 * momenta[name])


@pytest.mark.parametrize("momentum", [0.9, 0.0])
def test_a_step_gives_the_bits_of_pytorchs_own_optimiser(momentum):
    ours, theirs = build_trainer(momentum=momentum), build_trainer()
    frozen = theirs.module[0].bias
    ours.module[0].bias.requires_grad_(False)
    frozen.requires_grad_(False)
    others = [each for each in theirs.module.parameters() if each.requires_grad]
    reference = torch.optim.SGD(others, lr=0.1, momentum=momentum, weight_decay=0.01, fused=True)
    for _ in range(4):
        take_step(ours)
        reference.zero_grad()
        theirs.module(torch.arange(12, dtype=torch.float32).view(4, 3).sin()).square().sum().backward()
        reference.step()
        for (name, parameter), other in zip(ours.module.named_parameters(), theirs.module.parameters(), strict=True):
            assert torch.equal(parameter, other), name


SETTINGS = (
    {"rate": 0.1, "momentum": 0.9, "weight_decay": 0.01},
    {"rate": 0.03, "momentum": 0.0, "weight_decay": 0.01},
    {"rate": 0.2, "momentum": 0.5, "weight_decay": 0.0},
)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("fused", [True, False])
def test_an_sgd_step_is_that_of_pytorchs_optimiser(fused, settings):
    generator = torch.Generator().manual_seed(0)
    ours, theirs = (torch.linspace(-1, 1, 40, dtype=torch.float64) for _ in range(2))
    running = torch.zeros_like(ours) if settings["momentum"] else None
    reference = torch.optim.SGD(
        [theirs.requires_grad_()], lr=settings["rate"], momentum=settings["momentum"],
        weight_decay=settings["weight_decay"],
    )  # fmt: skip
    for _ in range(3):
        theirs.grad = torch.randn(40, generator=generator, dtype=torch.float64)
        sgd_step([ours], [theirs.grad.clone()], [running], fused=fused, **settings)
        reference.step()
        torch.testing.assert_close(ours, theirs.detach(), rtol=1e-14, atol=1e-15)


def test_an_sgd_step_with_settings_of_each_number_is_one_step_for_each_setting():
    generator = torch.Generator().manual_seed(0)
    start, *gradients = torch.randn(4, 3, 20, generator=generator, dtype=torch.float64)
    together, momenta = start.clone().flatten(), torch.zeros(60, dtype=torch.float64)
    alone = [(values.clone(), torch.zeros(20, dtype=torch.float64)) for values in start]
    spread = {
        name: torch.tensor([each[name] for each in SETTINGS], dtype=torch.float64).repeat_interleave(20)
        for name in SETTINGS[0]
    }
    for gradient in gradients:
        sgd_step([together], [gradient.clone().flatten()], [momenta], fused=False, **spread)
        for (values, running), own, settings in zip(alone, gradient, SETTINGS, strict=True):
            sgd_step([values], [own.clone()], [running], fused=True, **settings)
    for found, (values, _) in zip(together.view(3, 20), alone, strict=True):
        torch.testing.assert_close(found, values, rtol=1e-13, atol=1e-15)


def test_a_loaded_trainer_goes_on_to_the_same_bits():
    original, copy = build_trainer(), build_trainer()
    original.begin_epoch(0)
    take_step(original)
    saved = {name: tensor.detach().clone() for name, tensor in original.state_tensors().items()}
    copy.load_state_tensors(saved)
    for trainer in (original, copy):
        trainer.begin_epoch(1)
        take_step(trainer)
    for name, tensor in original.state_tensors().items():
        assert torch.equal(copy.state_tensors()[name], tensor), name


def test_steps_with_the_channels_last_are_those_with_them_first():
    def stepped(layout: torch.memory_format, *, reloaded: bool) -> dict[str, torch.Tensor]:
        with seeded(0):
            module = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.Conv2d(16, 4, 2)).double()
        options = {"learning_rate": 0.1, "momentum": 0.9, "weight_decay": 0.01, "schedule": "constant", "epochs": 1}
        trainer = Trainer(module.to(memory_format=layout), **options)
        images = torch.arange(2 * 3 * 6 * 5, dtype=torch.float64).view(2, 3, 6, 5).sin()
        for _ in range(3):
            trainer.forget_gradients()
            trainer.module(images).square().mean().backward()
            trainer.step()
            if reloaded:
                saved = {name: value.detach().clone().contiguous() for name, value in trainer.state_tensors().items()}
                trainer.load_state_tensors(saved)
        return trainer.state_tensors()

    first = stepped(torch.contiguous_format, reloaded=False)
    last, resumed = (stepped(torch.channels_last, reloaded=reloaded) for reloaded in (False, True))
    for name, tensor in first.items():
        torch.testing.assert_close(last[name], tensor, rtol=1e-12, atol=1e-14)
        assert torch.equal(resumed[name], last[name]), name


def test_loading_an_unused_trainer_forgets_the_momentum():
    used, unused = build_trainer(), build_trainer()
    take_step(used)
    used.load_state_tensors(unused.state_tensors())
    assert not any(name.startswith("momentum.") for name in used.state_tensors())


def test_tensors_that_do_not_fit_are_refused_by_name():
    trainer = build_trainer()
    take_step(trainer)
    good = trainer.state_tensors()
    lacking = {name: value for name, value in good.items() if name != "momentum.0.bias"}
    with pytest.raises(ValueError, match=r"0\.bias"):
        trainer.load_state_tensors(lacking)
    with pytest.raises(ValueError, match=r"0\.weight"):
        trainer.load_state_tensors(good | {"module.0.weight": torch.zeros(9, 9)})
    with pytest.raises(ValueError, match="extra"):
        trainer.load_state_tensors(good | {"module.extra": torch.zeros(1)})


def test_parameters_are_counted_without_buffers():
    assert count_parameters([nn.Linear(3, 2), nn.BatchNorm1d(4)]) == (3 * 2 + 2) + (4 + 4)
    assert count_parameters([]) == 0
