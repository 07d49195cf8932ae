import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainables.data import load_dataset
from trainables.data.image_folder import list_image_folder
from trainables.data.image_scan import UnusableImagesError, check_images, scan_of
from trainables.data.registry import dataset_info

RANDOM = np.random.default_rng(0)


def pixels(*shape):
    return RANDOM.integers(0, 256, shape, dtype=np.uint8)


def save(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


@pytest.fixture
def folder(tmp_path):
    for name in ("cat", "dog"):
        for number in range(10):
            save(tmp_path / name / f"{number}.png", Image.fromarray(pixels(32, 32, 3)))
    return tmp_path


def scanned(folder):
    list_image_folder.cache_clear()  # as in another process
    return list_image_folder(folder)


def check(folder, **options):
    check_images(scanned(folder), **options)


def info_of(folder):
    list_image_folder.cache_clear()
    return dataset_info(f"image_folder:{folder}")


def test_a_folder_is_grey_if_all_its_images_are(folder):
    for number, path in enumerate(sorted(folder.rglob("*.png"))):
        grey = Image.fromarray(pixels(32, 32))
        save(path, grey.convert("LA" if number % 3 == 0 else "1" if number % 3 == 1 else "L"))
    found = scan_of(scanned(folder))
    assert found.mode == "L"
    assert found.converted == {"grey with alpha": 7, "1-bit": 7}
    assert info_of(folder).channels == 1
    dataset = load_dataset(f"image_folder:{folder}", None)
    path = folder / list_image_folder(folder).train[int(dataset.validation.indices[0])][0]
    with Image.open(path) as image:
        np.testing.assert_array_equal(dataset.validation.images[0, 0], np.asarray(image.convert("L")))
    save(folder / "cat" / "0.png", Image.fromarray(pixels(32, 32, 3)).quantize(8))
    found = scan_of(scanned(folder))
    assert found.mode == "RGB"
    assert found.converted == {"1-bit": 7, "grey": 6, "grey with alpha": 6, "palette": 1}
    assert info_of(folder).channels == 3


def test_the_same_pixels_in_other_modes_are_the_same_dataset(folder):
    digests = set()
    images = {path: Image.fromarray(pixels(32, 32, 3)).quantize(16) for path in sorted(folder.rglob("*.png"))}
    for mode, converted in (("RGB", {}), ("P", {"palette": 20}), ("RGBA", {"RGB with alpha": 20})):
        for path, image in images.items():
            save(path, image.convert(mode))
        list_image_folder.cache_clear()
        dataset = load_dataset(f"image_folder:{folder}", None)
        assert scan_of(list_image_folder(folder)).converted == converted
        assert dataset.info.channels == 3
        digests.add(dataset.digest)
    assert len(digests) == 1


def test_one_small_square_among_photographs_changes_nothing(tmp_path):
    for name in ("cat", "dog"):
        for number in range(6):
            save(tmp_path / name / f"{number}.jpg", Image.fromarray(pixels(40 + number, 60, 3)))
    save(tmp_path / "cat" / "0.jpg", Image.fromarray(pixels(32, 32, 3)))
    info = info_of(tmp_path)
    assert (info.image_size, info.resized_crops) == (224, 64)
    check(tmp_path)


def test_everything_that_cannot_be_used_is_listed_at_once(folder):
    save(folder / "cat" / "0.png", Image.fromarray(pixels(31, 32, 3)))
    (folder / "cat" / "1.png").write_bytes(b"")
    (folder / "cat" / "2.png").write_bytes(b"<html>")
    (folder / "dog" / "3.png").write_bytes((folder / "dog" / "3.png").read_bytes()[:200])
    save(folder / "dog" / "4.tif", Image.fromarray(np.ones((32, 32), np.float32)))
    (folder / "dog" / "5.jpg").symlink_to("nowhere.jpg")
    info_of(folder)  # the first information for a plan ignores files without a header
    with pytest.raises(UnusableImagesError) as caught:
        check(folder)
    assert str(caught.value).splitlines()[0] == f"{folder}: 6 of 22 images cannot be used:"
    for line in (
        "cat/0.png: 32 x 31 pixels: most images have 32 x 32 pixels, so all must",
        "cat/1.png: empty (0 bytes)",
        "cat/2.png: not an image",
        "dog/3.png: truncated",
        "dog/4.tif: pixels are floats",
        "dog/5.jpg: a link to a missing file",
    ):
        assert f"\n  {line}" in str(caught.value)
    assert str(caught.value).endswith("Repair, convert or remove these files and start again.")
    with pytest.raises(UnusableImagesError, match="images cannot be used"):
        load_dataset(f"image_folder:{folder}", None)


def test_of_many_files_the_first_are_named_and_all_are_listed_in_a_file(folder):
    for path in folder.rglob("*.png"):
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UnusableImagesError) as caught:
        check(folder)
    listing = re.search(r"and 10 more; all are listed in (\S+)", str(caught.value))
    assert Path(listing[1]).read_text().splitlines() == [
        f"{name}/{number}.png: truncated" for name in ("cat", "dog") for number in range(10)
    ]
    assert str(caught.value).count("truncated") == 10


