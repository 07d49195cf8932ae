"""Datasets from files of arrays and tables."""

import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.ipc as ipc
import pyarrow.parquet as pq
import pytest
import torch

from tests.own_data import digits, hub_table, png, write_npz, write_parquet
from trainables.data import load_dataset
from trainables.data.own.opened import forget_own, own_info
from trainables.data.registry import dataset_info

pytestmark = pytest.mark.unit

IMAGES, LABELS = digits()["train"]


@pytest.fixture(autouse=True)
def _forget():
    forget_own()
    yield
    forget_own()


def save(path, **arrays):
    np.savez(path, **arrays)
    return f"arrays:{path}"


def refusal(name):
    with pytest.raises(ValueError, match=r".") as found:
        load_dataset(name, None)
    return str(found.value)


def test_a_npz_of_keras_gives_the_images_and_a_drawn_validation_split(tmp_path):
    parts = digits()
    name = f"arrays:{write_npz(tmp_path / 'digits.npz', parts)}"
    info, data = dataset_info(name), load_dataset(name, None)
    assert info.split_sizes == (180, 20, 60)
    assert (info.channels, info.image_size, info.num_classes, info.num_views) == (1, 8, 10, 18)
    assert torch.equal(data.test.images[:, 0], torch.from_numpy(parts["test"][0]))
    rows = torch.cat([data.train.indices, data.validation.indices])
    assert sorted(rows.tolist()) == list(range(200))
    assert torch.equal(data.train.images[:, 0], torch.from_numpy(IMAGES)[data.train.indices])
    assert torch.equal(data.train.labels, torch.from_numpy(LABELS)[data.train.indices])
    pixels = data.train.images.double() / 255
    assert data.mean == pytest.approx([pixels.mean().item()])
    assert data.std == pytest.approx([pixels.std(correction=0).item()])


def test_every_format_of_the_same_samples_gives_the_same_digest(tmp_path):
    parts = digits(validation=60)
    folder = tmp_path / "npy"
    folder.mkdir()
    medmnist, saved = {}, tmp_path / "saved"
    for part, (images, labels) in parts.items():
        short = "val" if part == "validation" else part
        medmnist |= {f"{short}_images": images, f"{short}_labels": labels[:, None].astype(np.uint8)}
        np.save(folder / f"{part}_images.npy", images[:, None].astype(np.float32) / 255)
        np.save(folder / f"{part}_labels.npy", np.eye(10)[labels])
        (saved / part).mkdir(parents=True)
        with ipc.new_stream(
            saved / part / "data-00000-of-00001.arrow", (table := hub_table(images, labels)).schema
        ) as out:
            out.write_table(table)
    lists = tmp_path / "lists"
    lists.mkdir()
    for part, (images, labels) in parts.items():
        pixels = pa.FixedSizeListArray.from_arrays(pa.array(images.reshape(-1), pa.uint8()), 64)
        feather.write_feather(pa.table({"img": pixels, "fine_label": labels}), lists / f"{part}.feather")
    names = [
        f"arrays:{write_npz(tmp_path / 'keras.npz', parts)}",
        save(tmp_path / "medmnist.npz", **medmnist),
        f"arrays:{folder}",
        f"arrays:{write_parquet(tmp_path / 'hub', parts)}",
        f"arrays:{saved}",
        f"arrays:{lists}",
    ]
    loaded = [load_dataset(name, None) for name in names]
    assert len({data.digest for data in loaded}) == 1
    assert all((len(d.train), len(d.validation), len(d.test)) == (200, 60, 60) for d in loaded)
    with pytest.raises(ValueError, match="has a validation part, so its split cannot be drawn again"):
        load_dataset(names[0], None, split_number=1)


def test_the_digest_depends_on_the_content_and_not_on_the_place(tmp_path):
    parts = digits()
    digests = []
    for place in ("a", "b"):
        digests.append(load_dataset(f"arrays:{write_npz(tmp_path / place / 'd.npz', parts)}", None).digest)
    parts["train"][0][0, 0, 0] ^= 1
    digests.append(load_dataset(f"arrays:{write_npz(tmp_path / 'b' / 'd.npz', parts)}", None).digest)
    assert digests[0] == digests[1] != digests[2]


