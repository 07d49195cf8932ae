import copy

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tests.trainables.conftest import small_config
from trainables.costs import ledger as cost_ledger
from trainables.costs.epoch import run_epoch
from trainables.costs.ledger import FlopCounter, Flops, count_costs
from trainables.data.dataset import Dataset
from trainables.models import build_model
from trainables.packing.pack import Pack
from trainables.run.run import DistillationRun
from trainables.spec.measures import COST_FACTS, COST_MEASURES, ENERGY_MEASURES, MEASURES, unit_of
from trainables.steps.adapter import KINDS
from trainables.teacher_outputs.frozen import FrozenTeacher
from trainables.teacher_outputs.store import StoredTeacherOutputs

pytestmark = pytest.mark.study

FEATURE, CLASSES = 64, 10  # of cnn_8_16 on the digits


def both_ways(model: nn.Module, images: torch.Tensor) -> tuple[int, int]:
    """Return the FLOPs of the forward and the backward pass."""
    with FlopCounter() as counter:
        loss = model(images).sum()
        forward = counter.flops
        loss.backward()
    return forward, counter.flops - forward


def test_a_linear_layer_takes_two_flops_for_each_weight_and_as_many_for_each_gradient():
    layer = nn.Linear(4, 3)
    products = 2 * 5 * 4 * 3
    assert both_ways(layer, torch.ones(5, 4)) == (products, products)
    assert both_ways(layer, torch.ones(5, 4, requires_grad=True)) == (products, 2 * products)


def test_cnn_3_4_takes_what_its_layers_take_by_hand(digits, teacher):
    first, second, head = (2 * each for each in (8 * 8 * 9 * 1 * 3, 4 * 4 * 9 * 3 * 4, 16 * 10))
    ledger = count_costs(DistillationRun(small_config(method="ce"), digits, teacher))
    assert ledger.flops["student"] == (first + second + head, first + 2 * (second + head))
    assert ledger.step_flops == ledger.flops["student"].total
    assert ledger.to_ce == 1.0


def test_resnet20_takes_twice_its_40_8_million_multiplications():
    forward, backward = both_ways(build_model("resnet20", num_classes=10), torch.zeros(2, 3, 32, 32))
    assert forward == 2 * 81_626_368
    assert forward / 2 == pytest.approx(2 * 40.8e6, rel=1e-3)
    first_layer = 2 * 32 * 32 * 27 * 16
    assert backward == 2 * (forward - first_layer)


def test_a_zero_padded_shortcut_takes_no_flops():
    images = torch.zeros(2, 3, 32, 32)
    padded, _ = both_ways(build_model("resnet20a", num_classes=10), images)
    projected, _ = both_ways(build_model("resnet20", num_classes=10), images)
    assert projected - padded == 2 * 2 * (16 * 16 * 16 * 32 + 8 * 8 * 32 * 64)


def test_the_counter_says_what_pytorchs_own_says():
    model, images = build_model("wrn_16_2", num_classes=10), torch.zeros(2, 3, 16, 16)
    with FlopCounterMode(display=False) as theirs:
        model(images).sum().backward()
    assert sum(both_ways(copy.deepcopy(model), images)) == theirs.get_total_flops()


def test_attention_is_counted_by_its_products(digits, teacher):
    query = torch.zeros(2, 3, 7, 5, requires_grad=True)
    run = DistillationRun(small_config(), digits, teacher)
    with cost_ledger._flop_counter(run) as counter:
        nn.functional.scaled_dot_product_attention(query, query, query)
    assert counter.flops == 2 * (2 * 2 * 3 * 7 * 7 * 5)


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_takes_what_its_layers_take_by_hand(kind, digits, teacher):
    width, d, c = 5, FEATURE, CLASSES
    # (inputs, outputs, whether a gradient for the inputs is needed, whether the layer is trained)
    layers = {
        "serial": [(d, c, False, True), (c, width, True, True), (width, c, True, True)],
        "parallel": [(d, c, False, True), (d, width, False, True), (width, c, True, True)],
        "logit": [(c, width, False, True), (width, c, True, True)],
        "feature": [(d, width, False, True), (width, d, True, True), (d, c, True, False)],
    }[kind]
    forward = sum(2 * i * o for i, o, _, _ in layers)
    backward = sum(2 * i * o * (below + learns) for i, o, below, learns in layers)
    run = DistillationRun(small_config(adapter_kind=kind, adapter_width=width), digits, teacher)
    assert count_costs(run).flops["adapter"] == (forward, backward)
    assert count_costs(run).flops["method"] == (0, 0)


