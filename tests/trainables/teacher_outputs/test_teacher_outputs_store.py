import io
import logging
import multiprocessing
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.trainables.conftest import cut, flip, slot_path, small_config
from trainables.costs.epoch import run_epoch
from trainables.data import load_dataset
from trainables.data.dataset import Dataset
from trainables.data.views import Normaliser, ViewedImages, slot_of_epoch, view_table, views_of_slots
from trainables.losses.logits import kd_loss
from trainables.models.interface import DistillationModel, StageOutputs
from trainables.run.run import DistillationRun
from trainables.spec.datasets import DATASETS
from trainables.teacher.files import load_teacher
from trainables.teacher_outputs.frozen import FrozenTeacher
from trainables.teacher_outputs.live import LiveTeacherOutputs
from trainables.teacher_outputs.store import StoredTeacherOutputs, TeacherOutputsStore
from trainables.teacher_outputs.table import TeacherOutputsError

pytestmark = pytest.mark.study

TRAIN, VALIDATION = 1077, 360


class OneByOne(DistillationModel):
    """Network that processes images one at a time, so that a feature does not depend on other images of the batch."""

    def __init__(self, model: DistillationModel) -> None:
        super().__init__()
        self.model = model

    @property
    def head(self) -> nn.Linear:
        return self.model.head

    def stages(self, images: Tensor) -> StageOutputs:
        return StageOutputs((), (), torch.cat([self.model.features(image[None]) for image in images]))


@pytest.fixture
def logged():
    """Return a stream of the logged warnings and errors."""
    handler = logging.StreamHandler(io.StringIO())
    logging.getLogger().addHandler(handler)
    yield handler.stream
    logging.getLogger().removeHandler(handler)


def run_trial(digits: Dataset, teacher: FrozenTeacher, store: TeacherOutputsStore | None, **changes: object):
    outputs = StoredTeacherOutputs(store) if store is not None else None
    run = DistillationRun(small_config(**changes), digits, teacher, teacher_outputs=outputs)
    return run, [run_epoch(run) for _ in range(run.config.epochs)]


def results(measures: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{name: value for name, value in epoch.items() if not name.startswith("cost/")} for epoch in measures]


@pytest.mark.study
def test_stored_as_float32_a_trial_is_the_live_trial_to_the_bit(digits, teacher, make_store):
    # Kernels may round differently for other batch sizes. With single images, no difference remains.
    single = FrozenTeacher(OneByOne(teacher.model))
    live_run, live = run_trial(digits, single, None)
    for _ in ("computed", "found"):
        run, measures = run_trial(digits, single, make_store(teacher=single))
        assert results(measures) == results(live)
        for name, tensor in run.state_dict()["tensors"].items():
            assert torch.equal(tensor, live_run.state_dict()["tensors"][name]), name


def test_stored_as_float32_features_are_the_live_ones_up_to_the_rounding_of_other_batches(digits, teacher, make_store):
    # Files are filled in batches of 512 in the order of the samples. A trial has shuffled batches of 128. A library may
    # choose other kernels for each, with another order of additions: a difference of a few units in the last place.
    stored, live = StoredTeacherOutputs(make_store()), LiveTeacherOutputs(teacher)
    indices = torch.randperm(TRAIN, generator=torch.Generator().manual_seed(1))[:128]
    images = images_of_slot(digits, 2)[indices]
    ours, theirs = stored.train_batch(indices, 2, images), live.train_batch(indices, 2, images)
    torch.testing.assert_close(ours[:2], theirs[:2], rtol=1e-5, atol=1e-5)
    assert ours.maps is None
    assert theirs.maps is None


@pytest.mark.parametrize(("dtype", "bound"), [("float16", 2e-6), ("bfloat16", 1.2e-4)])
def test_rounding_moves_the_teachers_distribution_by_next_to_nothing(digits, teacher, make_store, dtype, bound):
    stored, live = StoredTeacherOutputs(make_store(dtype=dtype)), LiveTeacherOutputs(teacher)
    indices, images = torch.arange(TRAIN), images_of_slot(digits, 0)
    rounded, exact = stored.train_batch(indices, 0, images).logits, live.train_batch(indices, 0, images).logits
    assert 0 < kd_loss(rounded.double(), exact.double(), temperature=1.0) < bound


@pytest.mark.parametrize(("dtype", "bound"), [("float16", 2e-3), ("bfloat16", 2e-2)])
def test_rounding_moves_the_losses_of_a_trial_little(digits, teacher, make_store, dtype, bound):
    _, live = run_trial(digits, teacher, None)
    _, stored = run_trial(digits, teacher, make_store(dtype=dtype))
    for ours, theirs in zip(stored, live, strict=True):
        assert ours["train/loss"] == pytest.approx(theirs["train/loss"], rel=bound)


