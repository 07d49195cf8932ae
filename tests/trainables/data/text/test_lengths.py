import pytest
import torch

from trainables.data.text.lengths import BATCHES_PER_BUCKET, batches_sorted_by_length, length_bucketed_batches
from trainables.spec.batch_sizes import batch_sizes


def lengths_of(count, seed=0):
    return torch.randint(3, 60, (count,), generator=torch.Generator().manual_seed(seed))


def padded(batches, lengths):
    return sum(int(lengths[batch].max()) * len(batch) for batch in batches)


@pytest.mark.parametrize("count", [2, 31, 32, 3_205, 32 * BATCHES_PER_BUCKET])
@pytest.mark.parametrize("kind", ["shuffled", "sorted"])
def test_every_sample_comes_once_and_one_batch_holds_what_is_left_over(count, kind):
    lengths = lengths_of(count)
    if kind == "sorted":
        batches = batches_sorted_by_length(lengths, batch_size=32)
    else:
        batches = length_bucketed_batches(lengths, batch_size=32, data_seed=1, epoch=2)
    assert torch.equal(torch.cat(batches).sort().values, torch.arange(count))
    assert len(batches) == -(-count // 32)
    assert sorted(len(batch) for batch in batches)[1:] == [32] * (len(batches) - 1)


@pytest.mark.parametrize("count", [33, 65, 32 * BATCHES_PER_BUCKET + 1])
def test_one_sample_that_is_left_over_joins_another_batch_in_training_and_in_evaluation_stays_alone(count):
    lengths = lengths_of(count)
    batches = length_bucketed_batches(lengths, batch_size=32, data_seed=1, epoch=2)
    assert torch.equal(torch.cat(batches).sort().values, torch.arange(count))
    assert sorted(map(len, batches)) == sorted(batch_sizes(count, 32))
    assert [len(batch) for batch in batches_sorted_by_length(lengths, batch_size=32)][-2:] == [32, 1]


def test_an_order_depends_on_data_seed_and_epoch_and_on_nothing_else():
    lengths = lengths_of(3_000)
    orders = {}
    for data_seed, epoch in [(0, 0), (0, 1), (1, 0), (0, 0)]:
        torch.rand(data_seed + epoch + 1)
        batches = length_bucketed_batches(lengths, batch_size=32, data_seed=data_seed, epoch=epoch)
        orders.setdefault((data_seed, epoch), []).append(torch.cat(batches).tolist())
    first, again = orders[0, 0]
    assert first == again
    assert len({tuple(order[0]) for order in orders.values()}) == 3


def test_batches_are_of_similar_lengths_and_come_in_no_order_of_length():
    lengths = lengths_of(6_400)
    batches = length_bucketed_batches(lengths, batch_size=32, data_seed=0, epoch=0)
    total = int(lengths.sum())
    assert padded(batches, lengths) < 1.05 * total
    assert padded(torch.randperm(6_400).split(32), lengths) > 1.5 * total
    longest = torch.stack([lengths[batch].max() for batch in batches]).double()
    order = torch.arange(len(batches)).double()
    assert torch.corrcoef(torch.stack([longest, order]))[0, 1].abs() < 0.2


def test_who_meets_in_a_batch_changes_from_epoch_to_epoch():
    lengths = torch.full((640,), 7)
    meets = [
        {
            frozenset(batch.tolist())
            for batch in length_bucketed_batches(lengths, batch_size=8, data_seed=0, epoch=epoch)
        }
        for epoch in range(2)
    ]
    assert not meets[0] & meets[1]


def test_sorted_batches_go_from_the_shortest_to_the_longest():
    lengths = lengths_of(100)
    order = torch.cat(batches_sorted_by_length(lengths, batch_size=16))
    assert (lengths[order].diff() >= 0).all()
