import os
import struct
import warnings
import zlib

import numpy as np
import PIL
import pytest
from PIL import Image

from trainables.data.image_pixels import ImageError, read_header, read_pixels

COLOURS = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
RGB = Image.fromarray(COLOURS)
GREY = RGB.convert("L")
PALETTE = RGB.quantize(16)
ALPHA = Image.fromarray(COLOURS[..., 0])
ROTATED = Image.Exif()
ROTATED[0x0112] = 6  # turn by 90 degrees


def ycck(path):
    """Mark the colours of a CMYK JPEG as YCCK, which Pillow cannot write."""
    RGB.convert("CMYK").save(path)
    content = path.read_bytes()
    marker = content.index(b"Adobe\x00")
    path.write_bytes(content[: marker + 11] + b"\x02" + content[marker + 12 :])


def png(path, array, colour_type):
    """Return a PNG of big-endian 16-bit samples, which Pillow cannot write in colour."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = array.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    header = struct.pack(">2I5B", width, height, 16, colour_type, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )


def with_alpha(image):
    image = image.copy()
    image.putalpha(ALPHA)
    return image


IN_COLOUR = {
    "palette.png": PALETTE.save,
    "palette_transparent.png": lambda path: PALETTE.save(path, transparency=bytes([0, 128] + [255] * 14)),
    "palette_one_transparent.png": lambda path: PALETTE.save(path, transparency=3),
    "rgb.png": RGB.save,
    "rgb_transparent.png": lambda path: RGB.save(path, transparency=tuple(COLOURS[0, 0].tolist())),
    "rgba.png": with_alpha(RGB).save,
    "rgb_16_bits.png": lambda path: png(path, COLOURS.astype(np.uint16) * 257, 2),
    "animated.png": lambda path: RGB.save(path, save_all=True, append_images=[RGB.rotate(90)]),
    "rgb.jpg": RGB.save,
    "rotated.jpg": lambda path: RGB.save(path, exif=ROTATED),
    "cmyk.jpg": RGB.convert("CMYK").save,
    "ycck.jpg": ycck,
    "png_named.JPEG": lambda path: RGB.save(path, format="PNG"),
    "two_pictures.jpg": lambda path: RGB.save(path, format="MPO", save_all=True, append_images=[RGB]),
    "animated.gif": lambda path: RGB.save(path, save_all=True, append_images=[RGB.rotate(90)]),
    "rgb.webp": RGB.save,
    "rgba.webp": lambda path: with_alpha(RGB).save(path, lossless=True),
    "animated.webp": lambda path: RGB.save(path, save_all=True, append_images=[RGB.rotate(90)]),
    "rgb.bmp": RGB.save,
    "rgb.ppm": RGB.save,
    "rgb.tif": RGB.save,
    "cmyk.tiff": RGB.convert("CMYK").save,
    "palette.tiff": PALETTE.save,
    "grey.gif": GREY.save,  # with a palette, like every GIF
    "lab.tiff": RGB.convert("LAB").save,
    "ycbcr.tiff": RGB.convert("YCbCr").save,
    "rgb_deflated.tiff": lambda path: RGB.save(path, compression="tiff_adobe_deflate"),
}
WITHOUT_COLOUR = {
    "grey.png": GREY.save,
    "grey_transparent.png": lambda path: GREY.save(path, transparency=7),
    "grey_alpha.png": with_alpha(GREY).save,
    "one_bit.png": GREY.convert("1").save,
    "one_bit.tif": lambda path: GREY.convert("1").save(path, compression="group4"),
    "grey.jpg": GREY.save,
    "grey.pgm": GREY.save,
    "grey.tif": GREY.save,
}


def as_image_folder_reads(path, mode):
    with Image.open(path) as image:
        return np.asarray(image.convert(mode))


@pytest.mark.parametrize("name", [*IN_COLOUR, *WITHOUT_COLOUR])
def test_an_image_of_any_kind_has_the_pixels_that_pillow_converts_it_to(name, tmp_path):
    path = tmp_path / name
    (IN_COLOUR | WITHOUT_COLOUR)[name](path)
    if name == "ycbcr.tiff" and int(PIL.__version__.split(".")[0]) < 13:
        with pytest.raises(ImageError):
            read_pixels(path, "RGB")
        pytest.skip("Pillow before 13 cannot read such a TIFF, not even one of its own; it is refused by name")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about a transparent palette
        pixels = read_pixels(path, "RGB").array
        np.testing.assert_array_equal(pixels, as_image_folder_reads(path, "RGB"))
    assert pixels.shape == (20, 24, 3)
    assert read_header(path)[1:] == (24, 20)
    if name in WITHOUT_COLOUR:
        np.testing.assert_array_equal(read_pixels(path, "L").array[..., 0], as_image_folder_reads(path, "L"))
    else:
        with pytest.raises(ImageError, match="it is in colour"):
            read_pixels(path, "L")


def test_lossless_files_give_back_the_colours_that_were_saved(tmp_path):
    for name in ("rgb.png", "rgba.png", "rgb_16_bits.png", "animated.png", "rgb.bmp", "rgb.tif", "rgb.ppm"):
        IN_COLOUR[name](tmp_path / name)
        np.testing.assert_array_equal(read_pixels(tmp_path / name, "RGB").array, COLOURS, err_msg=name)
    PALETTE.save(tmp_path / "palette.png")
    colours = np.array(PALETTE.getpalette()).reshape(-1, 3)[np.asarray(PALETTE)]
    np.testing.assert_array_equal(read_pixels(tmp_path / "palette.png", "RGB").array, colours)


DEPTHS = np.array([[0, 255, 256, 1000], [30_000, 32_768, 65_280, 65_535]], np.uint16)
UPPER_BITS = np.array([[0, 0, 1, 3], [117, 128, 255, 255]], np.uint8)
SIXTEEN_BITS = {
    "grey.png": Image.fromarray(DEPTHS).save,
    "little_endian.tif": Image.fromarray(DEPTHS).save,
    "big_endian.tif": lambda path: Image.frombytes("I;16B", (4, 2), DEPTHS.astype(">u2").tobytes()).save(path),
    "grey.pgm": lambda path: path.write_bytes(b"P5 4 2 65535\n" + DEPTHS.astype(">u2").tobytes()),
}


@pytest.mark.parametrize("name", SIXTEEN_BITS)
def test_of_16_bit_grey_images_the_upper_8_bits_are_kept_where_pillow_would_make_them_white(name, tmp_path):
    SIXTEEN_BITS[name](tmp_path / name)
    pixels = read_pixels(tmp_path / name, "L")
    np.testing.assert_array_equal(pixels.array[..., 0], UPPER_BITS)
    assert pixels.peak == 65_535
    np.testing.assert_array_equal(read_pixels(tmp_path / name, "RGB").array, UPPER_BITS[..., None].repeat(3, 2))
    assert as_image_folder_reads(tmp_path / name, "L").tolist()[1] == [255] * 4
    assert read_header(tmp_path / name).mode.startswith("I;16")


def test_16_bit_colour_and_grey_are_cut_alike(tmp_path):
    png(tmp_path / "colour.png", DEPTHS[..., None].repeat(3, 2), 2)
    np.testing.assert_array_equal(read_pixels(tmp_path / "colour.png", "RGB").array[..., 0], UPPER_BITS)


@pytest.mark.parametrize(("kind", "words"), [(np.int32, "32-bit integers"), (np.float32, "floats")])
def test_pixels_without_an_agreed_white_are_refused(kind, words, tmp_path):
    Image.fromarray(np.ones((4, 4), kind)).save(tmp_path / "depth.tif")
    assert read_header(tmp_path / "depth.tif").width == 4
    for mode in ("L", "RGB"):
        with pytest.raises(ImageError, match=rf"pixels are {words}.* save it with 8 or 16 bits"):
            read_pixels(tmp_path / "depth.tif", mode)


def huge(path):
    """Write a small PNG with a header that claims 30,000 x 30,000 pixels."""
    Image.new("1", (8, 8)).save(path)
    content = bytearray(path.read_bytes())
    content[16:24] = struct.pack(">2I", 30_000, 30_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    path.write_bytes(content)


DAMAGED = {
    "empty.jpg": (lambda path: path.touch(), r"empty \(0 bytes\)"),
    "text.jpg": (lambda path: path.write_bytes(b"<html>not found</html>"), "not an image"),
    "postscript.jpg": (
        lambda path: path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
        "not an im",
    ),
    "bomb.png": (huge, "more than 178,956,970 pixels"),
    "nowhere.png": (lambda path: path.symlink_to("gone.png"), "a link to a missing file"),
    "gone.png": (lambda path: None, "no longer exists"),
    "pipe.png": (os.mkfifo, "not a file"),
}
TRUNCATED = ("rgb.jpg", "cmyk.jpg", "rgb.png", "palette.png", "animated.gif", "rgb.webp", "rgb.bmp", "rgb.ppm",
             "rgb.tif", "rgb_deflated.tiff")  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
def test_a_file_that_is_no_image_is_refused_with_the_reason(name, tmp_path):
    make, reason = DAMAGED[name]
    make(tmp_path / name)
    with pytest.raises(ImageError, match=reason):
        read_pixels(tmp_path / name, "RGB")
    with pytest.raises(ImageError, match=reason):
        read_header(tmp_path / name)


@pytest.mark.parametrize("name", TRUNCATED)
def test_a_truncated_image_is_refused(name, tmp_path):
    path = tmp_path / name
    IN_COLOUR[name](path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ImageError):
            read_pixels(path, "RGB")
