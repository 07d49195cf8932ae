"""User datasets by name.

Files and hub tables are described once, in the cache of decoded datasets, under a hash of their paths, sizes and
modification times. User code has no modification time, so every process calls the code once. The decoded samples are
then cached under a hash of their content.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from trainables.data.image_folder import Part, shown
from trainables.display.nearest import did_you_mean
from trainables.spec.own_data import ARRAYS_PREFIX, HUB_PREFIX, OwnName, parse_own_name, source_of
from trainables.storage.files import replace_file

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from trainables.data.dataset import Dataset
    from trainables.data.decoded import Decoded
    from trainables.data.own.prepared import OwnInfo, Prepared
    from trainables.data.own.raw import RawData
    from trainables.spec.datasets import DatasetInfo

_FORMAT: Final = 1  # increase it when reading or decoding changes

_described: "dict[str, OwnInfo]" = {}
_last: "dict[str, Prepared]" = {}  # at most one, so a dataset's parts are read together
_made: "dict[str, _Made]" = {}


class _Made:
    """Samples returned by user code.

    Args:
        prepared: the checked samples.
    """

    def __init__(self, prepared: "Prepared") -> None:
        self.own = prepared.info
        self._prepared: Prepared | None = prepared
        self._decoded: dict[str, Decoded] = {}

    def decode(self, info: "DatasetInfo", part: Part) -> "Decoded":
        """Return a part. The first call decodes all parts, which the cache then holds for all processes."""
        if self._prepared is not None:
            self._decoded = {each: _cached(info, self._prepared, each) for each in self.own.sizes}
            self._prepared = None
        return self._decoded[part]


class _Samples:
    """Source of `trainables.data.decoded`: one part of checked samples."""

    def __init__(self, key: object, info: "DatasetInfo", part: Part, prepared: "Prepared | None" = None) -> None:
        what = [_form(), key, part, info.channels, info.stored_size, bool(info.resized_crops)]
        self.key = hashlib.sha256(json.dumps(what).encode()).hexdigest()
        self._info, self._part, self._prepared = info, part, prepared

    def decode(self, scratch: Path | None = None) -> "tuple[Tensor, np.ndarray]":  # noqa: ARG002
        """Decode the part."""
        prepared = self._prepared if self._prepared is not None else _prepared(parse_own_name(self._info.name))
        found: tuple[Tensor, np.ndarray] = prepared.decode(self._info, self._part)
        return found


def own_info(name: str) -> "OwnInfo":
    """Return a plan's information about a user dataset. If not known yet, read the dataset.

    Raises:
        ValueError: the dataset cannot be found or used. The message gives the reason and a remedy.
    """
    place = parse_own_name(name)
    if place.kind == "code":
        return _made_by(name).own
    key = _key(place)
    if key not in _described:
        _described[key] = _stored_description(key) or _describe(place, key)
    return _described[key]


def own_dataset_info(name: str) -> "DatasetInfo":
    """Return the information for a plan.

    Raises:
        ValueError: see `own_info`; or the classes have too few images.
    """
    return own_info(name).dataset_info(name, source_of(name))


def load_own(info: "DatasetInfo", *, seed: int, split_number: int = 0) -> "Dataset":
    """Load a user dataset. Missing parts are drawn from the train part, as for image folders.

    Raises:
        ValueError: a sample cannot be used, or the dataset has changed since it was described.
    """
    from trainables.data.from_files import load_parts  # imports torch

    sizes = own_info(info.name).sizes
    return load_parts(
        info,
        lambda part: decode_own(info, part),
        has_validation="validation" in sizes,
        has_test="test" in sizes,
        name_in_digest=f"own data|{info.padding}|{info.mirrored}|{info.resized_crops}|{info.own_views}",
        seed=seed,
        split_number=split_number,
    )


def decode_own(info: "DatasetInfo", part: Part) -> "Decoded":
    """Decode one part of a user dataset, or return the cached part."""
    from trainables.data.decoded import decode_source  # imports torch
    from trainables.storage.remote_folder import node_cache

    place = parse_own_name(info.name)
    if place.kind == "code":
        return _made_by(info.name).decode(info, part)
    return decode_source(_Samples(_key(place), info, part), f"{place.kind}-{part}", node_cache() / "datasets")


def check_own(name: str, *, keep: bool) -> None:
    """Check that all samples can be decoded, and are the same in a second call of user code.

    Args:
        name: canonical name.
        keep: whether to keep the decoded samples for trials on this machine.

    Raises:
        ValueError: some samples cannot be used.
    """
    info, place = own_dataset_info(name), parse_own_name(name)
    if place.kind == "code":
        from trainables.data.own.augment import check_views
        from trainables.data.own.made import check_repeats

        made = _made_by(name)
        check_views(name, info, made.decode(info, "train").images)
        check_repeats(name, {part: made.decode(info, part) for part in made.own.sizes}, info)
    for part in own_info(name).sizes:
        if keep:
            decode_own(info, part)
        elif place.kind != "code":
            _prepared(place).decode(info, part)
    _last.clear()


def fetch_own(name: str, *, dry_run: bool) -> None:
    """Fetch a Hugging Face dataset before anything is known about it. Other datasets have nothing to fetch.

    Raises:
        ValueError: the dataset cannot be fetched, or it is a dry run and the dataset is not there.
    """
    if not name.startswith(HUB_PREFIX):
        return
    from trainables.data.own.hub import download_hub, hub_files
    from trainables.data.sources import DataError

    place = parse_own_name(name)
    if not dry_run:
        download_hub(place)
        return
    try:
        hub_files(place)
    except DataError as error:
        raise DataError(f"{error}. A dry run fetches nothing") from None


def forget_own() -> None:
    """Forget all datasets in this process, because files and code's data may change between two studies."""
    from trainables.data.own.hub import forget_hub

    for each in (_described, _last, _made):
        each.clear()
    forget_hub()