@pytest.mark.parametrize("slot", [0, 4, 8])
def test_a_row_is_the_feature_of_its_sample_in_the_view_of_its_slot(digits, teacher, make_store, slot):
    store = make_store()
    expected = teacher(images_of_slot(digits, slot)).feature
    torch.testing.assert_close(store.slot(slot).rows, expected, rtol=1e-5, atol=1e-5)
    other = store.slot((slot + 1) % 9).rows
    assert (other - expected).abs().amax(dim=1).gt(1e-3).float().mean() > 0.9


def test_without_augmentation_there_is_one_slot_of_unchanged_images(digits, teacher, make_store):
    normalise = Normaliser(digits.mean, digits.std, torch.device("cpu"))
    store = make_store(augmentation="none")
    expected = teacher(normalise(digits.train.images)).feature
    torch.testing.assert_close(store.slot(0).rows, expected, rtol=1e-5, atol=1e-5)
    _, measures = run_trial(digits, teacher, store, augmentation="none")
    assert [epoch["cost/teacher_forwards"] for epoch in measures] == [VALIDATION, 0, 0]


def test_the_first_trial_pays_what_a_live_one_pays_and_the_next_nothing(digits, teacher, make_store):
    _, live = run_trial(digits, teacher, None)
    _, first = run_trial(digits, teacher, make_store())
    _, second = run_trial(digits, teacher, make_store(), seed=5, batch_size=32)
    costs = [[epoch["cost/teacher_forwards"] for epoch in trial] for trial in (live, first, second)]
    assert costs == [[TRAIN + VALIDATION, TRAIN, TRAIN]] * 2 + [[0, 0, 0]]


def test_slots_are_filled_when_an_epoch_comes_to_them(digits, teacher, make_store):
    store = make_store()
    run = DistillationRun(small_config(), digits, teacher, teacher_outputs=StoredTeacherOutputs(store))
    for epoch in range(3):
        slot = slot_of_epoch(epoch, 3, data_seed=0)
        assert not slot_path(store, slot).exists()
        run_epoch(run)
        assert slot_path(store, slot).exists()
    # A longer trial uses the same slots and more.
    _, longer = run_trial(digits, teacher, make_store(), epochs=5)
    assert sum(epoch["cost/teacher_forwards"] for epoch in longer) == 2 * TRAIN


def test_who_computes_the_rows_does_not_matter(digits, teacher, make_store, tmp_path):
    run_trial(digits, teacher, make_store(folder=tmp_path / "a"))
    run_trial(digits, teacher, make_store(folder=tmp_path / "b"), data_seed=7, batch_size=17, method="kd")
    files = {folder: sorted((tmp_path / folder).rglob("*.arrow")) for folder in ("a", "b")}
    assert [path.name for path in files["a"]] == [path.name for path in files["b"]]
    assert len(files["a"]) == 4
    for one, other in zip(files["a"], files["b"], strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_a_resumed_trial_equals_an_uninterrupted_one(digits, teacher, make_store):
    store = make_store(dtype="float16")
    whole, measures = run_trial(digits, teacher, store)
    begun = DistillationRun(small_config(), digits, teacher, teacher_outputs=StoredTeacherOutputs(store))
    run_epoch(begun)
    resumed = DistillationRun(
        small_config(), digits, teacher, teacher_outputs=StoredTeacherOutputs(make_store(dtype="float16"))
    )
    resumed.load_state_dict(begun.state_dict())
    assert results([run_epoch(resumed), run_epoch(resumed)]) == results(measures[1:])
    for name, tensor in whole.state_dict()["tensors"].items():
        assert torch.equal(tensor, resumed.state_dict()["tensors"][name]), name


def test_a_process_maps_and_verifies_a_file_once(make_store, monkeypatch):
    store = make_store()
    first = store.slot(0).rows
    monkeypatch.setattr("trainables.teacher_outputs.store.map_rows", lambda *_, **__: pytest.fail("verified again"))
    assert store.slot(0).rows.data_ptr() == first.data_ptr()


def test_the_key_depends_on_everything_that_the_rows_depend_on(digits, teacher, make_store):
    other_teacher = FrozenTeacher(OneByOne(teacher.model))
    stores = [
        make_store(),
        make_store(dtype="float16"),
        make_store(augmentation="none"),
        make_store(architecture="cnn_8_17"),
        make_store(dataset=load_dataset("digits", None, seed=1)),
        make_store(teacher=other_teacher),
    ]
    assert len({store.key for store in stores}) == len(stores)
    assert make_store().key == stores[0].key


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("format", "pesfkd-teacher-outputs-0"),
        ("teacher_digest", "0"),
        ("dataset_digest", "0"),
        ("split_seed", 9),
        ("views_digest", "0"),
        ("dtype", "float16"),
        ("feature_dim", 3),
        ("device", "cuda"),
        ("torch", "1.0"),
    ],
)
def test_a_file_whose_key_differs_in_any_part_is_named_and_built_anew(make_store, logged, name, value):
    foreign = make_store()
    foreign.tables.origin[name] = value
    foreign.slot(0)
    assert make_store().slot(0).forwards == TRAIN
    assert f"slot-0000.arrow: contains different outputs: {name} is {value!r}" in logged.getvalue()
    assert make_store().slot(0).forwards == 0


