"""Losses of a method of the user's own: a step on noise before any work finds what is wrong with them."""

import pytest
import torch

from tests.trainables.conftest import small_config
from tests.user_methods import METHOD
from tests.user_nets import new_process, write
from trainables.data.registry import dataset_info
from trainables.methods.registry import METHODS
from trainables.run.shape_check import ShapeError, check_method
from trainables.user_code.errors import UserCodeError
from trainables.user_code.loading import canonical_name

RETURNED = "return weighted_sum(outputs, labels, kd, ce_weight=ce_weight, kd_weight=kd_weight)"


@pytest.fixture(autouse=True)
def _process():
    with new_process():
        yield


def own(folder, text=METHOD):
    return canonical_name(f"{write(folder, mine=text)}/mine.py:METHOD")


def check(name):
    check_method(small_config(method=name), dataset_info("digits"), flag="--method")


def test_a_sound_method_passes(tmp_path):
    name = own(tmp_path)
    check(name)
    assert METHODS[name].loss_fields == {"matching_power", "ce_weight", "kd_weight"}
    assert METHODS[name].gradients({}) is None


def test_a_method_of_large_batches_is_tried_on_a_large_batch(tmp_path):
    text = METHOD.replace("published=", "smallest_batch=5, published=").replace(
        "    difference", "    assert len(labels) == 5\n    difference"
    )
    check(own(tmp_path, text))


REFUSED = {
    RETURNED.replace("return", "return 3 #"): "return a int, not LossParts: return weighted_sum(...)",
    "return kd": "return a Tensor, not LossParts",
    "return LossParts(difference)": r"return total of shape (2, 10), not a scalar: take the mean",
    "return LossParts(kd, ce=3.0)": "return ce as a float, not a tensor",
    "return LossParts(kd, ce=labels.sum())": "return ce of type torch.int64",
    "return LossParts(kd.detach(), ce=kd)": "return a total without a gradient",
    "return LossParts(kd)": "the losses return no ce: return LossParts(total, ce=ce, kd=kd)",
    "return LossParts(kd, ce=kd)": "the losses return no kd",
    f"kd = kd / 0.0\n    {RETURNED}": "the loss total of a step on noise is inf",
    f"kd = (kd - kd).sqrt() * float('nan')\n    {RETURNED}": "the loss total of a step on noise is nan",
    f"kd = (difference @ difference).mean()\n    {RETURNED}": "a step on noise raises an error:",
    f"kd = outputs.student_maps[0].mean()\n    {RETURNED}": "TypeError: 'NoneType' object is not subscriptable",
}  # fmt: skip


@pytest.mark.parametrize(("returned", "reason"), REFUSED.items(), ids=range(len(REFUSED)))
def test_wrong_losses_are_refused_with_the_user_s_line(returned, reason, tmp_path):
    with pytest.raises(ShapeError) as refused:
        check(own(tmp_path, METHOD.replace(RETURNED, returned)))
    assert str(refused.value).startswith("--method mine.py:METHOD: ")
    assert reason in str(refused.value)
    if "error" in reason or "Error" in reason:
        assert f'File "{tmp_path}/mine.py", line 22, in losses' in str(refused.value)
        assert "trainables/run" not in str(refused.value)


def test_values_pass_unchanged_and_a_wrong_one_names_the_method(tmp_path):
    from trainables.losses.parts import StepOutputs

    method = METHODS[own(tmp_path, METHOD.replace(RETURNED, f"{RETURNED} if len(labels) < 4 else kd"))]
    logits = torch.randn(4, 10, generator=torch.Generator().manual_seed(0), requires_grad=True)
    outputs = StepOutputs(logits, logits, logits, logits.detach() + 1)
    objective = method.objective({"matching_power": 2.0, "ce_weight": 1.0, "kd_weight": 0.5})
    fewer = StepOutputs(logits[:3], logits[:3], logits[:3], logits[:3].detach() + 1)
    found = objective(fewer, torch.arange(3))
    assert found.kd.item() == pytest.approx(1.0)
    with pytest.raises(UserCodeError, match=r"the losses of mine.py:METHOD return a Tensor, not LossParts"):
        objective(outputs, torch.arange(4))
