"""Checks of a method's trials: equal bits, checkpoints, stored teacher outputs, and costs."""

import math
from contextlib import ExitStack
from unittest import mock

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from trainables.conformance.case import Bench, Case, differing, state_of, without_costs
from trainables.conformance.requirement import CheckFailedError, expect_error, require, require_same
from trainables.costs import ledger as cost_ledger
from trainables.costs.epoch import run_epoch
from trainables.costs.ledger import FlopCounter, count_costs
from trainables.process.global_generators import misuse_of_generators, use_of_generators
from trainables.run.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from trainables.run.run import DistillationRun
from trainables.run.shape_check import DRAW_FROM_OUTPUTS
from trainables.steps.loss_log import LossLog
from trainables.steps.step import AutogradStep
from trainables.storage.tensors import read_tensors, write_tensors
from trainables.teacher_outputs.live import LiveTeacherOutputs
from trainables.teacher_outputs.store import StoredTeacherOutputs

# Tensor methods that wait for a device. `numpy` is not listed: tensors on a GPU refuse it.
_WAITING = ("item", "tolist", "__bool__", "__float__", "__int__", "cpu", "nonzero")


def _require_equal(ours: DistillationRun, theirs: DistillationRun, what: str) -> None:
    changed = differing(state_of(ours), state_of(theirs))
    require(not changed, f"{what} have different tensors: {', '.join(changed[:3])}")


def the_same_seed_gives_the_same_bits_and_another_others(case: Case, bench: Bench) -> None:
    """Trials of one seed are equal to the last bit, whatever the global random generator does."""
    first, second, other = bench.start(case), bench.start(case), bench.start(case, seed=1)
    for _ in range(2):
        torch.rand(1)  # the global generator changes between both epochs
        ours, theirs = run_epoch(first), run_epoch(second)
        changed = differing(without_costs(ours), without_costs(theirs))
        require(
            not changed,
            f"two trials of one seed differ in {', '.join(changed[:3])}: draw random numbers from outputs.generator",
        )
        require(ours["train/loss"] != run_epoch(other)["train/loss"], "another seed gives the same loss")
    _require_equal(first, second, "two trials of one seed")


def its_random_numbers_come_from_its_own_generator(case: Case, bench: Bench) -> None:
    """A step neither draws from nor seeds the global generators, because packed trials share them."""
    run = bench.start(case)
    batch, log = next(iter(run.batches.of_epoch(0, None))), LossLog(run.method.gradients(run.config.model_dump()))
    for trainer in run.trainers.values():
        trainer.module.train()
        trainer.begin_epoch(0)
    run.begin_drawing()
    used = use_of_generators(lambda: run.train_batch(batch, log))
    # Dropout of language models and adapters draws from torch's generator, and these trials are not packed.
    packed = not (case.on_text or run.config.draws_in_adapter)
    reason = misuse_of_generators(used, remedy=DRAW_FROM_OUTPUTS, packed=packed)
    require(not reason, f"a step {reason}")


def a_resumed_trial_equals_one_never_stopped(case: Case, bench: Bench) -> None:
    """A trial resumed after any epoch ends with the same bits."""
    changes: dict[str, object] = {} if case.on_text else {"student_schedule": "step", "adapter_schedule": "step"}
    straight = bench.start(case, **changes)
    save_checkpoint(straight, bench.folder / "0")
    measures = []
    for epoch in range(1, 4):
        measures.append(without_costs(run_epoch(straight)))
        save_checkpoint(straight, bench.folder / str(epoch))
    for stopped_after in range(4):
        torch.manual_seed(stopped_after)  # earlier draws in the process must not matter
        resumed = bench.start(case, **changes)
        load_checkpoint(resumed, bench.folder / str(stopped_after))
        for epoch in range(stopped_after, 3):
            changed = differing(without_costs(run_epoch(resumed)), measures[epoch])
            require(
                not changed,
                f"resumed after epoch {stopped_after}, epoch {epoch + 1} differs in {', '.join(changed[:3])}: keep "
                "values between batches in a buffer of the method's parts",
            )
        _require_equal(resumed, straight, "a resumed trial and one never stopped")


def everything_that_learns_is_in_the_checkpoint(case: Case, bench: Bench) -> None:
    """A checkpoint has all weights, buffers and momenta, and is refused if one is missing."""
    run = bench.start(case)
    run.train_epoch()
    path = save_checkpoint(run, bench.folder)
    tensors, metadata = read_tensors(path)
    modules = {who: trainer.module for who, trainer in run.trainers.items()}
    weights = {f"{who}.module.{n}" for who, module in modules.items() for n in module.state_dict()}
    slots = ("momentum", "variance", "steps") if run.config.optimiser == "adamw" else ("momentum",)
    names = {who: [name for name, _ in module.named_parameters()] for who, module in modules.items()}
    momenta = {f"{who}.{slot}.{name}" for who in names for slot in slots for name in names[who]}
    require_same(tensors, weights | momenta, "the checkpoint has the tensors")
    for who in modules:
        lost = next(name for name in tensors if name.startswith(f"{who}.module."))
        write_tensors(path, {name: tensor for name, tensor in tensors.items() if name != lost}, metadata)
        with expect_error(CheckpointError, lost.removeprefix(f"{who}.module."), f"a checkpoint without {lost}"):
            load_checkpoint(bench.start(case), bench.folder)


