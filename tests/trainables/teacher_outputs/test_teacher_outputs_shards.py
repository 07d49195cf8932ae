"""Teacher outputs computed before the trials, shard by shard."""

import pytest
import torch
from torch import nn

from tests.trainables.conftest import slot_path
from trainables.models import build_model
from trainables.models.compute import place
from trainables.teacher_outputs import store as teacher_outputs_store
from trainables.teacher_outputs.frozen import FrozenTeacher
from trainables.teacher_outputs.shard import Shard
from trainables.teacher_outputs.store import TeacherOutputsStore

TRAIN, VALIDATION = 1077, 360
FIRST, SECOND, THIRD = ((0, 512), (512, 1024), (1024, 1077))


def files(store: TeacherOutputsStore) -> list[str]:
    return sorted(path.name for path in store.folder.iterdir() if path.suffix != ".lock")


def test_what_is_missing_is_the_validation_split_and_each_slot_until_they_are_filled(make_store):
    store = make_store()
    shards = store.missing(3)
    assert shards == [Shard(None, 0, VALIDATION), *(Shard(slot, 0, TRAIN) for slot in range(3))]
    assert store.fill(shards[0]) == (VALIDATION, True)
    assert store.fill(shards[2]) == (TRAIN, True)
    assert store.fill(shards[2]) == (0, True)
    assert make_store().missing(3) == [Shard(0, 0, TRAIN), Shard(2, 0, TRAIN)]
    assert files(store) == ["slot-0001.arrow", "validation.arrow"]


def test_a_large_file_is_filled_in_ranges_of_rows_and_put_together(make_store, tmp_path):
    store = make_store(rows_per_shard=512)
    shards = [shard for shard in store.missing(1) if shard.slot == 0]
    assert shards == [Shard(0, *rows) for rows in (FIRST, SECOND, THIRD)]
    assert [store.fill(shard).forwards for shard in shards] == [512, 512, 53]
    assert not slot_path(store, 0).exists()
    (whole,) = [shard for shard in make_store(rows_per_shard=512).missing(1) if shard.slot == 0]
    assert whole == Shard(0, 0, TRAIN)
    assert make_store(rows_per_shard=512).fill(whole) == (0, True)
    assert files(store) == ["slot-0000.arrow"]
    at_once = make_store(folder=tmp_path / "else")
    at_once.slot(0)
    assert slot_path(store, 0).read_bytes() == slot_path(at_once, 0).read_bytes()


def test_who_needs_a_slot_takes_the_ranges_that_are_there_and_computes_the_others(make_store, tmp_path):
    store = make_store(rows_per_shard=512)
    store.fill(Shard(0, *SECOND))
    store.fill(Shard(0, *THIRD))
    assert make_store(rows_per_shard=512).missing(1)[1:] == [Shard(0, *FIRST)]
    found = make_store(rows_per_shard=512).slot(0)
    assert found.forwards == 512
    assert torch.equal(found.rows, make_store(folder=tmp_path / "else").slot(0).rows)
    assert files(store) == ["slot-0000.arrow"]


def test_a_damaged_range_is_noted_and_computed_again(make_store, tmp_path):
    store = make_store(rows_per_shard=512)
    for rows in (FIRST, SECOND, THIRD):
        store.fill(Shard(0, *rows))
    (path,) = store.folder.glob("*.rows-00000512-*.arrow")
    path.write_bytes(path.read_bytes()[:-1000])
    again = make_store(rows_per_shard=512)
    found = again.slot(0)
    assert found.forwards == 512
    assert torch.equal(found.rows, make_store(folder=tmp_path / "else").slot(0).rows)
    (note,) = again.take_notes()
    assert path.name in note
    assert again.take_notes() == []


def test_ranges_of_another_size_are_of_no_use_and_do_no_harm(make_store, tmp_path):
    make_store(rows_per_shard=1024).fill(Shard(0, 0, 1024))
    found = make_store(rows_per_shard=512).slot(0)
    assert found.forwards == TRAIN
    assert torch.equal(found.rows, make_store(folder=tmp_path / "else").slot(0).rows)


def test_where_nothing_can_be_stored_a_shard_says_so(make_store, tmp_path):
    (tmp_path / "file").write_text("")
    store = make_store(folder=tmp_path / "file")
    assert store.fill(Shard(0, 0, TRAIN)) == (TRAIN, False)
    (note,) = store.take_notes()
    assert "not stored" in note


@pytest.mark.parametrize("placed_for", ["fp32", "bf16"])
def test_rows_do_not_depend_on_how_a_trial_has_laid_out_the_teacher(digits, make_store, tmp_path, placed_for):
    # A trial may convert its teacher to channels last, where kernels may round differently.
    torch.manual_seed(0)
    model = build_model("cnn_32_64", num_classes=10, in_channels=1)
    nn.init.normal_(model.head.weight)
    teacher = FrozenTeacher(model)
    as_it_was = make_store(folder=tmp_path / "a", teacher=teacher).slot(0).rows.clone()
    place(teacher, torch.device("cpu"), placed_for)
    assert torch.equal(make_store(folder=tmp_path / "b", teacher=teacher).slot(0).rows, as_it_was)


def test_a_shard_is_whole_batches():
    assert teacher_outputs_store.ROWS_PER_SHARD % teacher_outputs_store.FILL_BATCH == 0
