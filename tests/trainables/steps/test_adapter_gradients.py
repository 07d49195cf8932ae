import pytest
import torch
from torch import nn

from trainables.process.randomness import seeded
from trainables.steps.adapter import KINDS, TeacherAdapter
from trainables.steps.adapter_formulas import AdapterGradients


@pytest.mark.parametrize("batch", [1, 9])
@pytest.mark.parametrize("kind", KINDS)
def test_the_gradients_are_those_that_autograd_finds(kind, batch):
    with seeded(3):
        head = nn.Linear(6, 4).double()
        adapter = TeacherAdapter(6, 4, 5, kind=kind, init="default", head=head).double()
        feature, pull = torch.randn(batch, 6, dtype=torch.float64), torch.randn(batch, 4, dtype=torch.float64)
    logits = head(feature).detach()
    by_hand = AdapterGradients(adapter)
    for _ in range(2):
        adapted = by_hand.forward(feature, logits)
        gradients = by_hand.backward(pull)
    expected = adapter(feature, logits)
    expected.backward(pull)
    torch.testing.assert_close(adapted, expected.detach(), rtol=1e-14, atol=1e-15)
    assert gradients.keys() == dict(adapter.named_parameters()).keys()
    for name, parameter in adapter.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-12, atol=1e-14, msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_that_corrects_nothing_gives_the_teachers_logits_to_the_bit(kind):
    head = nn.Linear(6, 4)
    adapter = TeacherAdapter(6, 4, 5, kind=kind, head=head)
    feature = torch.randn(3, 6)
    logits = head(feature).detach()
    assert torch.equal(AdapterGradients(adapter).forward(feature, logits), logits)
