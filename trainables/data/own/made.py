"""Datasets from user code: `make()` returns arrays, tensors or map-style torch datasets."""

import inspect
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from PIL import Image

from trainables.data.image_folder import Part
from trainables.data.image_pixels import is_grey
from trainables.data.own.arrays import data_of_arrays
from trainables.data.own.raw import PART_WORDS, RawData, RawPart, check_parts, few, with_test
from trainables.process.randomness import seeded
from trainables.spec.naming import unknown_name
from trainables.spec.own_data import VIEWS
from trainables.user_code.errors import UserCodeError
from trainables.user_code.loading import describe, executed_again, load_callable
from trainables.user_code.reference import canonical

if TYPE_CHECKING:
    from trainables.data.decoded import Decoded
    from trainables.spec.datasets import DatasetInfo

_SEED: Final = 0
_READ_AGAIN: Final = 32  # samples of each part
_SETTINGS: Final = ("views", "augment", "class_names")
_OWN_VIEWS: Final = 64
_MOST_VIEWS: Final = 32_767  # numbered by int16
_ALLOWED: Final = (
    "return a mapping with train, test and optionally validation, or a tuple of them in this order. Each is a map-"
    "style torch dataset of (image, label), or a pair (images, labels) of arrays or tensors"
)
_RANDOM: Final = (
    "A study reads each sample once, so that a teacher's outputs can be stored and trials run again to the same bits. "
    f"Leave random transforms out, and declare augmentation by 'views' in the returned mapping: {', '.join(VIEWS)}, "
    "or a number with 'augment', your own function of an image; draw random data or splits from generators with fixed "
    "seeds"
)


def call_make(name: str) -> RawData:
    """Call the user's function and read the returned data.

    Args:
        name: canonical name.

    Raises:
        UserCodeError: the function fails (the message has the user's traceback), returns no dataset, or returns other
            samples when read again.
        DataError: images and labels cannot be distinguished.
    """
    where, returned = _title(name), _returned(name)
    settings: dict[str, Any] = {}
    if isinstance(returned, Mapping):
        settings = {key: returned[key] for key in _SETTINGS if key in returned}
        returned = {key: value for key, value in returned.items() if key not in _SETTINGS}
    names = _class_names(settings, where)
    augment, own_views, views = _augmentation(settings, where)
    extra: dict[str, Any] = {"augment": augment, "own_views": own_views}
    if isinstance(returned, Mapping) and returned and all(_is_array(value) for value in returned.values()):
        members = {str(key): _const(_numpy(value)) for key, value in returned.items()}
        if names:
            members["class_names"] = _const(np.array(names))
        return replace(data_of_arrays(members, where, {}, views), **extra)
    parts: dict[Part, RawPart] = {}
    with _seeds():
        for part, value in _parts_of(returned, where).items():
            images, labels, listed = _read_part(value, f"{where}, {part}")
            parts[part] = RawPart(images, labels, f"{where}, {part}", names or (listed if part == "train" else ()))
    first = parts["train"].class_names if "train" in parts else ()
    parts = {part: RawPart(each.images, each.labels, each.where, first) for part, each in parts.items()}
    parts, notes = with_test(parts)
    check_parts(where, parts)
    return RawData(where, parts, views, notes, **extra)


def check_repeats(name: str, decoded: "Mapping[Part, Decoded]", info: "DatasetInfo") -> None:
    """Execute the user's code once more and compare all samples, because every process in a study executes it.

    Args:
        name: canonical name.
        decoded: all parts, as decoded from the first call.
        info: the dataset.

    Raises:
        UserCodeError: the samples differ.
    """
    from trainables.data.own.prepared import Prepared

    with executed_again(name):
        again = Prepared(call_make(name))
    if again.info.sizes != {part: len(each.labels) for part, each in decoded.items()}:
        raise UserCodeError(
            f"{_title(name)}: called twice, it returns {again.info.sizes} samples and then others. {_RANDOM}"
        )
    for part, first in decoded.items():
        images, labels = again.decode(info, part)
        if not (torch.equal(images, first.images) and np.array_equal(labels, first.labels)):
            raise UserCodeError(
                f"{_title(name)}: called twice, it returns different samples of the {part} part. {_RANDOM}"
            )


