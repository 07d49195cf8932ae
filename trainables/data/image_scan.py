"""Scan of an image folder: mode and size of each image, and a check for complete decoding of each image.

Headers are read when the dataset is first requested. They decide whether images are grey or colour, and small squares
or photographs. Before a study starts, `check_images` decodes every file once and lists all unusable files.

Results are cached by path, size and modification time, so only changed files are read again. A cache file contains a
checksum, the Pillow version, and one row per image. A file with a wrong checksum or another version is ignored.
"""

import hashlib
import json
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import PIL

from trainables.data.image_folder import ImageFolder, Part, shown
from trainables.data.image_pixels import (
    SIXTEEN_BITS,
    ImageError,
    PixelMode,
    is_grey,
    mode_in_words,
    read_header,
    read_pixels,
)
from trainables.data.image_progress import with_progress
from trainables.data.sources import DataError
from trainables.process.cores import usable_cores
from trainables.storage.files import replace_file

# Square images up to this size are used unchanged; all others are photographs.
LARGEST_KEPT: Final = 96
# Longer images are not photographs, and would need gigabytes when the short side is enlarged.
_MOST_ELONGATED: Final = 50
# 16-bit images with all values below this have fewer than 17 grey levels in the upper 8 bits.
_LEAST_PEAK: Final = 0x1000
_FORMAT: Final = 1
_ROW: Final = np.dtype(
    [("key", "S16"), ("mode", "S8"), ("width", "<u4"), ("height", "<u4"), ("peak", "<u2"), ("whole", "?")]
)
_MOST_BYTES: Final = 1 << 30
_MOST_SCANS: Final = 64
_CHUNK: Final = 32
_LISTED: Final = 10

T = TypeVar("T")
W = TypeVar("W")
Problems = dict[str, str]


class UnusableImagesError(DataError):
    """Image files cannot be used.

    Args:
        message: error message for the user.
        problems: reason by file name, for all unusable files.
    """

    def __init__(self, message: str, problems: Problems) -> None:
        super().__init__(message)
        self.problems = problems


@dataclass(frozen=True)
class ImageScan:
    """Image headers in a folder.

    Args:
        path: the folder.
        names: N paths relative to the folder.
        rows: (N,) structured array with `mode` (Pillow's name), `width`, `height`, `whole` (has been decoded
            completely) and `peak` (largest value of a completely decoded 16-bit image).
        unreadable: reason by file name, for files without a readable header.
    """

    path: Path
    names: list[str]
    rows: np.ndarray
    unreadable: Problems

    @cached_property
    def modes(self) -> dict[str, int]:
        """Readable image count by Pillow mode, most frequent first."""
        found, counts = np.unique(self.rows["mode"][self._readable], return_counts=True)
        return dict(Counter(dict(zip([mode.decode() for mode in found], counts.tolist(), strict=True))).most_common())

    @property
    def mode(self) -> PixelMode:
        """Common mode of all images after conversion: grey if all images are grey."""
        return "L" if all(map(is_grey, self.modes)) else "RGB"

    @property
    def converted(self) -> dict[str, int]:
        """Count of images in need of a mode conversion, by original mode in words."""
        counts: Counter[str] = Counter()
        for mode, count in self.modes.items():
            if mode != self.mode:
                counts[mode_in_words(mode)] += count
        return dict(counts.most_common())

    @cached_property
    def edge(self) -> int | None:
        """Height and width in pixels if most images are small squares of one size; None for photographs."""
        sizes = np.stack(self._sizes)[:, self._readable]
        found, counts = np.unique(sizes, axis=1, return_counts=True)
        width, height = found[:, counts.argmax()].tolist()
        most = counts.max() * 2 > sizes.shape[1]
        return int(width) if most and width == height <= LARGEST_KEPT else None

    @property
    def problems(self) -> Problems:
        """Reason by file name, for files unusable according to the header."""
        width, height = self._sizes
        if self.edge is not None:
            wrong = (width != self.edge) | (height != self.edge)
            rule = f"most images have {self.edge} x {self.edge} pixels, so all must"
        else:
            wrong = np.maximum(width, height) > _MOST_ELONGATED * np.minimum(width, height)
            rule = f"the longer side is more than {_MOST_ELONGATED} times the shorter one"
        sizes = {
            self.names[i]: f"{width[i]} x {height[i]} pixels: {rule}" for i in np.flatnonzero(wrong & self._readable)
        }
        return self.unreadable | sizes

    @property
    def _sizes(self) -> tuple[np.ndarray, np.ndarray]:
        return self.rows["width"].astype(np.int64), self.rows["height"].astype(np.int64)

    @property
    def _readable(self) -> np.ndarray:
        return self.rows["width"] > 0


