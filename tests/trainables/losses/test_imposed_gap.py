"""PESF-KD with an imposed gap, and the placebo, which changes the paper's gap and nothing else."""

import pytest
import torch

from tests.trainables.conftest import TIMED, small_config
from tests.trainables.packing.runs import assert_same_measures, assert_same_state, in_float64, make_runs
from trainables.costs.epoch import run_epoch
from trainables.losses.parts import LossParts, StepOutputs
from trainables.losses.sharpness import sharpness_gap
from trainables.methods.registry import METHODS
from trainables.packing.pack import Pack
from trainables.packing.step import PackedStep
from trainables.process.randomness import seeded
from trainables.run.run import DistillationRun
from trainables.spec.trial import TrialConfig
from trainables.steps.adapter import KINDS, TeacherAdapter
from trainables.steps.step import AutogradStep

IMPOSED = ["paper", "centred"]
CONTROLLED = [*IMPOSED, "placebo"]
LABELS = torch.tensor([0, 3, 1, 2, 2, 4])
# Measures changed by a constant added to all logits of the teacher. All others are functions of softmax.
MOVED_BY_A_SHIFT = {"val/sharpness_adapted", "val/sharpness_gap", "val/sharpness_gap_tempered"}


def logits(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(6, 5, dtype=torch.float64, generator=generator)).requires_grad_()


def losses(student: torch.Tensor, adapted: torch.Tensor, **changes: object) -> LossParts:
    outputs = StepOutputs(student, student, teacher_logits=logits(9).detach(), adapted_logits=adapted)
    return METHODS["pesf_kd"].objective(TrialConfig().model_dump() | changes)(outputs, LABELS)


