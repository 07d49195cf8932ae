import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.trainables.conftest import IMAGE_METHODS, small_config
from tests.trainables.packing.runs import (
    MIXED,
    assert_same_measures,
    assert_same_state,
    make_runs,
    random_dataset,
    random_teacher,
)
from trainables.costs.epoch import run_epoch
from trainables.packing.network import PackingError
from trainables.packing.pack import Pack
from trainables.run.checkpoint import load_checkpoint, save_checkpoint
from trainables.run.run import DistillationRun
from trainables.steps.loss_log import NonFiniteLossError
from trainables.teacher_outputs.store import StoredTeacherOutputs

pytestmark = pytest.mark.study


Images = Callable[[Tensor], Tensor]


def members_of(packed: Pack) -> dict[str, DistillationRun]:
    return {name: packed.run_of(name) for name in packed.members}


@pytest.mark.parametrize(
    ("student", "size", "channels", "batch"),
    [("cnn_3_4", 8, 1, 128), ("cnn_8_16", 28, 1, 16), ("resnet8", 32, 3, 16), ("resnet8a", 9, 3, 16),
     ("wrn_16_1", 16, 3, 20),
     pytest.param("vgg8", 16, 3, 20, marks=pytest.mark.slow),
     pytest.param("MobileNetV2", 16, 3, 40, marks=pytest.mark.slow)],
)  # fmt: skip
def test_packed_trials_are_what_they_are_alone(student, size, channels, batch, digits, teacher):
    dataset = digits if size == 8 else random_dataset(size, channels)
    teacher = teacher if size == 8 else random_teacher(dataset)
    slow = student in ("wrn_16_1", "vgg8", "MobileNetV2")
    changes = [each | {"epochs": 2} for each in MIXED[:2]] if slow else MIXED
    if student == "MobileNetV2":  # at higher rates and in smaller batches, weights 1e-15 apart would end 1e-8 apart
        changes = [each | {"student_learning_rate": 0.001} for each in changes]
    packed = Pack(make_runs(dataset, teacher, changes, student=student, batch_size=batch))
    alone = make_runs(dataset, teacher, changes, student=student, batch_size=batch)
    assert min(run.config.epochs for run in alone.values()) == 2
    assert len({run.config.epochs for run in alone.values()}) == (1 if slow else 2)
    for epoch in range(2 if slow else 4):
        together = packed.run_epoch()
        assert together.failures == {}
        expected = {name for name, run in alone.items() if epoch < run.config.epochs}
        assert set(together.measures) == expected
        for name in expected:
            assert_same_measures(together.measures[name], run_epoch(alone[name]))
    for name, run in alone.items():
        assert run.finished
        assert_same_state(packed.run_of(name), run)
        assert set(packed.run_of(name).calibration) == set(run.calibration)
        for network, sums in run.calibration.items():
            found = packed.run_of(name).calibration[network]
            assert (found["count"], found["correct"]) == (sums["count"], sums["correct"])
            assert found["confidence"] == pytest.approx(sums["confidence"], abs=1e-8)


@pytest.mark.parametrize("kind", ["serial", "parallel", "logit", "feature"])
def test_trials_that_see_the_same_batches_are_what_they_are_alone_with_every_kind_of_adapter(kind, digits, teacher):
    changes = [{"adapter_width": 1, "seed": 1}, {"adapter_width": 9, "temperature": 2.0}, {"adapter_init": "default"}]
    packed = Pack(make_runs(digits, teacher, changes, adapter_kind=kind))
    alone = make_runs(digits, teacher, changes, adapter_kind=kind)
    for _ in range(2):
        together = packed.run_epoch()
        for name, run in alone.items():
            assert_same_measures(together.measures[name], run_epoch(run))
            assert_same_state(packed.run_of(name), run)