def scan_of(listed: ImageFolder) -> ImageScan:
    """Return mode and size of every image in a folder. The result is stored with the listing."""
    kept: dict[str, Any] = vars(listed)
    if "_scan" not in kept:
        kept["_scan"] = scan_headers(listed.path, listed.names)
    scan: ImageScan = kept["_scan"]
    return scan


def scan_headers(path: Path, names: list[str]) -> ImageScan:
    """Read image headers not in the cache yet.

    Args:
        path: the folder.
        names: file paths relative to the folder.

    Raises:
        UnusableImagesError: no file is readable.
    """
    rows, unreadable = np.zeros(len(names), _ROW), Problems()
    rows["key"] = _keys(path, names)
    unread = _fill_from_cache(path, rows)
    results = run_in_threads(read_header, [path / names[number] for number in unread])
    try:
        for number, result in zip(unread, with_progress(results, "reading headers", len(unread)), strict=True):
            if isinstance(result, ImageError):
                unreadable[names[number]] = str(result)
            else:
                rows["mode"][number], rows["width"][number], rows["height"][number] = result
    finally:  # after Ctrl-C, headers read so far are not read again
        if len(unread) > len(unreadable):
            _write_cache(path, rows)
    if len(unreadable) == len(names):
        raise unusable(path, unreadable, len(names))
    return ImageScan(path, names, rows, unreadable)


def check_images(listed: ImageFolder, decode: Callable[[Part], object] | None = None) -> None:
    """Decode every image not decoded before, and report all unusable images in one error.

    Args:
        listed: the folder.
        decode: decodes one part into the cache used by trials, or raises `UnusableImagesError`. With this function,
            training and validation images are decoded once instead of twice. Without it, pixels are not kept.

    Raises:
        UnusableImagesError: some files cannot be used. The message lists the files and suggests a fix.
        DataError: all 16-bit images would be nearly black; see `check_peaks`.
    """
    scan, problems = scan_of(listed), scan_of(listed).problems
    whole, peaks = scan.rows["whole"], scan.rows["peak"]
    deep = np.char.startswith(scan.rows["mode"], SIXTEEN_BITS.encode())
    try:
        if decode is not None and not problems:
            _decode_parts(listed, decode, whole, problems)
        left = [number for number in np.flatnonzero(~whole) if scan.names[number] not in problems]
        results = run_in_threads(
            lambda path: read_pixels(path, scan.mode).peak, [scan.path / scan.names[i] for i in left]
        )
        for number, result in zip(left, with_progress(results, "checking images", len(left)), strict=True):
            if isinstance(result, ImageError):
                problems[scan.names[number]] = str(result)
            else:
                peaks[number], whole[number] = result or 0, True
    finally:
        _write_cache(scan.path, scan.rows)
    if problems:
        raise unusable(scan.path, {name: problems[name] for name in scan.names if name in problems}, len(scan.names))
    check_peaks(peaks[deep].tolist())


def _decode_parts(listed: ImageFolder, decode: Callable[[Part], object], whole: np.ndarray, problems: Problems) -> None:
    """Decode training and validation parts with images not decoded before. The test part is left out.

    16-bit images are not marked as checked, because their largest values are still unknown.
    """
    eight_bits = ~np.char.startswith(scan_of(listed).rows["mode"], SIXTEEN_BITS.encode())
    first = 0
    for part in ("train", "validation"):
        files = listed.files(part)
        rows = slice(first, first + len(files))
        first += len(files)
        if whole[rows].all():
            continue
        try:
            decode(part)
            whole[rows] = eight_bits[rows]
        except UnusableImagesError as error:
            problems |= error.problems
            whole[rows] = eight_bits[rows] & [name not in error.problems for name, _ in files]


def check_peaks(values: Sequence[int]) -> None:
    """Check that 16-bit images use the upper 8 bits, since only these bits are kept.

    Args:
        values: largest value of each 16-bit image.

    Raises:
        DataError: the images would be nearly black.
    """
    if values and max(values) < _LEAST_PEAK:
        raise DataError(
            f"{len(values):,} 16-bit images have no pixel value above {max(values):,} of 65,535, and only the "
            f"upper 8 bits are kept: at most {(max(values) >> 8) + 1} grey levels would be left. Scale the pixels "
            "to the full 16-bit range, or save the images with 8 bits, and start again"
        )