def _returned(name: str) -> Any:
    with _seeds():
        make = load_callable(name)
    try:
        parameters = inspect.signature(make).parameters.values()
    except (TypeError, ValueError):  # builtins have no signature
        parameters = ()  # type: ignore[assignment]
    needed = [
        each.name
        for each in parameters
        if each.default is each.empty and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
    ]
    if needed:
        raise UserCodeError(
            f"{_title(name)} needs the argument {needed[0]}, but it is called without arguments: give it a default, "
            "such as an absolute path that exists on all nodes"
        )
    with _seeds():
        try:
            return make()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # user code may call sys.exit
            raise UserCodeError(f"{_title(name)} failed:\n{describe(error)}") from None


def _parts_of(returned: Any, where: str) -> dict[Part, Any]:
    """Return the parts in the result of the user's function."""
    if isinstance(returned, Mapping):
        parts: dict[Part, Any] = {}
        for key, value in returned.items():
            part = PART_WORDS.get(str(key).lower())
            if part is None:
                raise UserCodeError(
                    f"{where}: {unknown_name('key', str(key), ['train', 'validation', 'test', *_SETTINGS])}"
                )
            if part in parts:
                raise UserCodeError(f"{where}: returns two {part} parts: leave one out")
            parts[part] = value
        if "train" not in parts:
            raise UserCodeError(
                f"{where} returns no train part, only {few(returned) or 'an empty mapping'}: {_ALLOWED}"
            )
        return parts
    if isinstance(returned, tuple | list):
        if len(returned) == 2 and all(map(_is_array, returned)):
            return {"train": tuple(returned)}
        if not 1 <= len(returned) <= 3:
            raise UserCodeError(f"{where} returns a {type(returned).__name__} of {len(returned)}: {_ALLOWED}")
        return dict(zip(("train", "test", "validation"), returned, strict=False))
    if _is_map_style(returned):
        return {"train": returned}
    raise UserCodeError(f"{where} returns {_described(returned)}: {_ALLOWED}")


def _class_names(settings: Mapping[str, Any], where: str) -> tuple[str, ...]:
    names = settings.get("class_names", ())
    if isinstance(names, str) or not all(isinstance(each, str) for each in names):
        raise UserCodeError(f"{where}: class_names is a list of texts, in the order of the labels")
    return tuple(names)


def _augmentation(settings: Mapping[str, Any], where: str) -> tuple[Callable[[Any], Any] | None, int, str]:
    """Return the user's function with the number of views, and the name of other views."""
    views, augment = settings.get("views"), settings.get("augment")
    if augment is None:
        if views is not None and (not isinstance(views, str) or views not in VIEWS):
            raise UserCodeError(f"{where}: {unknown_name('views', str(views), VIEWS)}, or a number with 'augment'")
        return None, 0, views or ""
    if not callable(augment):
        raise UserCodeError(f"{where}: augment is {_described(augment)}: give a function of an image (C, H, W) uint8")
    count = _OWN_VIEWS if views is None else views
    if isinstance(count, bool) or not isinstance(count, int) or not 2 <= count <= _MOST_VIEWS:
        raise UserCodeError(
            f"{where}: with augment, views is the number of views of each image, 2 to {_MOST_VIEWS:,}; it is {views!r}"
        )
    return augment, count, ""


def _read_part(value: Any, where: str) -> tuple[np.ndarray, Any, tuple[str, ...]]:
    """Return images, labels and class names, if there are any, of one part."""
    if (
        isinstance(value, tuple | list)
        and len(value) == 2
        and all(_is_array(each) or isinstance(each, list) for each in value)
    ):
        images, labels = value
        return _numpy(images), _numpy(labels), ()
    if _is_array(value):
        raise UserCodeError(f"{where}: {_described(value)} alone has no labels: give the pair (images, labels)")
    if not _is_map_style(value):
        hint = ""
        if hasattr(value, "__iter__") and not hasattr(value, "__getitem__"):
            hint = " (a dataset that can only be iterated has no fixed order: give one with __len__ and __getitem__)"
        raise UserCodeError(f"{where}: {_described(value)} is no dataset{hint}: {_ALLOWED}")
    images, labels = _read_map(value, where)
    listed = getattr(value, "classes", ())
    is_named = isinstance(listed, list | tuple) and all(isinstance(each, str) for each in listed)
    return images, labels, tuple(listed) if is_named else ()