@pytest.mark.conformance
@pytest.mark.parametrize(
    "common",
    [
        *({"method": method} for method in IMAGE_METHODS if method != "pesf_kd"),
        *({"method": method, "adapter": True} for method in ("dkd", "dist", "logit_standardisation", "crd", "at")),
        {"method": "pesf_kd", "distance": "mse"},
        {"method": "pesf_kd", "pesf_variant": "released-vision"},
        {"method": "pesf_kd", "adapter_count": 2},
    ],
    ids=lambda common: "-".join(map(str, common.values())),
)
def test_trials_of_every_method_are_packed(common, digits, teacher):
    changes = [
        {"student_learning_rate": 0.01, "seed": 1, "adapter_width": 3},
        {"temperature": 2.0, "kd_weight": 0.4, "data_seed": 5, "student_learning_rate": 0.02, "warmup_epochs": 3},
    ]
    common = {**common, "crd_negatives": 64, "crd_dim": 8, "warmup_epochs": 2}
    packed = Pack(make_runs(digits, teacher, changes, **common))
    alone = make_runs(digits, teacher, changes, **common)
    for _ in range(2):
        together = packed.run_epoch()
        assert together.failures == {}
        for name, run in alone.items():
            assert_same_measures(together.measures[name], run_epoch(run))
            assert_same_state(packed.run_of(name), run)
    left = packed.remove("0")
    run_epoch(left)
    run_epoch(alone["0"])
    assert_same_state(left, alone["0"])


def test_a_packed_trial_takes_the_adapter_that_it_would_take_alone(digits, teacher):
    configs = [small_config(adapter_training="first", seed=seed) for seed in (1, 2)]
    packed = Pack.of_configs(configs, digits, teacher)
    together = packed.run_epoch()
    for name, config in enumerate(configs):
        alone = DistillationRun(config, digits, teacher)
        measures = run_epoch(alone)
        theirs = packed.run_of(str(name)).adapter.state_dict()
        assert all(torch.equal(tensor, theirs[key]) for key, tensor in alone.adapter.state_dict().items())
        assert together.measures[str(name)]["train/loss"] == pytest.approx(measures["train/loss"], rel=1e-3)
        assert together.measures[str(name)]["train/adapter_shift"] == measures["train/adapter_shift"] > 0


def test_adapters_with_dropout_are_not_packed_as_they_draw_random_numbers(digits, teacher):
    runs = make_runs(digits, teacher, [{"seed": 1}, {"seed": 2}], adapter_dropout=0.1)
    with pytest.raises(PackingError, match=r"dropout of an adapter cannot be drawn separately.*set adapter_dropout=0"):
        Pack(runs)


def test_a_network_of_a_library_beside_the_students_is_refused_as_it_may_draw_random_numbers(digits, teacher):
    runs = {str(seed): DistillationRun(small_config(method="dml", seed=seed), digits, teacher) for seed in (0, 1)}
    for run in runs.values():
        run.config = run.config.model_copy(update={"teacher": "torchvision:mobilenet_v2"})
    with pytest.raises(PackingError, match="torchvision:mobilenet_v2 is trained with the students"):
        Pack(runs)


@pytest.mark.parametrize("method", ["fitnet", "at", "sp", "vid"])
def test_packed_residual_nets_have_their_own_maps_of_batches_that_they_share(method):
    dataset = random_dataset(16, 3)
    teacher = random_teacher(dataset, "wrn_16_1")
    changes = [{"student_learning_rate": 0.01, "seed": 1}, {"student_learning_rate": 0.02, "kd_weight": 0.4}]
    common = {"method": method, "student": "resnet8", "batch_size": 16}
    packed, alone = (make_runs(dataset, teacher, changes, **common) for _ in range(2))
    together = Pack(packed).run_epoch()
    for name, run in alone.items():
        assert_same_measures(together.measures[name], run_epoch(run))
        assert_same_state(packed[name], run)


@pytest.mark.parametrize("seeds", [(0, 0), (1, 2)])
def test_stored_teacher_outputs_serve_a_pack(seeds, digits, teacher, make_store):
    store = make_store()
    changes = [{"data_seed": seed, "adapter_width": 3 + k} for k, seed in enumerate(seeds)]
    configs = [small_config(**each, batch_size=256) for each in changes]
    outputs = [StoredTeacherOutputs(store) for _ in configs]
    packed = Pack.of_configs(configs, digits, teacher, teacher_outputs=outputs)
    together = packed.run_epoch()
    for number, config in enumerate(configs):
        run = DistillationRun(config, digits, teacher, teacher_outputs=StoredTeacherOutputs(store))
        assert_same_measures(together.measures[str(number)], run_epoch(run), tolerance=3e-5)  # 5 steps in float32
    assert together.measures["0"]["cost/teacher_forwards"] > 0
    assert len(store.missing(3)) == 3 - len(set(seeds))  # of three slots; the validation split exists