def _cached(info: "DatasetInfo", prepared: "Prepared", part: Part) -> "Decoded":
    from trainables.data.decoded import decode_source
    from trainables.storage.remote_folder import node_cache

    source = _Samples(prepared.content_key(part), info, part, prepared)
    return decode_source(source, f"code-{part}", node_cache() / "datasets")


def _made_by(name: str) -> _Made:
    if name not in _made:
        from trainables.data.own.made import call_make
        from trainables.data.own.prepared import Prepared

        raw = call_make(name)
        _made[name] = _Made(Prepared(raw))
        if raw.augment is not None:
            from trainables.data.own.augment import views_by
            from trainables.data.views import set_own_views

            set_own_views(name, views_by(raw.augment, name))
    return _made[name]


def _prepared(place: OwnName) -> "Prepared":
    from trainables.data.own.prepared import Prepared

    key = _key(place)
    if key not in _last:
        _last.clear()
        _last[key] = Prepared(_read(place))
    return _last[key]


def _describe(place: OwnName, key: str) -> "OwnInfo":
    found = _prepared(place).info
    with suppress(OSError):
        file = _description_file(key)
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_file(file, json.dumps(found.to_json()).encode())
    return found


def _stored_description(key: str) -> "OwnInfo | None":
    from trainables.data.own.prepared import OwnInfo

    try:
        return OwnInfo.from_json(json.loads(_description_file(key).read_bytes()))
    except (OSError, ValueError, KeyError, TypeError):  # absent, or damaged: it is written again
        return None


def _description_file(key: str) -> Path:
    from trainables.storage.remote_folder import node_cache  # imports pyarrow

    return node_cache() / "datasets" / f"own-{key[:16]}.json"


def _key(place: OwnName) -> str:
    """Return a hash of a dataset's files and name options."""
    what = [_form(), place.kind, dict(place.options), *_stamps(_files(place))]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()


def _form() -> str:
    import PIL

    return f"{_FORMAT} Pillow {PIL.__version__}"


def _stamps(files: Iterable[Path]) -> list[list[Any]]:
    found = []
    for file in files:
        status = file.stat()
        found.append([str(file), status.st_size, status.st_mtime_ns])
    return found


def _files(place: OwnName) -> list[Path]:
    """List a dataset's files.

    Raises:
        DataError: the file does not exist, or is of no known kind.
    """
    if place.kind == "hf":
        from trainables.data.own.hub import hub_files

        return hub_files(place)
    from trainables.data.own.tables import table_files
    from trainables.data.sources import DataError

    path = Path(place.place)
    try:
        if not path.exists():
            raise DataError(_missing(path))
        tables = table_files(path)
        arrays = sorted(path.glob("*.npy")) if path.is_dir() else [path] if path.suffix in (".npz", ".npy") else []
    except OSError as error:
        raise DataError(f"{shown(path)} cannot be read ({error.strerror})") from None
    if tables and arrays:
        raise DataError(f"{shown(path)}: has both .npy files and tables: give a folder with one kind")
    if tables or arrays:
        return tables or arrays
    kinds = ".npz, .parquet, .arrow, .feather or .ipc, or a folder with .npy files or with such tables"
    if path.is_dir() and (inner := sorted(path.glob("*.npz"))):
        raise DataError(f"{shown(path)}: a .npz file is given by itself: {ARRAYS_PREFIX}{shown(inner[0])}")
    hint = "; images in class folders have the form image_folder:PATH" if path.is_dir() else ""
    raise DataError(f"{shown(path)}: {ARRAYS_PREFIX}PATH needs a file {kinds}{hint}")


def _missing(path: Path) -> str:
    others = [each.name for each in path.parent.glob("*")] if path.parent.is_dir() else []
    return f"there is no file or folder {shown(path)}" + did_you_mean(path.name, others, shown)


def _read(place: OwnName) -> "RawData":
    if place.kind == "hf":
        from trainables.data.own.hub import read_hub

        return read_hub(place)
    from trainables.data.own.arrays import read_arrays
    from trainables.data.own.tables import read_tables, table_files

    path, options = Path(place.place), _lowered(place.options)
    return read_tables(path, options) if table_files(path) else read_arrays(path, options)


def _lowered(options: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in options.items() if name in ("image", "label", "views")}
