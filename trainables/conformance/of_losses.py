"""Checks of a method's specification and losses: fields read, modules trained, and values that are not a number."""

import math

import torch

from trainables.conformance.case import BARE, Bench, Case, changed_learners
from trainables.conformance.requirement import expect_error, require, require_same
from trainables.costs.epoch import run_epoch
from trainables.methods.registry import METHODS
from trainables.models import DistillationModel
from trainables.run.run import DistillationRun
from trainables.spec.methods import AdapterSettings, method_spec
from trainables.spec.methods.settings import AdapterTrainingSettings
from trainables.spec.trial import TrialConfig, config_fields
from trainables.steps.loss_log import NonFiniteLossError
from trainables.teacher_outputs.frozen import FrozenTeacher

_ADAPTER, _ADAPTER_TRAINING = set(AdapterSettings.model_fields), set(AdapterTrainingSettings.model_fields)


def its_specification_is_one_that_can_be_run(case: Case, bench: Bench) -> None:  # noqa: ARG001
    """The parts of the specification agree with each other and with the fields read by losses and modules."""
    method = METHODS[case.method]
    spec = method.spec
    require(spec == method_spec(case.method), "the method has another specification than its name")
    require(method.name == case.method, f"the specification has the name {method.name!r}")
    has_adapter = spec.has_adapter or spec.takes_adapter
    require(
        spec.needs_teacher or not (has_adapter or method.parts or spec.needs_maps),
        "an adapter, own modules or feature maps need a teacher, and needs_teacher is False",
    )
    require(
        not (spec.trains_teacher and (not spec.needs_teacher or has_adapter)),
        "a method that trains the teacher needs one, and has no adapter",
    )
    require(
        not (method.closed_form and (spec.needs_maps or spec.peer or spec.trains_teacher or method.parts)),
        "a closed form has neither maps nor a second trained network nor own modules",
    )
    own = method.teacher_method
    of_teacher = (own.loss_fields | own.parts_fields) - {"teacher"} if own is not None else frozenset()
    require_same(of_teacher, spec.teacher_fields, "the teacher's training reads other fields than its settings")
    read = (method.loss_fields | method.parts_fields | of_teacher) - _ADAPTER
    require_same(read, spec.fields - _ADAPTER, "the losses and own modules read other fields than are declared")
    wanted = _ADAPTER if case.entry.has_adapter else _ADAPTER_TRAINING if spec.trains_teacher else set()
    require_same(case.entry.fields & _ADAPTER, wanted, "the fields of an adapter are others than it needs")
    unknown = spec.fields - config_fields(case.method).keys()
    require(not unknown, f"no config has the fields {', '.join(sorted(unknown))}")


def its_published_values_are_a_valid_trial(case: Case, bench: Bench) -> None:  # noqa: ARG001
    """A comparison can start from the published values."""
    published = {**case.entry.published, **(case.entry.published_adapter if case.adapter else {})}
    unread = set(published) - case.entry.fields
    require(not unread, f"the published fields {', '.join(sorted(unread))} are not read")
    config = TrialConfig.model_validate({**case.data, "method": case.method, "adapter": case.adapter, **published})
    changed = [name for name, value in published.items() if getattr(config, name) != value]
    require(not changed, f"the published values of {', '.join(changed)} are changed by the config")


def its_losses_are_finite_and_named(case: Case, bench: Bench) -> None:
    """Each loss is finite in two epochs, and recorded under the loss's name."""
    run = bench.start(case)
    for _ in range(2):
        measures = run_epoch(run)
        _require_finite(measures)
        parts = {name for name in measures if name.startswith("train/loss")}
        expected = {"train/loss", "train/loss_ce"} | ({"train/loss_kd"} if "kd_weight" in case.entry.fields else set())
        expected |= {"train/loss_peer"} if case.entry.peer else set()
        expected |= {"train/loss_adapter_kd"} if case.adapter and case.entry.adapter_term else set()
        expected |= {"train/loss_gap"} if run.config.model_dump()["gap_control"] in ("paper", "centred") else set()
        require_same(parts, expected | ({"train/loss_adapter"} if case.adapts else set()), "the recorded losses are")
    everyone = sum(p.numel() for trainer in run.trainers.values() for p in trainer.parameters.values())
    counted = measures["cost/trainable_parameters"]
    require(counted == everyone, f"{counted:g} trained parameters are counted, and there are {everyone}")
    adapters = sum(p.numel() for p in run.adapter.parameters()) if run.adapter is not None else 0
    counted = measures["cost/adapter_parameters"]
    require(counted == adapters, f"{counted:g} parameters of adapters are counted, and there are {adapters}")


def _require_finite(measures: dict[str, float]) -> None:
    wrong = [f"{name} is {value}" for name, value in measures.items() if not math.isfinite(value)]
    require(not wrong, "; ".join(wrong))