def stored_teacher_outputs_give_what_live_ones_give(case: Case, bench: Bench) -> None:
    """Teacher outputs may be stored, unless the method needs maps. Maps are refused."""
    live = run_epoch(bench.start(case))
    stored_outputs = StoredTeacherOutputs(bench.make_store())
    if case.entry.needs_maps:
        for outputs in (stored_outputs, LiveTeacherOutputs(bench.teacher)):
            with expect_error(ValueError, f"'{case.method}' matches maps of both nets", "a trial without maps"):
                DistillationRun(case.config(), bench.data, bench.teacher, teacher_outputs=outputs)
        return
    stored = DistillationRun(case.config(), bench.data, bench.teacher, teacher_outputs=stored_outputs)
    measures = run_epoch(stored)
    # Kernels may round differently for other batch sizes, and nine steps amplify the difference.
    ours, theirs = measures["train/loss"], live["train/loss"]
    require(
        math.isclose(ours, theirs, rel_tol=2e-3, abs_tol=1e-12),
        f"with stored outputs, the loss of an epoch is {ours:g}, and with live ones {theirs:g}",
    )
    again = DistillationRun(
        case.config(), bench.data, bench.teacher, teacher_outputs=StoredTeacherOutputs(bench.make_store())
    )
    second = run_epoch(again)
    changed = differing(without_costs(second), without_costs(measures))
    require(not changed, f"two trials with stored outputs differ in {', '.join(changed[:3])}")
    own = len(bench.data.train) + len(bench.data.validation) if case.entry.trains_teacher else 0
    passed = second["cost/teacher_forwards"]
    require(passed == own, f"{passed:g} samples pass through the teacher, not {own}")


def no_batch_waits_for_a_value(case: Case, bench: Bench) -> None:
    """No batch reads a tensor value, because a GPU would have to wait."""
    run = bench.start(case)
    batches = list(run.batches.of_epoch(0, None))[:3]
    log = LossLog(run.method.gradients(run.config.model_dump()))
    for trainer in run.trainers.values():
        trainer.module.train()
    run.begin_drawing()

    def refuse(name: str) -> object:
        def reading(*_: object, **__: object) -> None:
            raise CheckFailedError(f"a batch waits for the device, because it reads a value by {name}")

        return reading

    with ExitStack() as stack:
        for name in _WAITING:
            stack.enter_context(mock.patch.object(torch.Tensor, name, refuse(name)))
        for batch in batches:
            run.train_batch(batch, log)


def its_ledger_says_what_a_step_takes(case: Case, bench: Bench) -> None:
    """The counted FLOPs and parameters of a step equal the actual ones."""
    cost_ledger._known.clear()
    for stored, precision in ((False, "fp32"), (False, "bf16"), (not case.entry.needs_maps, "fp32")):
        outputs = StoredTeacherOutputs(bench.make_store()) if stored else None
        config = case.config(precision=precision)
        run = DistillationRun(config, bench.data, bench.teacher, teacher_outputs=outputs)
        ledger = count_costs(run)
        batch = next(iter(run.batches.of_epoch(0, None)))
        # Sentences with the average length assumed by the ledger.
        batch = batch._replace(inputs=run.batches.example(len(batch.labels))) if case.on_text else batch
        if run.stored_outputs is not None:
            run.stored_outputs.validation(torch.arange(1), batch.inputs)  # storing outputs is not part of a step
            run.stored_outputs.train_batch(batch.indices, batch.slot, batch.inputs)
        run.step = AutogradStep(list(run.trainers.values()))  # closed forms replace autograd by NumPy
        run.epoch = config.epochs - 1  # costs exclude a different objective in the first epochs
        for trainer in run.trainers.values():
            trainer.module.train()
            trainer.begin_epoch(0)
        run.begin_drawing()
        with sdpa_kernel(SDPBackend.MATH), FlopCounter() as counter:
            run.train_batch(batch, LossLog(None))
        counted = ledger.step_flops * len(batch.labels)
        require(counted == counter.flops, f"{counted:g} FLOPs are counted for a step, which takes {counter.flops:g}")
        require(all(min(part) >= 0 for part in ledger.flops.values()), "a part of a step has a negative cost")
        everyone = sum(p.numel() for trainer in run.trainers.values() for p in trainer.parameters.values())
        parameters = sum(ledger.parameters.values())
        require(parameters == everyone, f"{parameters} trained parameters are counted, and there are {everyone}")
        require_same(ledger.parameters, case.learners, "parameters are counted for")


def looking_at_its_cost_changes_no_bit(case: Case, bench: Bench) -> None:
    """Counting a trial's costs leaves the trial's bits unchanged, before and after an epoch."""
    plain, looked_at = bench.start(case), bench.start(case)
    cost_ledger._known.clear()
    began = state_of(looked_at)
    _ = count_costs(looked_at)
    changed = differing(state_of(looked_at), began)
    require(not changed, f"counting the costs changes {', '.join(changed[:3])}")
    expected = without_costs(run_epoch(plain))
    changed = differing(without_costs(run_epoch(looked_at)), expected)
    require(not changed, f"an epoch after counting the costs differs in {', '.join(changed[:3])}")
    cost_ledger._known.clear()
    _ = count_costs(looked_at)
    run_epoch(plain)
    run_epoch(looked_at)
    _require_equal(looked_at, plain, "a trial whose costs were counted and another")