def test_a_stored_teacher_takes_its_head_and_a_live_one_a_whole_pass(digits, teacher, make_store):
    store = make_store(dtype="float16")
    config = small_config(method="kd")
    live = count_costs(DistillationRun(config, digits, teacher))
    run = DistillationRun(config, digits, teacher, teacher_outputs=StoredTeacherOutputs(store))
    stored = count_costs(run)
    with FlopCounter() as counter:
        teacher(torch.zeros(1, 1, 8, 8))
    assert live.flops["teacher"] == (counter.flops, 0)
    assert stored.flops["teacher"] == (2 * FEATURE * CLASSES, 0)
    assert live.teacher_pass == stored.teacher_pass == counter.flops
    assert live.stored_bytes == 0
    assert stored.step_flops < live.step_flops
    while not run.finished:
        run_epoch(run)
    rows = [store.slot(slot).rows for slot in range(config.epochs)] + [store.validation().rows]
    assert stored.stored_bytes == sum(each.numel() * each.element_size() for each in rows)
    outputs = StoredTeacherOutputs(make_store(dtype="float16"))
    ce = count_costs(DistillationRun(small_config(method="ce"), digits, teacher, teacher_outputs=outputs))
    assert ce.teacher_pass is None
    assert ce.stored_bytes == rows[-1].numel() * 2


def test_precision_and_layout_change_no_count(digits):
    def ledger(**changes):
        teacher = FrozenTeacher(build_model("cnn_16_32", num_classes=10, in_channels=1))
        config = small_config(student="cnn_16_32", teacher="cnn_16_32", **changes)
        cost_ledger._known.clear()
        return count_costs(DistillationRun(config, digits, teacher))

    wide = ledger()
    assert ledger(precision="bf16") == wide
    assert ledger(batch_size=32) == wide


def test_what_has_the_same_shapes_is_counted_once_a_process(digits, teacher):
    _ = count_costs(DistillationRun(small_config(), digits, teacher))
    known = dict(cost_ledger._known)
    for changes in ({"seed": 3}, {"temperature": 2.0}, {"kd_weight": 0.3}):
        _ = count_costs(DistillationRun(small_config(**changes), digits, teacher))
        assert cost_ledger._known == known
    _ = count_costs(DistillationRun(small_config(adapter_width=9), digits, teacher))
    assert len(cost_ledger._known) == len(known) + 1


def test_counting_leaves_random_numbers_and_the_teachers_passes_alone(digits, teacher):
    run = DistillationRun(small_config(method="fitnet"), digits, teacher)
    cost_ledger._known.clear()
    before = torch.get_rng_state()
    _ = count_costs(run)
    assert torch.equal(torch.get_rng_state(), before)
    assert run.teacher_outputs is not None
    assert run.teacher_outputs.forwards == 0


def test_a_packed_trial_has_the_ledger_of_a_lone_one_and_learns_the_same_whether_it_is_looked_at(digits, teacher):
    configs = [small_config(seed=seed, adapter_width=width) for seed, width in ((0, 4), (1, 9))]
    packs = [Pack.of_configs(configs, digits, teacher) for _ in range(2)]
    first = [pack.run_epoch() for pack in packs]
    cost_ledger._known.clear()
    ledgers = [count_costs(packs[0].run_of(name)) for name in packs[0].members]
    last = [pack.run_epoch() for pack in packs]
    assert first[0].failures == last[0].failures == {}
    ours, theirs = ([pack.run_of(name).state_dict()["tensors"] for name in pack.members] for pack in packs)
    for our, their in zip(ours, theirs, strict=True):
        assert all(torch.equal(our[name], their[name]) for name in their)
    cost_ledger._known.clear()
    assert ledgers == [count_costs(DistillationRun(config, digits, teacher)) for config in configs]


def test_facts_have_their_names_and_what_is_not_there_is_nothing(digits, teacher):
    pesf_kd = DistillationRun(small_config(), digits, teacher)
    facts = count_costs(pesf_kd).facts
    assert set(facts) == set(COST_FACTS)
    assert facts["cost/step_flops"] == sum(v for n, v in facts.items() if "ward_flops_" in n)
    own = facts["cost/forward_flops_student"] + facts["cost/backward_flops_student"]
    assert facts["cost/step_flops_to_ce"] == facts["cost/step_flops"] / own
    assert facts["cost/other_parameters"] == facts["cost/forward_flops_peer"] == 0
    assert facts["cost/train_examples"] == len(digits.train)
    crd = count_costs(DistillationRun(small_config(method="crd", crd_negatives=10), digits, teacher)).facts
    assert crd["cost/other_parameters"] == (16 + FEATURE) * 128 + 2 * 128
    ce = count_costs(DistillationRun(small_config(method="ce"), digits, None)).facts
    assert set(ce) == set(COST_FACTS) - {"cost/teacher_pass_flops"}
    assert ce["cost/forward_flops_teacher"] == ce["cost/stored_bytes"] == 0


def test_everything_that_costs_has_a_unit_and_nothing_else_has():
    for name in (*MEASURES, *COST_FACTS):
        assert bool(unit_of(name)) == name.startswith("cost/")
    assert unit_of("cost/seconds_per_step") == "s"
    assert unit_of("cost/backward_flops_peer") == unit_of("cost/step_flops") == "FLOP/example"
    assert not set(COST_FACTS) & set(MEASURES)
    assert set(ENERGY_MEASURES) <= set(COST_MEASURES)


def test_a_steps_seconds_are_the_epochs_by_its_steps(digits: Dataset, teacher: FrozenTeacher):
    run = DistillationRun(small_config(), digits, teacher)
    measures = run_epoch(run)
    assert measures["cost/seconds_per_step"] == pytest.approx(run.training_seconds / 9)


def test_flops_of_both_ways_add_up():
    assert Flops(2.0, 3.0).total == 5.0