def test_photographs_too_long_to_be_enlarged_are_refused(folder):
    for path in folder.rglob("*.png"):
        save(path, Image.fromarray(pixels(40, 60, 3)))
    save(folder / "cat" / "line.png", Image.new("RGB", (100, 1)))
    with pytest.raises(
        UnusableImagesError,
        match=r"cat/line.png: 100 x 1 pixels: the longer side is more than 50 times the shorter one",
    ):
        check(folder)


def test_16_bit_images_that_would_be_black_are_refused(folder):
    for path in folder.rglob("*.png"):  # 12-bit values in 16 bits, as from many cameras
        save(path, Image.fromarray(RANDOM.integers(0, 4096, (32, 32)).astype(np.uint16)))
    message = r"20 16-bit images have no pixel value above 4,0\d\d of 65,535.* at most 16 grey levels"
    for _ in range(2):
        with pytest.raises(ValueError, match=message):
            check(folder)
    with pytest.raises(ValueError, match="16-bit images have no pixel value above"):
        load_dataset(f"image_folder:{folder}", None)
    save(folder / "cat" / "0.png", Image.fromarray(RANDOM.integers(0, 65536, (32, 32)).astype(np.uint16)))
    check(folder)


def reads(monkeypatch, function):
    """Return a list that receives the names of files read by this function of the scan from now on."""
    from trainables.data import image_scan

    names, own = [], getattr(image_scan, function)

    def counted(path, *arguments):
        names.append(path.name)
        return own(path, *arguments)

    monkeypatch.setattr(image_scan, function, counted)
    return names


def test_only_files_that_changed_are_read_again(folder, monkeypatch):
    check(folder)
    headers, whole = reads(monkeypatch, "read_header"), reads(monkeypatch, "read_pixels")
    check(folder)
    assert (headers, whole) == ([], [])
    save(folder / "dog" / "new.png", Image.fromarray(pixels(32, 32, 3)))
    save(folder / "cat" / "7.png", Image.fromarray(pixels(32, 32)))
    check(folder)
    assert sorted(headers) == sorted(whole) == ["7.png", "new.png"]


def test_a_file_that_cannot_be_used_is_looked_at_again(folder, monkeypatch):
    broken = folder / "dog" / "3.png"
    content = broken.read_bytes()
    times = broken.stat().st_mtime_ns
    broken.write_bytes(content[:200] + bytes(len(content) - 200))
    os.utime(broken, ns=(times, times))
    for _ in range(2):
        with pytest.raises(UnusableImagesError, match=r"1 of 20 .*\n  dog/3.png"):
            check(folder)


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "older"])
def test_a_damaged_record_of_a_scan_is_not_used(damage, folder, own_cache, monkeypatch):
    check(folder)
    (record,) = (own_cache / "datasets").glob("scan-*")
    content = bytearray(record.read_bytes())
    if damage == "flip":
        content[-20] ^= 1
    if damage == "older":
        content = content.replace(b'"pillow": "', b'"pillow": "0.')
    record.write_bytes({"truncate": content[:-1], "empty": b""}.get(damage, content))
    headers = reads(monkeypatch, "read_header")
    check(folder)
    assert len(headers) == 20


def test_no_more_is_kept_than_the_images_there_are(folder, own_cache):
    check(folder)
    (record,) = (own_cache / "datasets").glob("scan-*")
    size = record.stat().st_size
    for number in range(5):
        (folder / "cat" / f"{number}.png").unlink()
        check(folder)
    assert record.stat().st_size < size


def test_without_a_cache_a_folder_is_checked_all_the_same(folder, tmp_path_factory, monkeypatch):
    blocked = tmp_path_factory.mktemp("blocked") / "file"
    blocked.touch()
    monkeypatch.setenv("PESFKD_CACHE", str(blocked / "cache"))
    check(folder)
    for path in folder.rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(UnusableImagesError, match=r"20 of 20 images(.|\n)*and 10 more .*set PESFKD_CACHE"):
        check(folder)


def test_images_to_learn_from_are_decoded_once_into_the_cache_of_the_trials(folder, monkeypatch):
    for name in ("cat", "dog"):
        save(folder / "test" / name / "0.png", Image.fromarray(pixels(32, 32, 3)))
        (folder / "train").mkdir(exist_ok=True)
        (folder / name).rename(folder / "train" / name)
    decoded = []
    whole = reads(monkeypatch, "read_pixels")
    check(folder, decode=decoded.append)
    assert decoded == ["train"]
    assert whole == ["0.png", "0.png"]  # those of the test part
    check(folder, decode=decoded.append)
    assert decoded == ["train"]