def its_losses_are_finite_in_bfloat16_too(case: Case, bench: Bench) -> None:
    """Convolutions in bfloat16 leave the losses finite."""
    _require_finite(run_epoch(bench.start(case, precision="bf16")))


def a_single_sample_that_is_left_over_joins_the_batch_before_it(case: Case, bench: Bench) -> None:
    """No batch has a single sample, which batch norm and losses over pairs do not accept."""
    size = bench.size_that_leaves_one
    run = bench.start(case, batch_size=size)
    sizes = [len(batch.indices) for batch in run.batches.of_epoch(0, None)]
    require(sum(sizes) % size == 1, f"batches of {size} leave {sum(sizes) % size} samples over, not one")
    require(sizes.count(size + 1) == 1, f"no batch has {size + 1} samples")
    require(1 not in sizes, "a batch has a single sample")
    _require_finite(run_epoch(run))


def deterministic_algorithms_suffice(case: Case, bench: Bench) -> None:
    """An epoch runs with PyTorch's deterministic algorithms."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        run_epoch(bench.start(case))
    finally:
        torch.use_deterministic_algorithms(before)


def gradient_reaches_who_learns_and_nobody_else(case: Case, bench: Bench) -> None:
    """One step changes every parameter of the trained modules, and none of the frozen teacher's."""
    run = bench.start(case, **BARE)
    require_same(run.trainers, case.learners, "the trained modules are")
    moved = changed_learners(run)
    require_same(moved, case.learners, "a step trains")
    for who in case.learners:
        require_same(moved[who], set(run.trainers[who].parameters), f"a step changes the parameters of the {who}")
    require(FrozenTeacher(bench.teacher.model).digest == run.identity["teacher"], "a step changes the frozen teacher")
    require(
        all(p.grad is None and not p.requires_grad for p in bench.teacher.parameters()),
        "the frozen teacher has a gradient",
    )
    known = [id(p) for trainer in run.trainers.values() for p in trainer.parameters.values()]
    require(len(known) == len(set(known)), "two trained modules share a parameter")
    require(
        not set(known) & {id(p) for p in bench.teacher.parameters()}, "a parameter of the frozen teacher is trained"
    )


def its_own_loss_reaches_whom_it_should(case: Case, bench: Bench) -> None:
    """The distillation loss alone trains every module, and nothing does if all weights are 0."""
    if "kd_weight" not in case.entry.fields:
        require(not case.entry.needs_teacher, "a method with a teacher has no kd_weight: inherit WeightSettings")
        return
    alone = BARE | {"ce_weight": 0.0, "adapter_ce_weight": 0.0, "gap_weight": 0.0}
    off = {"kd_weight": 0.0, "pkd_weight": 0.0, "adapter_kd_weight": 0.0}
    require_same(changed_learners(bench.start(case, **alone)), case.learners, "with ce_weight 0, a step trains")
    moved = changed_learners(bench.start(case, **{**alone, **off}))
    require(not moved, f"with all weights 0, a step trains {', '.join(sorted(moved))}: multiply the loss by kd_weight")
    if case.adapts:
        detached = changed_learners(bench.start(case, **{**alone, "detach_adapter_target": True}))
        require_same(detached, case.learners - case.adapts, "with detach_adapter_target, a step trains")


def nobody_else_changes_the_students_first_weights(case: Case, bench: Bench) -> None:
    """The student starts from the same weights as without the method, so trials are paired."""
    ours, alone = bench.start(case), bench.start(Case("ce", on_text=case.on_text, dataset=case.dataset))
    weights = alone.student.state_dict()
    changed = [name for name, tensor in ours.student.state_dict().items() if not torch.equal(tensor, weights[name])]
    require(not changed, f"the method changes the first weights of the student: {', '.join(changed)}")
    if ours.companion is None:
        return
    theirs, first = ours.companion.model.state_dict(), bench.teacher.model.state_dict()
    begins_trained = set(theirs) == set(first) and all(torch.equal(theirs[name], first[name]) for name in theirs)
    require(
        begins_trained == case.entry.trains_teacher,
        f"the second network {'begins' if begins_trained else 'does not begin'} with the weights of the teacher",
    )
    if case.entry.peer == "student":
        same = torch.equal(_model(ours).head.weight, ours.student.head.weight)
        require(not same, "the peer begins with the weights of the student")


def _model(run: DistillationRun) -> DistillationModel:
    assert run.companion is not None
    return run.companion.model