def test_colour_images_are_read_with_channels_first_or_last(tmp_path):
    colour = np.random.default_rng(0).integers(256, size=(40, 3, 12, 12), dtype=np.uint8)
    labels = np.arange(40) % 4
    first = load_dataset(save(tmp_path / "first.npz", images=colour, labels=labels), None)
    last = load_dataset(save(tmp_path / "last.npz", images=colour.transpose(0, 2, 3, 1), labels=labels), None)
    assert first.digest == last.digest
    assert first.info.channels == 3
    assert first.info.split_sizes == (32, 4, 4)
    assert torch.equal(first.train.images, torch.from_numpy(colour)[first.train.indices])


def test_photographs_are_resized_as_those_of_image_folders(tmp_path):
    random = np.random.default_rng(0)
    rows = [png(random.integers(256, size=(100 + n, 130, 3), dtype=np.uint8)) for n in range(12)]
    pq.write_table(pa.table({"image": rows, "label": ["cat", "dog"] * 6}), tmp_path / "pets.parquet")
    data = load_dataset(f"arrays:{tmp_path}/pets.parquet", None)
    assert data.info.class_names == ("cat", "dog")
    assert (data.info.image_size, data.info.stored_size, data.info.resized_crops) == (224, 256, 64)
    assert data.train.source.shape[1:] == (3, 256, 256)
    still = dataset_info(f"arrays:{tmp_path}/pets.parquet,views=none")
    assert still.num_views == 1


@pytest.mark.parametrize(
    ("views", "padding", "mirrored"), [("crop_flip", 1, True), ("crop", 1, False), ("none", 0, False)]
)
def test_views_are_declared_in_the_name(tmp_path, views, padding, mirrored):
    info = dataset_info(f"arrays:{write_npz(tmp_path / 'a.npz', digits())},views={views}")
    assert (info.padding, info.mirrored) == (padding, mirrored)


def test_a_single_validation_part_is_the_test_part_as_in_image_folders(tmp_path):
    parts = digits()
    parts["validation"] = parts.pop("test")
    name = f"arrays:{write_npz(tmp_path / 'a.npz', parts)}"
    assert dataset_info(name).split_sizes == (180, 20, 60)
    assert "so it is the test part" in own_info(name).notes[0]


@pytest.mark.parametrize(
    ("labels", "names", "note"),
    [
        (LABELS + 1, tuple(map(str, range(1, 11))), "they become class names"),
        (LABELS * 2, tuple(map(str, range(0, 20, 2))), "they become class names"),
        (np.eye(10, dtype=int)[LABELS], tuple(map(str, range(10))), "one-hot rows of 10"),
        (LABELS.astype(float), tuple(map(str, range(10))), ""),
        (np.array([f"n{n}" for n in LABELS]), tuple(f"n{n}" for n in range(10)), ""),
        (np.array([f"n{n}".encode() for n in LABELS]), tuple(f"n{n}" for n in range(10)), ""),
        (LABELS > 4, ("False", "True"), ""),
    ],
)
def test_labels_of_other_kinds_are_numbered(tmp_path, labels, names, note):
    name = save(tmp_path / "a.npz", images=IMAGES, labels=labels)
    info, data = own_info(name), load_dataset(name, None)
    assert info.class_names == names
    assert note in " ".join(info.notes)
    expected = (LABELS > 4).astype(int) if labels.dtype == bool else LABELS
    assert data.train.labels.tolist() == expected[data.train.indices].tolist()


@pytest.mark.parametrize(
    ("images", "note"),
    [
        (IMAGES.astype(np.float32) / 255, "stored times 255"),
        (IMAGES.astype(np.float64), "stored as 8 bits"),
        (IMAGES.astype(np.int32), "stored as 8 bits"),
        (IMAGES.reshape(200, 64), ""),
        (IMAGES[:, None], ""),
        (IMAGES[..., None], ""),
    ],
)
def test_other_ranges_and_shapes_give_the_same_pixels(tmp_path, images, note):
    name = save(tmp_path / "a.npz", images=images, labels=LABELS)
    data = load_dataset(name, None)
    assert torch.equal(data.train.images[:, 0], torch.from_numpy(IMAGES)[data.train.indices])
    assert note in " ".join(own_info(name).notes)


