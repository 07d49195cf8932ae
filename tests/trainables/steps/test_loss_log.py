import math

import pytest
import torch

from trainables.losses.parts import LossParts
from trainables.steps.closed_form import ClosedForm
from trainables.steps.loss_log import LossLog, NonFiniteLossError

FORM = ClosedForm(temperature=2.0, ce_weight=0.5, kd_weight=1.0, adapter_ce_weight=0.25)


def parts(total: float, ce: float) -> LossParts:
    return LossParts(torch.tensor(total), ce=torch.tensor(ce))


def test_a_mean_is_over_samples_not_over_batches():
    log = LossLog()
    log.add(parts(1.0, 2.0), 30)
    log.add(parts(4.0, 8.0), 10)
    assert log.read().means(1, 5) == {"train/loss": pytest.approx(1.75), "train/loss_ce": pytest.approx(3.5)}


@pytest.mark.parametrize("batches", [1, 16, 17, 40])
def test_losses_left_for_later_are_those_of_their_batches(batches):
    generator = torch.Generator().manual_seed(0)
    log, totals, sizes = LossLog(FORM), [], []
    for number in range(batches):
        size = 3 if number == batches - 1 else 8
        student, teacher = torch.randn(2, size, 4, generator=generator)
        labels = torch.randint(4, (size,), generator=generator)
        log_p = FORM(student, teacher, labels).log_p
        log.add_later(log_p, labels)
        totals.append(float(FORM.parts(log_p, labels).total))
        sizes.append(size)
    expected = sum(t * s for t, s in zip(totals, sizes, strict=True)) / sum(sizes)
    means = log.read().means(1, 1)
    assert means["train/loss"] == pytest.approx(expected, rel=1e-5)
    assert means.keys() == {"train/loss", "train/loss_ce", "train/loss_kd", "train/loss_adapter"}


def test_the_first_batch_that_is_not_finite_is_named_with_its_parts():
    log = LossLog()
    for ce in (1.0, math.inf, math.nan):
        log.add(parts(ce, ce), 8)
    with pytest.raises(NonFiniteLossError, match=r"epoch 3 of 9, batch 2 of 3: total inf, ce inf"):
        log.read().means(3, 9)


@pytest.mark.parametrize("sizes", [(8,) * 18, (8, 8, 3)], ids=["more_than_are_computed_at_once", "a_smaller_last"])
def test_the_losses_of_each_of_several_trials_are_those_of_a_log_of_its_own(sizes):
    generator = torch.Generator().manual_seed(0)
    temperature = torch.tensor([1.0, 3.0], dtype=torch.float64)
    both = ClosedForm(temperature=temperature, ce_weight=0.5, kd_weight=1.0)
    own = [ClosedForm(temperature=float(each), ce_weight=0.5, kd_weight=1.0) for each in temperature]
    together, alone = LossLog(both), [LossLog(form) for form in own]
    for size in sizes:
        student, teacher = torch.randn(2, 2, size, 4, generator=generator, dtype=torch.float64)
        labels = torch.randint(4, (2, size), generator=generator)
        together.add_later(both(student, teacher, labels).log_p, labels)
        for k, log in enumerate(alone):
            log.add_later(own[k](student[k], teacher[k], labels[k]).log_p, labels[k])
    losses = together.read()
    assert losses.sizes == list(sizes)
    for k, log in enumerate(alone):
        assert losses.of_trial(k).means(1, 1) == pytest.approx(log.read().means(1, 1), rel=1e-12)


def test_a_loss_that_is_not_finite_is_that_of_its_own_trial():
    log = LossLog()
    log.add(LossParts(torch.tensor([1.0, math.nan]), ce=torch.tensor([2.0, math.nan])), 8)
    log.add(LossParts(torch.tensor([3.0, math.nan]), ce=torch.tensor([6.0, math.nan])), 8)
    losses = log.read()
    assert losses.of_trial(0).means(1, 1) == {"train/loss": 2.0, "train/loss_ce": 4.0}
    with pytest.raises(NonFiniteLossError, match=r"batch 1 of 2: total nan, ce nan"):
        losses.of_trial(1).means(1, 1)


def test_losses_stacked_for_a_pack_keep_the_graph_of_the_total_alone():
    losses = [torch.tensor(value, requires_grad=True) for value in (1.0, 2.0)]
    stacked = LossParts.side_by_side([LossParts(2 * each, ce=3 * each) for each in losses])
    assert stacked.total.tolist() == [2.0, 4.0]
    assert stacked.ce.tolist() == [3.0, 6.0]
    assert stacked.kd is None
    assert not stacked.ce.requires_grad
    stacked.total.sum().backward()
    assert [float(each.grad) for each in losses] == [2.0, 2.0]
