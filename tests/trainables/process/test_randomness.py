import torch

from trainables.process.randomness import generator_from, seeded


def test_a_block_draws_the_same_from_the_same_seed_whatever_came_before():
    torch.manual_seed(1)
    with seeded(7):
        first = torch.rand(3)
    torch.manual_seed(2)
    with seeded(7):
        second = torch.rand(3)
    with seeded(8):
        other = torch.rand(3)
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_after_the_block_the_global_generator_is_as_it_was():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    with seeded(7):
        torch.rand(5)
    assert torch.equal(torch.rand(3), expected)


def test_a_generator_starts_from_its_seed():
    assert torch.equal(torch.rand(2, generator=generator_from(3)), torch.rand(2, generator=generator_from(3)))
