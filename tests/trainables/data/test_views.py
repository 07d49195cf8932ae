import pytest
import torch

from tests.trainables.data.conftest import random_images
from trainables.data.views import (
    NO_AUGMENTATION,
    Normaliser,
    ViewedImages,
    ViewTable,
    batch_order,
    crop_views,
    num_slots,
    slot_of_epoch,
    view_table,
    views_of_slots,
)
from trainables.spec.datasets import DATASETS

TABLES = {
    "digits": crop_views(1, mirror=False),
    "28 pixels": crop_views(2, mirror=True),
    "32 pixels": crop_views(4, mirror=True),
    "none": NO_AUGMENTATION,
}


def naive_view(image: torch.Tensor, table: ViewTable, view: int) -> torch.Tensor:
    """Return a view computed pixel by pixel: cropped, black outside the image, with reversed columns if mirrored."""
    down, right = table.crops[view]
    channels, height, width = image.shape
    out = torch.zeros_like(image)
    for channel in range(channels):
        for y in range(height):
            for x in range(width):
                column = (width - 1 - x if table.mirrored[view] else x) + right
                row = y + down
                if 0 <= row < height and 0 <= column < width:
                    out[channel, y, x] = image[channel, row, column]
    return out


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_every_view_is_the_one_of_a_loop_over_pixels(table):
    images = random_images(len(table), 2, 6, 5)
    views = torch.arange(len(table))
    expected = torch.stack([naive_view(image, table, view) for view, image in enumerate(images)])
    seen = ViewedImages(images, table).batch(torch.arange(len(images)), views)
    assert seen.dtype == torch.uint8
    assert torch.equal(seen, expected)


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_view_zero_is_the_image_as_it_is(table):
    images = random_images(4, 2, 6, 5)
    assert torch.equal(ViewedImages(images, table).batch(torch.arange(4), torch.zeros(4, dtype=torch.int64)), images)


@pytest.mark.parametrize(("padding", "mirror", "count"), [(0, False, 1), (1, False, 9), (2, True, 50), (4, True, 162)])
def test_a_table_has_every_crop_once_mirrored_or_not(padding, mirror, count):
    table = crop_views(padding, mirror=mirror)
    views = set(zip(table.crops, table.mirrored, strict=True))
    assert len(table) == len(views) == count


def test_batches_are_gathered_by_index_and_view():
    table, images = TABLES["28 pixels"], random_images(7, 2, 6, 5)
    indices, views = torch.tensor([6, 0, 3, 3]), torch.tensor([49, 25, 0, 12])
    expected = torch.stack(
        [naive_view(images[i], table, v) for i, v in zip(indices.tolist(), views.tolist(), strict=True)]
    )
    assert torch.equal(ViewedImages(images, table).batch(indices, views), expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_batch_lies_in_memory_as_convolutions_take_it(channels):
    images = ViewedImages(random_images(3, channels, 6, 5), TABLES["28 pixels"]).batch(torch.arange(3), torch.arange(3))
    normalised = Normaliser([0.5] * channels, [0.25] * channels, torch.device("cpu"))(images)
    layout = torch.contiguous_format if channels == 1 else torch.channels_last
    for batch in (images, normalised):
        assert batch.stride() == torch.empty(batch.shape).to(memory_format=layout).stride()


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_pixels_are_normalised_to_the_same_bits_in_either_layout(channels):
    images = random_images(5, channels, 6, 5)
    normalise = Normaliser([0.1, 0.5, 0.7][:channels], [0.2, 0.3, 0.4][:channels], torch.device("cpu"))
    other = images.contiguous(memory_format=torch.channels_last)
    assert torch.equal(normalise(other), normalise(images))


@pytest.mark.parametrize("name", DATASETS)
def test_every_dataset_has_as_many_views_as_the_registry_says(name):
    assert len(view_table(DATASETS[name], "views")) == DATASETS[name].num_views
    assert len(view_table(DATASETS[name], "none")) == 1


def test_the_digits_are_shifted_by_at_most_a_pixel():
    table = view_table(DATASETS["digits"], "views")
    assert set(table.crops) == {(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)}
    assert not any(table.mirrored)


def test_a_trial_uses_a_slot_an_epoch_until_all_views_are_used():
    assert num_slots(9, 4) == 4
    assert num_slots(9, 9) == 9
    assert num_slots(9, 240) == 9


def test_all_slots_together_show_every_sample_every_view_once():
    views = views_of_slots(50, 9, 9, seed=0)
    assert views.shape == (9, 50)
    assert (views.sort(dim=0).values == torch.arange(9)[:, None]).all()


def test_a_slot_mixes_views_over_the_samples():
    views = views_of_slots(900, 9, 9, seed=0)
    for slot in views:
        assert torch.bincount(slot, minlength=9).min() > 50


def test_fewer_slots_are_the_first_of_more():
    assert torch.equal(views_of_slots(50, 9, 3, seed=0), views_of_slots(50, 9, 9, seed=0)[:3])


def test_views_of_slots_depend_on_the_seed():
    assert torch.equal(views_of_slots(50, 9, 9, seed=0), views_of_slots(50, 9, 9, seed=0))
    assert not torch.equal(views_of_slots(50, 9, 9, seed=0), views_of_slots(50, 9, 9, seed=1))


def test_epochs_go_through_all_slots_before_one_repeats():
    slots = [slot_of_epoch(epoch, 9, data_seed=4) for epoch in range(27)]
    cycles = [slots[start : start + 9] for start in (0, 9, 18)]
    for cycle in cycles:
        assert sorted(cycle) == list(range(9))
    assert cycles[0] != cycles[1] != cycles[2]
    assert slots != [slot_of_epoch(epoch, 9, data_seed=5) for epoch in range(27)]


def test_a_batch_order_is_a_permutation_drawn_from_seed_and_epoch():
    order = batch_order(100, data_seed=1, epoch=2)
    assert sorted(order.tolist()) == list(range(100))
    assert torch.equal(order, batch_order(100, data_seed=1, epoch=2))
    assert not torch.equal(order, batch_order(100, data_seed=1, epoch=3))
    assert not torch.equal(order, batch_order(100, data_seed=2, epoch=2))


def test_normalised_pixels_have_the_value_computed_by_hand():
    images = torch.tensor([0, 255], dtype=torch.uint8).view(1, 2, 1, 1)
    normalise = Normaliser([0.5, 0.25], [0.5, 0.125], torch.device("cpu"))
    assert normalise(images).flatten().tolist() == pytest.approx([-1.0, 6.0])
    assert normalise(images).dtype == torch.float32


def test_the_normalised_train_split_has_mean_zero_and_deviation_one(digits):
    images = Normaliser(digits.mean, digits.std, torch.device("cpu"))(digits.train.images)
    assert images.mean().item() == pytest.approx(0, abs=1e-5)
    assert images.std(correction=0).item() == pytest.approx(1, abs=1e-5)