@pytest.mark.parametrize("control", IMPOSED)
@pytest.mark.parametrize("detached", [False, True])
def test_the_penalty_pulls_the_adapted_logits_by_its_formula_and_the_students_not_at_all(control, detached):
    student, adapted = logits(1), logits(2)
    parts = losses(student, adapted, gap_control=control, gap_target=0.7, detach_adapter_target=detached)
    in_student, in_adapted = torch.autograd.grad(parts.gap, [student, adapted], allow_unused=True)
    assert in_student is None
    gap = sharpness_gap(adapted, student, centred=control == "centred").item()
    assert parts.gap.item() == pytest.approx((gap - 0.7) ** 2, rel=1e-14)
    pull = torch.softmax(adapted, dim=1) - (0.2 if control == "centred" else 0.0)
    torch.testing.assert_close(in_adapted, 2 * (gap - 0.7) * pull / 6, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("control", IMPOSED)
def test_the_students_gradient_is_to_the_bit_that_of_a_gap_left_alone(control):
    student, adapted = logits(1), logits(2)
    free, imposed = (losses(student, adapted, gap_control=each, gap_target=3.0) for each in ("none", control))
    in_student = [torch.autograd.grad(parts.total, student, retain_graph=True)[0] for parts in (free, imposed)]
    assert torch.equal(*in_student)
    assert imposed.total.item() == pytest.approx(free.total.item() + imposed.gap.item(), rel=1e-14)
    assert free.gap is None


def test_a_weight_scales_the_penalty_in_the_total_and_not_the_part():
    student, adapted = logits(1), logits(2)
    one, five = (losses(student, adapted, gap_control="paper", gap_weight=weight) for weight in (1.0, 5.0))
    assert five.gap.item() == one.gap.item()
    assert five.total.item() - one.total.item() == pytest.approx(4 * one.gap.item(), rel=1e-12)


def test_a_constant_on_all_logits_meets_the_papers_target_and_leaves_the_centred_penalty_as_it_was():
    student, adapted = logits(1), logits(2).detach()
    shift = 0.5 - sharpness_gap(adapted, student).item()
    assert losses(student, adapted + shift, gap_control="paper", gap_target=0.5).gap.item() < 1e-28
    centred = [losses(student, each, gap_control="centred", gap_target=0.5) for each in (adapted, adapted + shift)]
    assert centred[1].gap.item() == pytest.approx(centred[0].gap.item(), rel=1e-12)


@pytest.mark.study
@pytest.mark.parametrize("control", IMPOSED)
def test_a_trial_is_led_to_the_gap_that_is_imposed_on_it(control, digits, teacher):
    measure = "val/sharpness_gap" if control == "paper" else "val/sharpness_gap_centred"
    common = {"epochs": 8, "adapter_learning_rate": 0.01, "gap_control": control}
    reached = []
    for target in (0.0, 1.0, 2.0):
        run = DistillationRun(small_config(**common, gap_target=target), digits, teacher)
        measures = [run_epoch(run) for _ in range(8)]
        reached.append(measures[-1][measure])
        assert measures[-1]["train/loss_gap"] < measures[0]["train/loss_gap"] / 5
    # The gap is imposed on batches of the train split, so it may be half a nat off on the validation split.
    assert reached == pytest.approx([0.0, 1.0, 2.0], abs=0.8)
    assert reached[0] + 0.3 < reached[1] < reached[2] - 0.3


@pytest.mark.study
@pytest.mark.parametrize("kind", KINDS)
def test_a_placebo_moves_the_papers_gap_by_its_constant_and_the_student_by_rounding_alone(kind, digits, teacher):
    common = {"adapter_kind": kind, "adapter_init": "default", "epochs": 3, "temperature": 4.0}
    free, shifted = (
        in_float64(DistillationRun(small_config(**common, gap_control=control, gap_target=-3.0), digits, teacher))
        for control in ("none", "placebo")
    )
    for _ in range(3):
        expected, measures = run_epoch(free), run_epoch(shifted)
        assert set(measures) == set(expected)
        for name in set(expected) - set(TIMED) - MOVED_BY_A_SHIFT:
            assert measures[name] == pytest.approx(expected[name], abs=1e-10), name
        for name in MOVED_BY_A_SHIFT:
            moved = -3.0 / 4.0 if name.endswith("tempered") else -3.0
            assert measures[name] == pytest.approx(expected[name] + moved, abs=1e-10), name
    for who, trainer in free.trainers.items():
        for name, tensor in trainer.state_tensors().items():
            theirs = shifted.trainers[who].state_tensors()[name]
            torch.testing.assert_close(tensor, theirs, rtol=0, atol=1e-10, msg=lambda m, n=name: n + m)


def test_in_float32_a_placebo_moves_the_students_first_step_by_rounding_alone(digits, teacher):
    students = []
    for shift in (0.0, 2.0):
        config = small_config(gap_control="placebo", gap_target=shift, batch_size=len(digits.train))
        run = DistillationRun(config, digits, teacher)
        run.train_epoch()
        students.append(run.student.state_dict())
    for name, tensor in students[0].items():
        torch.testing.assert_close(tensor, students[1][name], rtol=0, atol=1e-6, msg=lambda m, n=name: n + m)


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_with_a_shift_gives_its_logits_and_the_constant(kind):
    with seeded(0):
        head = torch.nn.Linear(6, 4)
        plain = TeacherAdapter(6, 4, 3, kind=kind, init="default", head=head)
        shifted = TeacherAdapter(6, 4, 3, kind=kind, init="default", head=head, shift=1.5)
        feature = torch.randn(5, 6)
    shifted.load_state_dict(plain.state_dict())
    given = head(feature)
    assert torch.equal(shifted(feature, given), plain(feature, given) + 1.5)


@pytest.mark.parametrize("control", CONTROLLED)
def test_a_controlled_gap_has_no_formula_anywhere_alone_or_packed(control, digits, teacher):
    values = TrialConfig(gap_control=control, gap_target=0.5).model_dump()
    assert METHODS["pesf_kd"].gradients(values) is None
    run = DistillationRun(small_config(gap_control=control, gap_target=0.5), digits, teacher)
    assert run.closed_form is None
    assert isinstance(run.step, AutogradStep)
    packed = PackedStep([run])
    assert packed.closed_form is None
    assert isinstance(packed.step, AutogradStep)
    assert packed.adapter is None


def test_without_its_weight_a_penalty_trains_by_autograd_what_the_formulas_train(digits, teacher):
    by_formula, by_autograd = (
        in_float64(DistillationRun(small_config(gap_control=control, gap_weight=0.0), digits, teacher))
        for control in ("none", "paper")
    )
    for _ in range(3):
        by_formula.train_epoch()
        by_autograd.train_epoch()
    ours, theirs = (run.state_dict()["tensors"] for run in (by_formula, by_autograd))
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=1e-11, msg=lambda m, n=name: n + m)


@pytest.mark.study
@pytest.mark.parametrize("control", CONTROLLED)
def test_packed_trials_have_each_their_own_target_and_weight(control, digits, teacher):
    changes = [
        {"gap_target": 0.3, "gap_weight": 0.5, "seed": 1},
        {"gap_target": 2.0, "adapter_width": 3, "data_seed": 5},
    ]
    packed = Pack(make_runs(digits, teacher, changes, gap_control=control))
    alone = make_runs(digits, teacher, changes, gap_control=control)
    for _ in range(2):
        together = packed.run_epoch()
        assert together.failures == {}
        for name, run in alone.items():
            assert_same_measures(together.measures[name], run_epoch(run))
            assert_same_state(packed.run_of(name), run)
    assert together.measures["0"]["val/sharpness_gap"] != together.measures["1"]["val/sharpness_gap"]


def test_a_control_of_another_method_is_not_shifted(digits, teacher):
    config = small_config(method="dkd", adapter=True, gap_control="placebo", gap_target=5.0)
    assert DistillationRun(config, digits, teacher).adapter.shift == 0.0