def test_a_file_of_another_slot_or_split_is_named_and_built_anew(make_store, logged):
    store = make_store()
    expected = store.slot(1).rows.clone()
    store.slot(0)
    slot_path(store, 0).replace(slot_path(store, 1))
    found = make_store().slot(1)
    assert found.forwards == TRAIN
    assert torch.equal(found.rows, expected)
    assert "slot-0001.arrow: contains different outputs: slot is 0, expected 1" in logged.getvalue()


@pytest.mark.parametrize("damage", [cut, flip, lambda _: b"something else"])
def test_a_damaged_file_is_named_and_built_anew(make_store, logged, damage):
    expected = make_store().slot(0).rows.clone()
    path = slot_path(make_store(), 0)
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(damage(content))
    found = make_store().slot(0)
    assert found.forwards == TRAIN
    assert torch.equal(found.rows, expected)
    assert path.read_bytes() == content
    assert str(path) in logged.getvalue()


def test_on_a_full_disk_the_trial_goes_on_with_the_same_bits(digits, teacher, make_store, tmp_path, logged):
    _, expected = run_trial(digits, teacher, make_store(folder=tmp_path / "roomy", dtype="float16"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        _, measures = run_trial(digits, teacher, make_store(folder=tmp_path / "full", dtype="float16"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert results(measures) == results(expected)
    assert "not stored" in logged.getvalue()
    assert not [path for path in (tmp_path / "full").rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_a_folder_that_cannot_be_made_costs_no_trial(digits, teacher, make_store, tmp_path, logged):
    (tmp_path / "file").write_text("")
    _, measures = run_trial(digits, teacher, make_store(folder=tmp_path / "file"))
    assert measures[-1]["cost/teacher_forwards"] == TRAIN
    assert "not stored" in logged.getvalue()


def test_features_that_the_dtype_does_not_hold_are_refused(digits, teacher, make_store):
    with torch.no_grad():
        teacher.model.bn2.weight.mul_(1e6)
    with pytest.raises(
        TeacherOutputsError, match="float16 cannot represent; choose --teacher-outputs-dtype bfloat16 or float32"
    ):
        make_store(dtype="float16").slot(0)
    assert not list(make_store(dtype="float16").folder.glob("*.arrow"))


def test_features_that_are_not_finite_are_refused(teacher, make_store):
    with torch.no_grad():
        teacher.model.bn2.weight[0] = float("nan")
    with pytest.raises(TeacherOutputsError, match="not finite"):
        make_store(dtype="float32").slot(0)


@pytest.mark.launcher
def test_processes_that_ask_at_once_build_each_file_once(teacher_file, tmp_path):
    context = multiprocessing.get_context("spawn")
    with context.Pool(2) as pool:
        forwards = pool.starmap(_ask_for_slots, [(teacher_file, tmp_path)] * 2, chunksize=1)
    assert [sorted(each) for each in zip(*forwards, strict=True)] == [[0, TRAIN]] * 3


def _ask_for_slots(teacher_file: Path, folder: Path) -> list[int]:
    """Ask for three slots at the same time as another process. Return the forward passes of each."""
    torch.set_num_threads(1)
    digits = load_dataset("digits", None)
    teacher = load_teacher(teacher_file, small_config(), digits)
    store = TeacherOutputsStore(folder, teacher, digits, architecture="cnn_8_16", augmentation="views")
    (folder / f"ready-{multiprocessing.current_process().pid}").touch()
    while len(list(folder.glob("ready-*"))) < 2:
        pass
    return [store.slot(slot).forwards for slot in range(3)]


@pytest.mark.launcher
def test_a_process_killed_while_it_builds_blocks_nobody_and_leaves_nothing(make_store, logged):
    store = make_store()
    store.folder.mkdir(parents=True)
    lock, partial = store.folder / "slot-0000.lock", store.folder / ".slot-0000.arrow.0.partial"
    program = (
        f"import fcntl, time; file = open('{lock}', 'w'); fcntl.flock(file, fcntl.LOCK_EX);"
        f"open('{partial}', 'w').write('half'); print('locked', flush=True); time.sleep(60)"
    )
    builder = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert builder.stdout is not None
    assert builder.stdout.readline() == b"locked\n"
    builder.kill()
    builder.wait()
    builder.stdout.close()
    assert store.slot(0).forwards == TRAIN
    assert slot_path(store, 0).exists()
    assert not partial.exists()
    assert not logged.getvalue()


def images_of_slot(digits: Dataset, slot: int) -> Tensor:
    """Return the normalised views of all training images in a slot."""
    table = view_table(DATASETS["digits"], "views")
    views = views_of_slots(TRAIN, len(table), slot + 1, seed=digits.seed)[slot].long()
    normalise = Normaliser(digits.mean, digits.std, torch.device("cpu"))
    return normalise(ViewedImages(digits.train.images, table).batch(torch.arange(TRAIN), views))