def _read_map(dataset: Any, where: str) -> tuple[np.ndarray, list[Any]]:
    """Read all samples in a map-style dataset, and some samples twice."""
    count = _guarded(lambda: len(dataset), f"{where}: its length")
    images, labels = [], []
    for number in range(count):
        image, label = _item(dataset, number, where)
        images.append(image)
        labels.append(label)
    for number in np.unique(np.linspace(0, count - 1, min(count, _READ_AGAIN)).astype(int)).tolist() if count else ():
        image, label = _item(dataset, number, where)
        if image.shape != images[number].shape or not np.array_equal(image, images[number]) or label != labels[number]:
            raise UserCodeError(f"{where}: sample {number} differs when it is read again. {_RANDOM}")
    return _stacked(images, where), labels


def _stacked(images: list[np.ndarray], where: str) -> np.ndarray:
    shapes = list(dict.fromkeys(each.shape for each in images))
    grey = {shape for shape in shapes if len(shape) == 2}
    if grey and {*shapes} == grey | {(*shape, 3) for shape in grey}:  # some pictures are in colour
        images = [each if each.ndim == 3 else np.repeat(each[..., None], 3, axis=2) for each in images]
        shapes = list(dict.fromkeys(each.shape for each in images))
    if len(shapes) > 1:
        listed = few(" x ".join(map(str, shape)) for shape in shapes)
        raise UserCodeError(
            f"{where}: images of different sizes ({listed}): resize them to one size in the dataset, such as by "
            "torchvision's Resize and CenterCrop"
        )
    return np.stack(images) if images else np.empty((0, 1, 1), dtype=np.uint8)


def _item(dataset: Any, number: int, where: str) -> tuple[np.ndarray, Any]:
    item = _guarded(lambda: dataset[number], f"{where}: sample {number}")
    if isinstance(item, Mapping):
        keys = [next((key for key in keys if key in item), None) for keys in (("image", "img"), ("label", "labels"))]
        item = tuple(item[key] for key in keys) if None not in keys else item
    if not isinstance(item, tuple | list) or len(item) != 2:
        kind = f"a {type(item).__name__} of {len(item)}" if isinstance(item, tuple | list) else _described(item)
        raise UserCodeError(f"{where}: sample {number} is {kind}, not a pair (image, label): a dataset needs labels")
    image, label = item
    if isinstance(image, Image.Image):
        pixels = np.asarray(_converted(image, f"{where}: sample {number}"))
    elif _is_array(image):
        pixels = np.array(_numpy(image))
    else:
        raise UserCodeError(
            f"{where}: the image of sample {number} is {_described(image)}: give a PIL image, a tensor or an array"
        )
    if isinstance(label, torch.Tensor | np.ndarray):
        label = _numpy(label)
        label = label.item() if label.size == 1 else tuple(label.tolist())
    return pixels, label


def _converted(image: Image.Image, where: str) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        raise UserCodeError(f"{where}: a PIL image of mode {image.mode}: convert it to 8 bits (L or RGB)")
    return image.convert("L" if is_grey(image.mode) else "RGB")


def _guarded(work: Callable[[], Any], where: str) -> Any:
    try:
        return work()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise UserCodeError(f"{where} failed:\n{describe(error)}") from None


@contextmanager
def _seeds() -> Iterator[None]:
    """Seed the global generators to draw the same numbers in all processes, and restore them afterwards.

    The user code's stdout is redirected to stderr, because stdout may be JSON.
    """
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002
    random.seed(_SEED)
    np.random.seed(_SEED)  # noqa: NPY002
    try:
        with seeded(_SEED), redirect_stdout(sys.stderr):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002


def _is_map_style(value: Any) -> bool:
    return (
        hasattr(value, "__getitem__")
        and hasattr(value, "__len__")
        and not isinstance(value, str | bytes | list | tuple)
    )


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray | torch.Tensor)


def _numpy(value: Any) -> Any:
    return value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)


def _const(value: np.ndarray) -> Callable[[], np.ndarray]:
    return lambda: value


def _described(value: Any) -> str:
    return "None" if value is None else f"an object of type {type(value).__name__}"


def _title(name: str) -> str:
    own = canonical(name)
    return f"{own.title}:{own.name}"
