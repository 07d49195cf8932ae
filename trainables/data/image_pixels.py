"""Decoding of one image file, with the same result as Pillow's `convert("RGB")` or `convert("L")` in `ImageFolder`.

Two kinds of pixels have no such conversion and are handled separately:

- 16-bit grey images: `convert` clips all values above 255 to white. We keep the upper 8 bits instead. Pillow does the
  same for 16-bit colour, and libpng's `png_set_strip_16` does it for grey and colour.
- 32-bit integers and floats: black and white are undefined, so these images are rejected.

Only the first frame of an animation is used. EXIF orientation is not applied, as in `ImageFolder`.
"""

import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Literal, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

PixelMode = Literal["L", "RGB"]

# Pillow can open about thirty formats, one of them by running another program.
_FORMATS: Final = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF")
_GREY: Final = frozenset({"1", "L", "LA", "La", "I", "F"})
SIXTEEN_BITS: Final = "I;16"
# Pillow reads 16-bit files of these formats as 32-bit integers, scaled to 16 bits (PNG: up to Pillow 10.2).
_SIXTEEN_BITS_AS_32: Final = ("PNG", "PPM")
_MODES_IN_WORDS: Final = {
    "1": "1-bit",
    "L": "grey",
    "LA": "grey with alpha",
    "La": "grey with alpha",
    "I;16": "16-bit grey (upper 8 bits)",
    "P": "palette",
    "PA": "palette with alpha",
    "RGB": "RGB",
    "RGBA": "RGB with alpha",
    "RGBa": "RGB with alpha",
    "RGBX": "RGB with padding",
}


class ImageError(ValueError):
    """Image cannot be used. The message gives the reason, without the file name."""


class Header(NamedTuple):
    """Mode (Pillow's name) and size of an image in pixels."""

    mode: str
    width: int
    height: int


class Pixels(NamedTuple):
    """Image pixels.

    Args:
        array: (H, W, 1 or 3) uint8.
        peak: largest value of a 16-bit grey image before the reduction to 8 bits; None for other images.
    """

    array: np.ndarray
    peak: int | None


def is_grey(mode: str) -> bool:
    """Check whether images with a Pillow mode have no colour."""
    return mode in _GREY or mode.startswith(SIXTEEN_BITS)


def mode_in_words(mode: str) -> str:
    """Describe a Pillow mode in words."""
    return _MODES_IN_WORDS.get(SIXTEEN_BITS if mode.startswith(SIXTEEN_BITS) else mode, mode)


def read_header(path: Path | str | bytes) -> Header:
    """Read an image's mode and size from the start of the file, or of the content as bytes.

    Raises:
        ImageError: the file cannot be opened, or is not an image.
    """
    with _reasons(path), _open(path) as image:
        if 0 in image.size:
            raise ImageError("it has no pixels")
        return Header(_mode(image), *image.size)


def read_pixels(path: Path | str | bytes, mode: PixelMode) -> Pixels:
    """Decode all pixels of an image.

    Args:
        path: the file, or the content as bytes.
        mode: "L" for (H, W, 1) of a grey image, "RGB" for (H, W, 3).

    Raises:
        ImageError: the file is not a complete image, black and white are undefined, or mode "L" was requested for a
            colour image.
    """
    with _reasons(path), _open(path) as image:
        found = _mode(image)
        if found in ("I", "F"):
            kind = "32-bit integers" if found == "I" else "floats"
            raise ImageError(f"pixels are {kind}, which do not define black and white: save it with 8 or 16 bits")
        if mode == "L" and not is_grey(found):
            raise ImageError("it is in colour, but all images were grey when the folder was scanned: start again")
        if found.startswith(SIXTEEN_BITS):
            values = np.asarray(image).astype(np.uint32)
            grey = (np.minimum(values, 0xFFFF) >> 8).astype(np.uint8)[..., None]
            return Pixels(grey if mode == "L" else grey.repeat(3, axis=2), int(values.max()))
        image.load()
        array = np.asarray(image if image.mode == mode else image.convert(mode))
        return Pixels(array if array.ndim == 3 else array[..., None], None)


def _open(path: Path | str | bytes) -> Image.Image:
    if isinstance(path, bytes):
        return Image.open(io.BytesIO(path), formats=_FORMATS)
    if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 - opening a pipe would wait for a writer
        raise ImageError("not a file")
    return Image.open(path, formats=_FORMATS)


def _mode(image: Image.Image) -> str:
    return SIXTEEN_BITS if image.mode == "I" and image.format in _SIXTEEN_BITS_AS_32 else image.mode


@contextmanager
def _reasons(path: Path | str | bytes) -> Iterator[None]:
    """Convert any exception raised by a damaged file to an `ImageError`."""
    try:
        yield
    except ImageError:
        raise
    except Exception as error:  # Pillow's readers raise OSError, SyntaxError, struct.error, KeyError and more
        raise ImageError(_reason(path, error)) from error


def _reason(path: Path | str | bytes, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "a link to a missing file" if os.path.islink(path) else "it no longer exists"  # noqa: PTH114
    if isinstance(error, UnidentifiedImageError):
        with suppress(OSError):
            if (len(path) if isinstance(path, bytes) else os.path.getsize(path)) == 0:  # noqa: PTH202
                return "empty (0 bytes)"
        return f"not an image: the start of the file is damaged, or the format is none of {', '.join(_FORMATS)}"
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels: make it smaller"
    if isinstance(error, OSError) and error.strerror:
        return f"it cannot be opened ({error.strerror})"
    text = str(error).strip().partition("\n")[0] or type(error).__name__
    return "truncated" if "truncated" in text.lower() else f"damaged ({text})"