def the_networks_beside_the_student_keep_their_own_statistics(case: Case, bench: Bench) -> None:
    """A second network's batch norms are updated once a batch in training, and never in evaluation."""
    run = bench.start(case)
    if run.companion is None:
        return
    before = {name: buffer.clone() for name, buffer in _model(run).named_buffers()}
    run.train_epoch()
    trained = {name: buffer.clone() for name, buffer in _model(run).named_buffers()}
    still = [name for name in before if torch.equal(trained[name], before[name])]
    require(not still, f"training does not change the statistics {', '.join(still)}")
    counts = {name: int(trained[name] - before[name]) for name in before if name.endswith("num_batches_tracked")}
    wrong = [f"{name} counts {count}" for name, count in counts.items() if count != len(run.batches)]
    require(not wrong, f"of {len(run.batches)} batches, {'; '.join(wrong)}")
    run.evaluate()
    after = dict(_model(run).named_buffers())
    changed = [name for name in trained if not torch.equal(trained[name], after[name])]
    require(not changed, f"evaluation changes the statistics {', '.join(changed)}")


def a_student_that_is_not_a_number_is_named(case: Case, bench: Bench) -> None:
    """If the student diverges, the trial ends with an error naming the loss."""
    run = bench.start(case)
    run.train_epoch()
    with torch.no_grad():
        run.student.head.bias[1] = float("nan")
    pattern = rf"epoch 2 of 3, batch 1 of {len(run.batches)}: total nan, ce nan"
    with expect_error(NonFiniteLossError, pattern, "an epoch of a student that is not a number"):
        run.train_epoch()


def a_peer_that_is_not_a_number_is_named(case: Case, bench: Bench) -> None:
    """If the peer diverges, the trial ends with an error naming the peer's loss."""
    if case.entry.peer is None:
        return
    run = bench.start(case)
    with torch.no_grad():
        _model(run).head.bias[1] = float("nan")
    pattern = rf"epoch 1 of 3, batch 1 of {len(run.batches)}: total nan.* peer nan"
    with expect_error(NonFiniteLossError, pattern, "an epoch of a peer that is not a number"):
        run.train_epoch()


def a_teacher_that_is_not_a_number_is_named(case: Case, bench: Bench) -> None:
    """If the teacher's outputs are not numbers, the trial ends with an error naming the batch and the loss."""
    if not case.entry.needs_teacher:
        return
    run = bench.start(case)
    if case.entry.trains_teacher:
        with torch.no_grad():
            _model(run).head.bias[1] = float("nan")
        pattern = rf"epoch 1 of 3, batch 1 of {len(run.batches)}: total nan.* adapter nan"
        with expect_error(NonFiniteLossError, pattern, "an epoch of a teacher that is not a number"):
            run.train_epoch()
        return
    third_batch = list(run.batches.of_epoch(0, None))[2].indices
    assert run.teacher_outputs is not None
    live = run.teacher_outputs.train_batch

    def broken(indices, slot, images):  # type: ignore[no-untyped-def]
        outputs = live(indices, slot, images)
        if torch.equal(indices, third_batch):
            for tensor in (outputs.logits, outputs.feature, *(outputs.maps or ())):
                tensor.fill_(float("nan"))
        return outputs

    run.teacher_outputs.train_batch = broken  # type: ignore[method-assign]
    pattern = rf"epoch 1 of 3, batch 3 of {len(run.batches)}: total nan.* kd nan"
    with expect_error(NonFiniteLossError, pattern, "a batch of which the teacher's outputs are not numbers"):
        run.train_epoch()


def its_losses_see_the_maps_of_both_nets_if_it_needs_them(case: Case, bench: Bench) -> None:
    """If a method needs maps, the losses get both networks' maps in float32; otherwise they get none."""
    run = bench.start(case, precision="bf16")
    objective, seen = run.objective, []

    def watch(outputs, labels):  # type: ignore[no-untyped-def]
        seen.append(outputs)
        return objective(outputs, labels)

    run.objective = watch
    run_epoch(run)
    calls = 0 if METHODS[case.method].gradients(run.config.model_dump()) else len(run.batches)
    require(len(seen) == calls, f"the losses are computed {len(seen)} times in an epoch, not {calls}")
    for outputs in seen:
        given = {"student": outputs.student_maps is not None, "teacher": outputs.teacher_maps is not None}
        wrong = [who for who, is_given in given.items() if is_given != case.entry.needs_maps]
        require(
            not wrong, f"needs_maps is {case.entry.needs_maps}, and maps of the {' and '.join(wrong)} say otherwise"
        )
        for maps in (outputs.student_maps or ()), (outputs.teacher_maps or ()):
            require({each.dtype for each in maps} <= {torch.float32}, "maps have another type than float32")
            require(
                {len(each) for each in maps} <= {len(outputs.student_logits)}, "maps have another number of samples"
            )
        require(
            not any(each.requires_grad for each in outputs.teacher_maps or ()), "the teacher's maps have a gradient"
        )