def with_value(array, value, dtype=np.float32):
    changed = array.astype(dtype)
    changed[7, 0] = value
    return changed


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"images": with_value(IMAGES / 255, np.nan), "labels": LABELS}, "image 7 has pixels that are NaN"),
        ({"images": IMAGES / 127.5 - 1, "labels": LABELS}, "before normalisation"),
        ({"images": IMAGES.astype(np.uint16) * 256, "labels": LABELS}, "scaled to 8 bits"),
        ({"images": IMAGES / 100, "labels": LABELS}, "fit neither 0 to 1 nor 0 to 255"),
        ({"images": (IMAGES > 99).astype(int), "labels": LABELS}, "save them as bool"),
        ({"images": IMAGES * 0, "labels": LABELS}, "all pixels of channel 0 are 0"),
        ({"images": IMAGES[:, :, :7].reshape(200, 56), "labels": LABELS}, "usable are (N, H, W)"),
        ({"images": np.zeros((9, 3, 8, 3), np.uint8), "labels": LABELS[:9]}, "channels first or last"),
        ({"images": np.zeros((9, 8, 8, 4), np.uint8), "labels": LABELS[:9]}, "leave out the alpha channel"),
        ({"images": IMAGES.astype(complex), "labels": LABELS}, "images of type complex128"),
        ({"images": IMAGES, "labels": LABELS[:9]}, "200 images but 9 labels"),
        ({"images": IMAGES}, "the train part has no labels"),
        ({"pictures": IMAGES, "numbers": LABELS}, "no array names images and labels: there is pictures, numbers"),
        ({"images": IMAGES, "x": IMAGES, "labels": LABELS}, "images and x both look like the images"),
        ({"x_test": IMAGES, "y_test": LABELS}, "there is no train part, only test"),
        ({"images": IMAGES[:0], "labels": LABELS[:0]}, "the train part is empty"),
        ({"images": IMAGES, "labels": with_value(LABELS[:, None], np.nan)[:, 0]}, "1 labels are missing"),
        ({"images": IMAGES, "labels": LABELS - 1}, "which usually stands for a missing label"),
        ({"images": IMAGES, "labels": LABELS + 0.5}, "is no whole number"),
        ({"images": IMAGES, "labels": np.eye(10)[LABELS] * 0.9}, "are not one-hot: row 0"),
        ({"images": IMAGES, "labels": LABELS * 0}, "all labels are 0; at least two classes"),
        ({"images": IMAGES, "labels": np.array([""] * 200)}, "200 labels are empty"),
        ({"images": IMAGES, "labels": np.arange(200)}, "are too few: every class needs a training sample"),
        (
            {"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES, "y_test": LABELS + 3},
            "classes missing from the train part: 10, 11, 12",
        ),
        (
            {"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES[:, :6, :6], "y_test": LABELS},
            "images of different shapes (train 8 x 8 x 1, test 6 x 6 x 1)",
        ),
        (
            {"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES / 255, "y_test": LABELS},
            "pixels of different types (train uint8, test float64)",
        ),
        (
            {"x_train": IMAGES / 255, "y_train": LABELS, "x_test": IMAGES / 1.0, "y_test": LABELS},
            "the largest pixels differ in scale",
        ),
        ({"images": IMAGES, "labels": np.array([{}] * 200)}, "stored by pickle and could run any code"),
        ({"images": np.array([{}] * 200), "labels": LABELS}, "stored by pickle and could run any code"),
    ],
)
def test_arrays_that_cannot_be_used_are_refused_with_a_remedy(tmp_path, arrays, says):
    assert says in refusal(save(tmp_path / "a.npz", **arrays))


def test_a_class_without_validation_images_is_refused_and_one_without_test_images_noted(tmp_path):
    parts = digits(validation=60)
    few = tuple(each[parts["test"][1] != 4] for each in parts["test"])
    name = f"arrays:{write_npz(tmp_path / 'a.npz', parts | {'test': few})}"
    assert "test has no images of 4 (1 of 10 classes)" in own_info(name).notes
    name = f"arrays:{write_npz(tmp_path / 'b.npz', parts | {'validation': few})}"
    assert "no image of 4 (1 of 10 classes)" in refusal(name)


def test_places_that_cannot_be_read_are_refused_with_a_remedy(tmp_path):
    write_npz(tmp_path / "digits.npz", digits())
    whole = (tmp_path / "digits.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "bad.parquet").write_bytes(b"PAR1")
    (tmp_path / "bad.arrow").write_bytes(b"ARROW1")
    (tmp_path / "text.txt").write_text("")
    np.save(tmp_path / "one.npy", IMAGES)
    for place, says in {
        "digit.npz": "did you mean digits.npz?",
        "cut.npz": "not a complete NumPy file",
        "bad.parquet": "not a complete parquet file",
        "bad.arrow": "not a complete arrow file",
        "text.txt": "needs a file .npz, .parquet",
        "one.npy": "give the folder with",
        "digits.npz,view=crop": "did you mean 'views'?",
        "digits.npz,views=flip": "unknown views 'flip'",
        "digits.npz,views=": "with a value",
    }.items():
        assert says in refusal(f"arrays:{tmp_path}/{place}"), place
    assert "both .npy files and tables" in refusal(f"arrays:{tmp_path}")
    assert "such as arrays:scans.npz" in refusal("arrays:")


def test_columns_are_found_or_named(tmp_path):
    table = hub_table(IMAGES, LABELS, tuple("abcdefghij"))
    two = table.rename_columns(["img", "fine_label"]).append_column("coarse_label", pa.array((LABELS // 5).tolist()))
    pq.write_table(two, tmp_path / "two.parquet")
    name = f"arrays:{tmp_path}/two.parquet"
    assert "fine_label, coarse_label may be the labels: name one by ,label=COLUMN" in refusal(name)
    assert own_info(f"{name},label=coarse_label").class_names == ("0", "1")
    assert "did you mean fine_label?" in refusal(f"{name},label=fine_labl")
    pq.write_table(table, tmp_path / "named.parquet")
    assert own_info(f"arrays:{tmp_path}/named.parquet").class_names == tuple("abcdefghij")
    pq.write_table(table.select(["image"]), tmp_path / "bare.parquet")
    assert "no column is known as labels" in refusal(f"arrays:{tmp_path}/bare.parquet")


def column(values, kind):
    return pa.array(values, kind)


def test_rows_that_cannot_be_used_are_named(tmp_path):
    rows = [png(image) for image in IMAGES]
    numbers = LABELS.tolist()
    damaged = [*rows[:5], rows[5][:40], *rows[6:]]
    larger = [*rows[:5], png(np.zeros((9, 9), np.uint8)), *rows[6:]]
    ragged = [image.tolist() for image in IMAGES[:-1]] + [[[1, 2]]]
    cases = {
        "none": ([None, *rows[1:]], pa.binary(), numbers, "1 rows have no image, the first is row 0"),
        "damaged": (damaged, pa.binary(), numbers, "1 of 200 images cannot be used:\n  row 5: "),
        "larger": (larger, pa.binary(), numbers, "row 5: 9 x 9 pixels: most have 8 x 8"),
        "unlabelled": (rows, pa.binary(), [None, *numbers[1:]], "1 labels are missing, the first of row 0"),
        "ragged": (ragged, None, numbers, "images of different sizes"),
        "minus": (rows, pa.binary(), [-1, *numbers[1:]], "is negative"),
    }
    for name, (images, kind, labels, says) in cases.items():
        pq.write_table(pa.table({"image": column(images, kind), "label": labels}), tmp_path / f"{name}.parquet")
        assert says in refusal(f"arrays:{tmp_path}/{name}.parquet"), name


def test_numbers_outside_the_class_names_are_refused(tmp_path):
    for names, says in {("a", "b"): "is outside 0 to 1", (*"abcdefghij", "k"): "no training image of k"}.items():
        pq.write_table(hub_table(IMAGES, LABELS, names), tmp_path / "a.parquet")
        assert says in refusal(f"arrays:{tmp_path}/a.parquet")


def test_files_that_changed_are_read_again_and_others_are_not(tmp_path, monkeypatch):
    name = f"arrays:{write_npz(tmp_path / 'a.npz', digits())}"
    first = load_dataset(name, None)
    forget_own()
    from trainables.data.own import opened

    monkeypatch.setattr(opened, "_read", lambda place: pytest.fail("read again"))
    assert load_dataset(name, None).digest == first.digest
    monkeypatch.undo()
    monkeypatch.setenv("PESFKD_CACHE", str(tmp_path / "cache"))
    write_npz(tmp_path / "a.npz", digits(train=150))
    assert dataset_info(name).split_sizes == (135, 15, 60)