def test_a_trial_that_leaves_goes_on_alone_and_the_others_do_not_notice(digits, teacher):
    changes = [{**each, "epochs": 4} for each in MIXED]
    packed = Pack(make_runs(digits, teacher, changes))
    alone = make_runs(digits, teacher, changes)
    for run in alone.values():
        run.train_epoch()
    packed.train_epoch()
    left = packed.remove("1")
    assert packed.members == ("0", "2", "3")
    assert_same_state(left, alone["1"])
    for epoch in range(3):
        packed.train_epoch()
        if epoch < 2:
            left.train_epoch()
        for run in alone.values():
            run.train_epoch()
    for name in packed.members:
        assert_same_state(packed.run_of(name), alone[name])
    assert left.epoch == 3
    left.train_epoch()
    assert_same_state(left, alone["1"])
    assert {each.stride() for each in left.student.parameters()} == {
        each.stride() for each in alone["1"].student.parameters()
    }


def test_who_is_the_last_to_leave_is_whole(digits, teacher):
    packed = Pack(make_runs(digits, teacher, MIXED[:2]))
    alone = make_runs(digits, teacher, MIXED[:2])
    packed.train_epoch()
    for name, run in alone.items():
        run.train_epoch()
        assert_same_state(packed.remove(name), run)
    assert packed.members == ()
    assert packed.run_epoch() == ({}, {})


def test_a_trial_joins_between_epochs_in_whatever_epoch_it_is(digits, teacher):
    alone = make_runs(digits, teacher)
    others = make_runs(digits, teacher)
    late = others.pop("2")
    late.train_epoch()
    packed = Pack(others)
    packed.train_epoch()
    packed.train_epoch()
    packed.set_members({**members_of(packed), "2": late})
    packed.train_epoch()
    for name, run in alone.items():
        for _ in range(2 if name in "02" else 3):
            run.train_epoch()
        assert_same_state(packed.run_of(name), run)


def test_a_packed_trials_checkpoint_is_a_lone_trials_and_the_other_way_round(tmp_path, digits, teacher):
    changes = [{**each, "epochs": 4} for each in MIXED]
    straight = make_runs(digits, teacher, changes)
    for run in straight.values():
        run.train_epoch()
        run.train_epoch()
    packed = Pack(make_runs(digits, teacher, changes))
    packed.train_epoch()
    resumed = make_runs(digits, teacher, changes)
    for name, run in resumed.items():
        save_checkpoint(packed.run_of(name), tmp_path / name)
        if name != "3":
            load_checkpoint(run, tmp_path / name)
    lone = make_runs(digits, teacher, changes)["3"]
    lone.train_epoch()
    load_checkpoint(resumed["3"], save_checkpoint(lone, tmp_path / "lone").parent)
    assert {run.epoch for run in resumed.values()} == {1}
    again = Pack(resumed)
    again.train_epoch()
    for name, run in straight.items():
        assert_same_state(again.run_of(name), run)
    with pytest.raises(ValueError, match=r"temperature 8\.0"):
        again.run_of("3").load_state_dict(again.run_of("1").state_dict())
    assert_same_state(again.run_of("3"), straight["3"])


def test_a_fresh_state_put_into_a_pack_forgets_the_momenta(digits, teacher):
    fresh = make_runs(digits, teacher)["1"].state_dict()
    packed = Pack(make_runs(digits, teacher))
    packed.train_epoch()
    run = packed.remove("1")
    run.load_state_dict(fresh)
    packed.set_members({**members_of(packed), "1": run})
    packed.train_epoch()
    alone = make_runs(digits, teacher)["1"]
    alone.train_epoch()
    assert_same_state(packed.run_of("1"), alone)


def test_a_loss_that_is_not_finite_fails_its_own_trial_by_name(digits, teacher):
    changes = [*MIXED[:3], {"student_learning_rate": 1e30}]
    packed = Pack(make_runs(digits, teacher, changes))
    alone = make_runs(digits, teacher, changes)
    together = packed.run_epoch()
    assert set(together.failures) == {"3"}
    assert str(together.failures["3"]).startswith("trial 3: the loss is not finite in epoch 1 of 4, batch ")
    assert packed.members == ("0", "1", "2")
    with pytest.raises(NonFiniteLossError) as error:
        alone.pop("3").train_epoch()
    assert str(error.value).partition(": ")[0] in str(together.failures["3"])
    together = packed.run_epoch()
    assert together.failures == {}
    for name, run in alone.items():
        run.train_epoch()
        assert_same_measures(together.measures[name], run_epoch(run))
        assert_same_state(packed.run_of(name), run)


