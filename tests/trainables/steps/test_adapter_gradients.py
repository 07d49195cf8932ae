import pytest
import torch
from torch import nn

from trainables.process.randomness import seeded
from trainables.steps.adapter import KINDS, TeacherAdapter
from trainables.steps.adapter_formulas import AdapterFormulas, PackedLayers


@pytest.mark.parametrize("batch", [1, 9])
@pytest.mark.parametrize("kind", KINDS)
def test_the_gradients_are_those_that_autograd_finds(kind, batch):
    with seeded(3):
        head = nn.Linear(6, 4).double()
        adapter = TeacherAdapter(6, 4, 5, kind=kind, init="default", head=head).double()
        feature, gradient = torch.randn(batch, 6, dtype=torch.float64), torch.randn(batch, 4, dtype=torch.float64)
    logits = head(feature).detach()
    by_hand = AdapterFormulas(adapter)
    for _ in range(2):
        adapted = by_hand.forward(feature, logits)
        gradients = by_hand.backward(gradient)
    expected = adapter(feature, logits)
    expected.backward(gradient)
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
    assert torch.equal(AdapterFormulas(adapter).forward(feature, logits), logits)


@pytest.mark.parametrize("kind", KINDS)
def test_along_a_leading_axis_each_adapter_has_the_outputs_and_gradients_that_autograd_finds(kind):
    widths = (2, 5, 3)  # the narrower ones are padded with zeros
    with seeded(4):
        head = nn.Linear(6, 4).double()
        adapters = [TeacherAdapter(6, 4, width, kind=kind, init="default", head=head).double() for width in widths]
        feature, gradient = (torch.randn(3, 7, size, dtype=torch.float64) for size in (6, 4))
    logits = head(feature).detach()
    own = [dict(adapter.named_parameters()) for adapter in adapters]
    shapes = {name: torch.Size(map(max, zip(*(each[name].shape for each in own), strict=True))) for name in own[0]}
    weights, gradients = ({name: torch.zeros(3, *shape).double() for name, shape in shapes.items()} for _ in range(2))
    parts = {
        (name, k): (k, *map(slice, each[name].shape)) for k, each in enumerate(own) for name in shapes
    }  # slices of a narrow adapter in the memory of the widest one
    for (name, k), part in parts.items():
        weights[name][part] = own[k][name].detach()
    packed = AdapterFormulas(adapters[0], PackedLayers(weights, gradients))
    for _ in range(2):
        adapted = packed.forward(feature, logits)
        assert packed.backward(gradient) is gradients
    for k, adapter in enumerate(adapters):
        expected = adapter(feature[k], logits[k])
        expected.backward(gradient[k])
        torch.testing.assert_close(adapted[k], expected.detach(), rtol=1e-14, atol=1e-14)
        for name, parameter in adapter.named_parameters():
            found = gradients[name][parts[name, k]]
            torch.testing.assert_close(found, parameter.grad, rtol=1e-12, atol=1e-14, msg=name)
            assert gradients[name][k].count_nonzero() == found.count_nonzero(), "the padding has a gradient"
