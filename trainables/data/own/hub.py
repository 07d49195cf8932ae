"""Hugging Face datasets, read by `datasets` from the cache. Nothing is fetched without a request."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from trainables.data.image_folder import Part
from trainables.data.own.raw import PART_WORDS, RawData, few
from trainables.data.own.tables import data_of_tables
from trainables.data.sources import DataError
from trainables.spec.own_data import OwnName

_EXTRA: Final = "hf:NAME needs the library datasets: pip install 'pesfkd[datasets]'"

_LONGEST: Final = 400  # characters of a library error

_opened: dict[tuple[str, str], Any] = {}


def hub_files(place: OwnName) -> list[Path]:
    """List a dataset's cached files.

    Raises:
        DataError: the library or the files are missing.
    """
    return sorted({Path(each["filename"]) for part in _parts(place).values() for each in part.cache_files})


def read_hub(place: OwnName) -> RawData:
    """Read a dataset from the cache of `datasets`.

    Raises:
        DataError: the library or the files are missing, or the columns are ambiguous.
    """
    tables = {part: each.data.table for part, each in _parts(place).items()}
    return data_of_tables(tables, f"hf:{place.place}", place.options)


def download_hub(place: OwnName) -> None:
    """Fetch a dataset into the cache of `datasets`. A cached dataset is not fetched again.

    Raises:
        DataError: the library is missing, or the dataset cannot be fetched.
    """
    with suppress(DataError):
        _opened[_key(place)] = _load(place, fetch=False)
    if _key(place) not in _opened:
        _opened[_key(place)] = _load(place, fetch=True)


def forget_hub() -> None:
    """Forget the opened datasets."""
    _opened.clear()


def _key(place: OwnName) -> tuple[str, str]:
    return place.place, place.options.get("config", "")


def _parts(place: OwnName) -> dict[Part, Any]:
    """Return a dataset's splits with the name of a part; others, such as `unsupervised`, are left out."""
    key = _key(place)
    if key not in _opened:
        _opened[key] = _load(place, fetch=False)
    found: dict[Part, Any] = {}
    for name, split in _opened[key].items():
        part = PART_WORDS.get(str(name).lower())
        if part in found:
            raise DataError(f"hf:{place.place}: two splits are the {part} part: {few(_opened[key])}")
        if part is not None:
            found[part] = split
    if "train" not in found:
        raise DataError(f"hf:{place.place}: there is no split train, only {few(_opened[key])}")
    return found


def _load(place: OwnName, *, fetch: bool) -> Any:
    try:
        import datasets
    except ImportError:
        raise DataError(_EXTRA) from None
    name, _, revision = place.place.partition("@")
    try:
        with _offline(not fetch), _quiet():
            found = datasets.load_dataset(name, place.options.get("config"), revision=revision or None)
    except Exception as error:  # datasets raises errors of many libraries
        reason = " ".join(str(error).split())[:_LONGEST] or type(error).__name__
        if "config" in reason.lower():
            reason += ". Choose one by ,config=NAME after the dataset's name"
        if fetch:
            raise DataError(f"hf:{place.place} cannot be fetched: {reason}") from None
        raise DataError(
            f"hf:{place.place} is not in the cache of datasets on this machine, or not whole: --download fetches it; "
            f"on a cluster, every node needs it. The library says: {reason}"
        ) from None
    commits = {Path(each["filename"]).parent.name for split in found.values() for each in split.cache_files}
    # Offline, the library takes the latest cached revision and ignores the requested one.
    if revision and not all(commit.startswith(revision) for commit in commits):
        raise DataError(
            f"hf:{place.place}: the cache of datasets has {few(sorted(commits))}: --download fetches {revision}"
        )
    return found


@contextmanager
def _offline(is_offline: bool) -> Iterator[None]:
    """Keep `datasets` and `huggingface_hub` off the network. They read the environment only when they are imported."""
    import datasets.config
    import huggingface_hub.constants

    modules: tuple[Any, ...] = (datasets.config, huggingface_hub.constants)
    places = [module for module in modules if hasattr(module, "HF_HUB_OFFLINE")]
    before = [module.HF_HUB_OFFLINE for module in places]
    for module in places:
        module.HF_HUB_OFFLINE = is_offline or module.HF_HUB_OFFLINE
    try:
        yield
    finally:
        for module, value in zip(places, before, strict=True):
            module.HF_HUB_OFFLINE = value


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the bars of `datasets`."""
    from datasets.utils import logging

    hidden = not logging.is_progress_bar_enabled() if hasattr(logging, "is_progress_bar_enabled") else True
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    if not hidden:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if not hidden:
            logging.enable_progress_bar()