def test_weights_that_the_last_step_spoilt_fail_their_own_trial_when_they_are_evaluated(digits, teacher):
    packed = Pack(make_runs(digits, teacher))
    packed.run_of("2").student.head.weight.data[0, 0] = math.nan
    evaluated = packed.evaluate()
    assert set(evaluated.failures) == {"2"}
    assert str(evaluated.failures["2"]).startswith("trial 2: not finite after epoch 0")
    assert set(evaluated.measures) == set(packed.members) == {"0", "1", "3"}


def test_of_a_pack_those_that_confirm_read_the_test_split_at_their_last_epoch(digits, teacher):
    runs = make_runs(digits, teacher)
    runs["1"].reads_test = True
    packed = Pack(runs)
    while not runs["1"].finished:
        measures = packed.run_epoch().measures
        assert {name for name in measures if "test/accuracy" in measures[name]} == (
            {"1"} if runs["1"].finished else set()
        )
    assert measures["1"]["test/accuracy"] == runs["1"].evaluate_test()["test/accuracy"]


def test_what_a_narrow_adapter_has_over_stays_zero(digits, teacher):
    changes = [{"adapter_width": 2, "adapter_init": "default"}, {"adapter_width": 11, "adapter_init": "default"}]
    packed = Pack(make_runs(digits, teacher, changes))
    packed.train_epoch()
    wide = packed._step.adapter.weights  # the memory of the pack; a trial only sees a part of it
    assert wide["w2"].shape[:2] == (2, 11)
    assert wide["w2"][0, :2].count_nonzero() == 2 * 10
    assert wide["w2"][0, 2:].count_nonzero() == 0
    assert wide["w3"][0, :, 2:].count_nonzero() == 0


def test_packed_trials_train_in_bfloat16(digits, teacher):
    configs = [small_config(precision="bf16", student="cnn_16_32", seed=k) for k in range(2)]
    packed = Pack.of_configs(configs, digits, teacher)
    together = packed.run_epoch()
    for number, config in enumerate(configs):
        alone = run_epoch(DistillationRun(config, digits, teacher))
        assert together.measures[str(number)]["train/loss"] == pytest.approx(alone["train/loss"], rel=0.05)


@pytest.mark.parametrize(
    ("student", "named"),
    [("ShuffleV1", "it is a ShuffleNetV1"), ("ShuffleV2", "it is a ShuffleNetV2"),
     ("torchvision:resnet18", "it is a LibraryModel")],
)  # fmt: skip
def test_a_net_that_mixes_channels_by_itself_is_refused_by_name(student, named):
    dataset = random_dataset(32, 3)
    run = DistillationRun(small_config(student=student, method="ce"), dataset, None)
    with pytest.raises(PackingError, match="cannot be packed") as error:
        Pack({"a": run})
    assert student in str(error.value)
    assert named in str(error.value)
    assert "Run these trials alone" in str(error.value)


def test_the_module_that_mixes_channels_is_named(digits, teacher):
    run = DistillationRun(small_config(), digits, teacher)
    run.student.bn2 = torch.nn.GroupNorm(2, 4)
    with pytest.raises(PackingError, match="its module 'bn2' is a GroupNorm"):
        Pack({"a": run})


@pytest.mark.parametrize(
    "change",
    [
        {"student": "cnn_3_5"},
        {"method": "kd"},
        {"batch_size": 64},
        {"adapter_kind": "logit"},
        {"distance": "mse"},
        {"gap_control": "paper"},
    ],
    ids=str,
)
def test_trials_that_are_not_alike_are_refused_by_the_field(change, digits, teacher):
    configs = [small_config(), small_config(**change)]
    (name,) = change
    with pytest.raises(PackingError, match=f"share one {name}, these have"):
        Pack.of_configs(configs, digits, teacher)
    packed = Pack.of_configs(configs[:1], digits, teacher)
    with pytest.raises(PackingError, match=name):
        packed.set_members({**members_of(packed), "other": DistillationRun(configs[1], digits, teacher)})
    assert packed.members == ("0",)


def test_trials_of_two_teachers_are_refused(digits, teacher):
    run, other = (DistillationRun(small_config(), digits, each) for each in (teacher, random_teacher(digits)))
    with pytest.raises(PackingError, match="share one teacher"):
        Pack({"a": run, "b": other})


def test_names_are_told_apart(digits, teacher):
    packed = Pack.of_configs([small_config()], digits, teacher)
    with pytest.raises(ValueError, match="no trial 'b' in the pack; it had '0'"):
        packed.run_of("b")
    with pytest.raises(PackingError, match="at least one trial"):
        Pack({})