def unusable(path: Path | None, problems: Problems, total: int) -> UnusableImagesError:
    """Build an error that names the first unusable files and the text file with the full list.

    Args:
        path: base folder of the names; None for absolute names.
        problems: reason by file name.
        total: number of files, usable ones included.
    """
    lines = [f"{shown(name)}: {reason}" for name, reason in problems.items()]
    few = lines if len(lines) <= _LISTED else [*lines[:_LISTED], _remaining_line(path, lines)]
    where = f"{shown(path)}: " if path is not None else ""
    text = "\n  ".join([f"{where}{len(problems):,} of {total:,} images cannot be used:", *few])
    return UnusableImagesError(f"{text}\nRepair, convert or remove these files and start again.", problems)


def _remaining_line(path: Path | None, lines: list[str]) -> str:
    file = _cache() / f"unusable-{_short_hash(path)}.txt"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_file(file, ("\n".join(lines) + "\n").encode())
    except OSError:
        return f"and {len(lines) - _LISTED:,} more (to list all, set PESFKD_CACHE to a writable folder)"
    return f"and {len(lines) - _LISTED:,} more; all are listed in {file}"


def run_in_threads(work: Callable[[W], T], paths: Sequence[W], threads: int | None = None) -> Iterator[T | ImageError]:
    """Apply a function to all paths in threads, and yield results in order. An `ImageError` is yielded, not raised.

    Args:
        work: function of one path. Pillow releases the GIL while decoding.
        paths: files, or image numbers.
        threads: number of threads; defaults to one per available core.
    """

    def attempt(chunk: Sequence[W]) -> list[T | ImageError]:
        results: list[T | ImageError] = []
        for path in chunk:
            try:
                results.append(work(path))
            except ImageError as error:
                results.append(error)
        return results

    chunks = [paths[first : first + _CHUNK] for first in range(0, len(paths), _CHUNK)]
    with warnings.catch_warnings(), ThreadPoolExecutor(max_workers=threads or usable_cores()) as pool:
        # Pillow warns of odd metadata, transparent palettes, and photographs of more than 89 million pixels.
        warnings.simplefilter("ignore")
        for results in pool.map(attempt, chunks):
            yield from results


def _keys(path: Path, names: list[str]) -> list[bytes]:
    """Hash every file's name, size and modification time. A missing file's key is empty."""
    keys = []
    for name in names:
        try:
            status = os.stat(f"{path}/{name}")  # noqa: PTH116 - a million of them
        except OSError:  # reading the file reports the reason
            keys.append(b"")
            continue
        about = f"{status.st_size}|{status.st_mtime_ns}|{name}".encode("utf-8", "surrogateescape")
        keys.append(hashlib.blake2b(about, digest_size=_ROW["key"].itemsize).digest())
    return keys


def _fill_from_cache(path: Path, rows: np.ndarray) -> list[int]:
    """Fill in the rows found in the cache, and return the indices of all other rows."""
    known = _read_cache(path)
    places = np.searchsorted(known["key"], rows["key"])
    places[places == len(known)] = 0
    found = (known["key"][places] == rows["key"]) & (rows["key"] != b"") if len(known) else np.zeros(len(rows), bool)
    rows[found] = known[places[found]]
    return np.flatnonzero(~found).tolist()


def _cache() -> Path:
    from trainables.storage.remote_folder import node_cache  # imports pyarrow

    return node_cache() / "datasets"


def _short_hash(path: Path | None) -> str:
    return hashlib.sha256(os.fsencode(path.absolute() if path is not None else "")).hexdigest()[:16]


def _origin(content: bytes) -> dict[str, Any]:
    return {"format": _FORMAT, "pillow": PIL.__version__, "sha256": hashlib.sha256(content).hexdigest()}


def _read_cache(path: Path) -> np.ndarray:
    """Load the cached rows, sorted by key. Return no rows if the cache file is missing or invalid."""
    file = _cache() / f"scan-{_short_hash(path)}"
    with suppress(OSError, ValueError):  # file missing, invalid JSON, or an incomplete row
        if file.stat().st_size <= _MOST_BYTES:
            header, _, content = file.read_bytes().partition(b"\n")
            if json.loads(header) == _origin(content):
                return np.sort(np.frombuffer(content, _ROW), order="key")
    return np.zeros(0, _ROW)


def _write_cache(path: Path, rows: np.ndarray) -> None:
    """Write all known rows to the cache, and delete all but the 64 newest cache files.

    Without a writable cache, every process reads the image files again.
    """
    content = rows[(rows["width"] > 0) & (rows["key"] != b"")].tobytes()
    folder = _cache()
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(folder / f"scan-{_short_hash(path)}", json.dumps(_origin(content)).encode() + b"\n" + content)
        by_age = sorted(
            (each for kind in ("scan-", "unusable-") for each in folder.glob(f"{kind}*")),
            key=lambda each: each.stat().st_mtime,
        )
        for old in by_age[:-_MOST_SCANS]:
            old.unlink(missing_ok=True)
