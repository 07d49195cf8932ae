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
    assert log.means(1, 5) == {"train/loss": pytest.approx(1.75), "train/loss_ce": pytest.approx(3.5)}


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
    means = log.means(1, 1)
    assert means["train/loss"] == pytest.approx(expected, rel=1e-5)
    assert means.keys() == {"train/loss", "train/loss_ce", "train/loss_kd", "train/loss_adapter"}


def test_the_first_batch_that_is_not_finite_is_named_with_its_parts():
    log = LossLog()
    for ce in (1.0, math.inf, math.nan):
        log.add(parts(ce, ce), 8)
    with pytest.raises(NonFiniteLossError, match=r"epoch 3 of 9, batch 2 of 3: total inf, ce inf"):
        log.means(3, 9)
