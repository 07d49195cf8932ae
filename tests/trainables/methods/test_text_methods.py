import math

import pytest
import torch
from torch import nn

from tests.trainables.conftest import text_config
from trainables.costs.epoch import run_epoch
from trainables.costs.ledger import count_costs
from trainables.losses.parts import StepOutputs
from trainables.methods.pea_kd import answers_of, pea_kd_losses
from trainables.methods.pkd import patience_loss, pkd_losses
from trainables.run.run import DistillationRun
from trainables.spec.layer_matching import matched_layers

pytestmark = pytest.mark.study


def test_the_patience_loss_of_one_pair_is_a_hand_value() -> None:
    student = (torch.zeros(1, 2), torch.tensor([[3.0, 4.0]]), torch.zeros(1, 2))
    teacher = (torch.zeros(1, 2), torch.zeros(1, 2), torch.tensor([[10.0, 0.0]]), torch.zeros(1, 2), torch.zeros(1, 2))
    # (0.6, 0.8) against (1, 0): the mean of 0.16 and 0.64.
    assert float(patience_loss(student, teacher, student_layers="skip")) == pytest.approx(0.4)


def test_the_patience_loss_ignores_lengths_and_the_last_layer_and_is_zero_for_equal_directions() -> None:
    torch.manual_seed(0)
    student = tuple(torch.randn(3, 4) for _ in range(3))
    teacher = (student[0], torch.randn(3, 4), 5 * student[1], torch.randn(3, 4), torch.randn(3, 4))
    assert float(patience_loss(student, teacher, student_layers="skip")) == pytest.approx(0, abs=1e-12)
    other = (*teacher[:-1], torch.randn(3, 4))
    assert float(patience_loss(student, other, student_layers="skip")) == pytest.approx(0, abs=1e-12)
    assert float(patience_loss(student, teacher, student_layers="first")) > 0.01


def test_six_layers_follow_every_other_of_twelve_or_the_last() -> None:
    assert matched_layers(12, 6, which="skip") == [1, 3, 5, 7, 9, 11]
    assert matched_layers(12, 6, which="last") == [6, 7, 8, 9, 10, 11]
    assert matched_layers(12, 3, which="skip") == [3, 7, 11]


def test_states_of_other_width_are_refused_naming_both() -> None:
    with pytest.raises(ValueError, match="the student's have 2 units, the teacher's 3"):
        patience_loss((torch.ones(1, 2),) * 3, (torch.ones(1, 3),) * 3, student_layers="skip")


def test_without_patience_pkd_is_kd_and_with_it_a_part_more() -> None:
    torch.manual_seed(0)
    labels = torch.tensor([0, 1, 0])
    maps = [tuple(torch.randn(3, 4) for _ in range(count)) for count in (3, 5)]
    outputs = StepOutputs(
        torch.randn(3, 4),
        torch.randn(3, 2),
        teacher_logits=torch.randn(3, 2),
        student_maps=maps[0],
        teacher_maps=maps[1],
    )
    values = {"temperature": 2.0, "ce_weight": 0.3, "kd_weight": 0.7, "student_layers": "skip"}
    values |= {"distance": "kl", "adapter_ce_weight": 1.0, "detach_adapter_target": False}
    plain = pkd_losses(outputs, labels, **values, pkd_weight=0.0)
    patient = pkd_losses(outputs, labels, **values, pkd_weight=100.0)
    assert float(plain.total) == pytest.approx(0.3 * float(plain.ce) + 0.7 * float(plain.kd))
    patience = float(patience_loss(*maps, student_layers="skip"))
    assert float(patient.total - plain.total) == pytest.approx(100 * patience, rel=1e-5)


def test_a_teachers_answers_are_right_or_wrong_and_confident_or_not() -> None:
    logits = torch.tensor([[4.0, 0.0], [0.1, 0.0], [4.0, 0.0], [0.1, 0.0]])
    labels = torch.tensor([0, 0, 1, 1])
    assert answers_of(logits, labels, threshold=0.9).tolist() == [0, 1, 2, 3]
    assert answers_of(logits, labels, threshold=0.99, wrong_threshold=0.5).tolist() == [1, 1, 2, 2]


def test_the_answers_of_two_thresholds_are_those_of_the_authors_code() -> None:
    # src/utils/nli_data_processing.py, with the thresholds of RTE: t1 for correct answers, t2 for wrong ones.
    generator = torch.Generator().manual_seed(0)
    logits, labels = 2 * torch.randn(200, 2, dtype=torch.float64, generator=generator), torch.arange(200) % 2
    values, answers = torch.nn.Softmax(dim=1)(logits).max(dim=1)
    expected = []
    for value, right in zip(values.tolist(), (answers == labels).tolist(), strict=True):
        expected.append((0 if value > 0.8 else 1) if right else (2 if value > 0.6 else 3))
    assert set(expected) == {0, 1, 2, 3}
    assert answers_of(logits, labels, threshold=0.8, wrong_threshold=0.6).tolist() == expected


def test_pea_kd_first_tells_how_the_teacher_answers_and_is_kd_from_then_on() -> None:
    head = nn.Linear(4, 4)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    outputs = StepOutputs(torch.randn(3, 4), torch.zeros(3, 2), teacher_logits=torch.zeros(3, 2), parts=head)
    labels, values = torch.tensor([0, 1, 0]), {"temperature": 2.0, "ce_weight": 0.3, "kd_weight": 0.7}
    first = pea_kd_losses(outputs, labels, **values, pea_threshold=0.9, pea_wrong_threshold=0.0, pea_epochs=1)
    assert float(first.total.detach()) == pytest.approx(0.7 * math.log(4))
    later = pea_kd_losses(
        outputs._replace(epoch=1), labels, **values, pea_threshold=0.9, pea_wrong_threshold=0.0, pea_epochs=1
    )
    assert float(later.total.detach()) == pytest.approx(0.3 * math.log(2))


def test_a_pea_kd_student_computes_twice_what_a_plain_one_does_with_as_many_parameters(text, text_teacher) -> None:
    plain, shared = (
        count_costs(DistillationRun(text_config(method=method), text, text_teacher)).facts
        for method in ("kd", "pea_kd")
    )
    assert shared["cost/student_parameters"] == plain["cost/student_parameters"]
    assert shared["cost/forward_flops_student"] > 1.8 * plain["cost/forward_flops_student"]


def test_a_second_student_of_the_teachers_layers_differs_from_the_first_by_its_head(text, text_teacher) -> None:
    run = DistillationRun(text_config(method="dual_student", student="bert:1", epochs=1), text, text_teacher)
    own, peers = run.student.state_dict(), run.companion.model.state_dict()
    different = {name for name in own if not torch.equal(own[name], peers[name])}
    assert "_head.weight" in different
    assert different <= {"_head.weight", "_head.bias"}
    run.train_epoch()


def test_pkd_is_patient_with_a_student_of_the_teachers_own_layers(text, text_teacher) -> None:
    config = text_config(method="pkd", student="bert:2", epochs=1)
    run = DistillationRun(config, text, text_teacher)
    theirs, own = run.teacher.model.layers[0].state_dict(), run.student.layers[0].state_dict()
    assert all(torch.equal(each, theirs[name]) for name, each in own.items())
    assert run_epoch(run)["val/accuracy"] > 0.5
