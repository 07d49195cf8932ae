"""Read files of torch.save without running code from them.

Unpickling can run arbitrary code, so every file is loaded by `torch.load` with `weights_only=True`. Training scripts
store other objects with the weights: parsed arguments, NumPy scalars or the model itself. A stand-in replaces every
other class. Stand-ins keep the data and run nothing, so neither NumPy nor the training script's code is involved.
"""

import json
import math
import pickle
import pickletools
import re
import shlex
import warnings
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Final

import torch
from torch import Tensor

from trainables.models.taken_weights import CheckpointError

# Modules not needed by any checkpoint of weights. If a file names one of them, the file was made to run commands.
_DANGEROUS_MODULES: Final = frozenset({
    "commands", "ctypes", "importlib", "nt", "os", "posix", "pty", "runpy", "shutil", "socket", "subprocess", "sys",
    "webbrowser",
})  # fmt: skip
_BUILTINS: Final = ("builtins", "__builtin__")
_DANGEROUS_BUILTINS: Final = frozenset({"__import__", "breakpoint", "compile", "eval", "exec", "input", "open"})
_SEQUENCES: Final = frozenset({"collections.deque"})
# torch dtypes by NumPy type code.
_NUMPY_TYPES: Final = {
    "f2": torch.float16, "f4": torch.float32, "f8": torch.float64, "i1": torch.int8, "i2": torch.int16,
    "i4": torch.int32, "i8": torch.int64, "u1": torch.uint8, "b1": torch.bool,
}  # fmt: skip
_LEGACY_PICKLES: Final = 5  # magic number, protocol, system, content, storage keys
_MOST_GLOBALS: Final = 10_000
_LARGEST_RATIO: Final = 100  # unpacked bytes per byte of the file; a compressed checkpoint has a ratio of about 2
_DEEPEST: Final = 64  # nested modules
_POINTER: Final = b"version https://git-lfs"
_BLANK: Final = b"\xef\xbb\xbf \t\r\n"  # whitespace, and the byte order mark of some text files


class _Recorded:
    """Stand-in for an object with a state other than a dict; keeps arguments and state."""

    def __init__(self, *args: object) -> None:
        self.args = args
        self.state: object = None

    def __setstate__(self, state: object) -> None:
        self.state = state


class _RecordedArray(_Recorded):
    """Stand-in for a NumPy array."""


class _RecordedType(_Recorded):
    """Stand-in for a NumPy dtype."""


class _AsDict:
    """Stand-in for any other object: an ordered dict, which torch's unpickler can fill and give attributes."""

    def __new__(cls, *_args: object) -> Any:
        """Return an empty dict for any arguments."""
        return OrderedDict()


class _AsList:
    """Stand-in for a sequence."""

    def __new__(cls, *_args: object) -> Any:
        """Return an empty list for any arguments."""
        return []


_NUMPY: Final[dict[str, type]] = {
    **{f"numpy.{core}.multiarray._reconstruct": _RecordedArray for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": _Recorded for core in ("core", "_core")},
    "numpy.dtype": _RecordedType,
    "functools.partial": _Recorded,
}


def read_torch_file(file: Path) -> object:
    """Read a file of torch.save, with stand-ins for everything except tensors and plain containers.

    NumPy arrays become tensors, and pickled modules become state dicts. A top-level list or tuple becomes a dict by
    position.

    Raises:
        CheckpointError: the file is damaged, has another format, or would run commands.
    """
    _check_format(file)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            names = _names_of_globals(file)
            _check_harmless(file, names)
            return _to_builtin(_in_storage_order(_load(file, names)), {})
    except CheckpointError:
        raise
    # torch.load raises no specific error for another file format.
    except Exception as error:
        raise _damaged(file, error) from error


def check_is_there(file: Path) -> None:
    """Check that a file can be opened.

    Raises:
        CheckpointError: the file is missing, unreadable, or a folder.
    """
    if file.is_dir():
        raise CheckpointError(f"{str(file)!r} is a folder: give a file inside it")
    if not file.is_file():
        raise CheckpointError(f"there is no checkpoint file {str(file)!r}")
    try:
        file.open("rb").close()
    except OSError as error:
        raise CheckpointError(f"{str(file)!r} cannot be read: {error.strerror}") from error


def is_no_binary(file: Path) -> bool:
    """Return whether a file is empty, a Git LFS pointer or a web page."""
    with file.open("rb") as stream:
        start = stream.read(512)
    return not start or start.startswith(_POINTER) or start.lstrip(_BLANK).startswith(b"<")


def _load(file: Path, names: set[str]) -> object:
    try:
        return _load_with(file, names, _AsDict)
    except (pickle.UnpicklingError, TypeError, ValueError):  # an object with slots, or a dict key
        return _load_with(file, names, _Recorded)


def _load_with(file: Path, names: set[str], usual: type) -> object:
    stand_ins: list[Any] = []
    for name in names:
        base = _NUMPY.get(name) or (_AsList if name in _SEQUENCES else usual)
        stand_ins.append((type("StandIn", (base,), {}), name))
    # Pass a stream, because torch 2.15 selects the format by a path's suffix.
    with torch.serialization.safe_globals(stand_ins), file.open("rb") as stream:
        return torch.load(stream, map_location="cpu", weights_only=True)


def _names_of_globals(file: Path) -> set[str]:
    """Return the classes and functions named in the file's pickle, by Python 2 and Python 3 names.

    torch.save uses pickle protocol 2, which has Python 2's module names. torch's unpickler resolves allowed names
    before it looks for a stand-in.
    """
    found: set[str] = set()
    for stream in _pickles(file):
        for code, argument, _ in pickletools.genops(stream):
            if code.name == "GLOBAL":
                module, name = str(argument).split(" ", 1)
                found.add(f"{module}.{name}")
                module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
                found.add(f"{module}.{name}")
    return found


def _pickles(file: Path) -> Iterator[IO[bytes]]:
    """Yield a stream at the start of each pickle in the file that may name classes."""
    if _is_archive(file):
        with zipfile.ZipFile(file) as archive:
            for entry in archive.namelist():
                if entry.endswith("/data.pkl"):
                    with archive.open(entry) as stream:
                        yield stream
    else:
        with file.open("rb") as stream:
            for _ in range(_LEGACY_PICKLES):
                yield stream


def _check_harmless(file: Path, names: set[str]) -> None:
    if len(names) > _MOST_GLOBALS:
        raise CheckpointError(
            f"{str(file)!r} refers to {len(names):,} Python classes: it is not a checkpoint of a network"
        )
    for name in sorted(names):
        module, _, rest = name.partition(".")
        if module in _DANGEROUS_MODULES or (module in _BUILTINS and rest in _DANGEROUS_BUILTINS):
            raise CheckpointError(
                f"{str(file)!r} would call {name} when opened with pickle. Only weights were read, so nothing was "
                "run. Do not open this file with other programs; get the weights from a source that you trust"
            )


def _check_format(file: Path) -> None:
    """Refuse formats not readable by torch.load; the message gives the remedy, where known as a command."""
    with file.open("rb") as stream:
        start = stream.read(512)
    if not start:
        raise CheckpointError(f"{str(file)!r} is empty (0 bytes): download it again")
    if start.startswith(_POINTER):
        raise CheckpointError(
            f"{str(file)!r} is a Git LFS pointer, not the weights themselves: run git lfs pull in its repository, "
            "or use the download link of the file"
        )
    if start.lstrip(_BLANK).startswith(b"<"):
        raise CheckpointError(
            f"{str(file)!r} is a web page, not a checkpoint: the link leads to a page about the file. Download "
            "the file itself"
        )
    if start.lstrip(_BLANK).startswith(b"{"):
        raise CheckpointError(f"{str(file)!r} is JSON text, not a checkpoint: give the file with the weights")
    if start[257:262] == b"ustar":
        raise CheckpointError(
            f"{str(file)!r} is a tar archive: unpack it (tar -xf {shlex.quote(str(file))}) and give a file from it"
        )
    if start.startswith(b"\x1f\x8b"):
        raise CheckpointError(f"{str(file)!r} is compressed by gzip: unpack it first (gunzip or tar -xzf)")
    if start.startswith(b"\x89HDF"):
        raise CheckpointError(f"{str(file)!r} is an HDF5 file, as written by Keras: give weights written by torch.save")
    if _is_archive(file):
        _check_archive(file)


def _is_archive(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(4) == b"PK\x03\x04"


def _check_archive(file: Path) -> None:
    try:
        with zipfile.ZipFile(file) as archive:
            names = {name.partition("/")[2] for name in archive.namelist()}
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise _damaged(file, error) from error
    if unpacked > _LARGEST_RATIO * file.stat().st_size:
        raise CheckpointError(
            f"{str(file)!r} would unpack to {unpacked:,} bytes, more than {_LARGEST_RATIO} times the file: it is "
            "not a torch.save checkpoint, as torch.save does not compress"
        )
    quoted = json.dumps(str(file))
    if "constants.pkl" in names or any(name.startswith("code/") for name in names):
        what, read = "a TorchScript program", f'torch.jit.load({quoted}, map_location="cpu").state_dict()'
    elif "archive_format" in names or any(name.startswith("models/") for name in names):
        what, read = "a torch.export program", f"dict(torch.export.load({quoted}).state_dict)"
    elif "data.pkl" in names:
        return
    else:
        some = ", ".join(sorted(names)[:3])
        raise CheckpointError(
            f"{str(file)!r} is a zip archive without torch.save weights (it has {some}): unpack it and give a "
            "file from it"
        )
    command = f'import torch; torch.save({read}, "weights.pth")'
    raise CheckpointError(
        f"{str(file)!r} is {what}, and programs are never run. If you trust the author of the file, write "
        f"only the weights to a new file: python -c {shlex.quote(command)}"
    )


def _damaged(file: Path, error: Exception) -> CheckpointError:
    # torch's message starts with advice about torch's arguments; the reason follows.
    text = str(error).rpartition("WeightsUnpickler error:")[2].strip()
    reason = re.sub(r"\s+", " ", text.partition("\n")[0].partition(" <")[0])[:200]
    if any(words in reason for words in ("Unsupported operand", "persistent_load", "unrecognized function")):
        loaded = f'torch.load({json.dumps(str(file))}, map_location="cpu", weights_only=False)'
        command = f'import torch; torch.save({loaded}, "weights.pth")'
        return CheckpointError(
            f"{str(file)!r} was not pickled in the default way of torch.save ({reason}). If you trust the author "
            f"of the file, save it again: python -c {shlex.quote(command)}"
        )
    return CheckpointError(
        f"{str(file)!r} is damaged or not a torch checkpoint ({type(error).__name__}: {reason}). Download it "
        "again, or give a file written by torch.save"
    )


def _in_storage_order(content: object) -> object:
    """Convert a list or tuple such as (weights, epoch) to a dict by position; return other content unchanged.

    Only dicts and modules are kept. A list without any is returned unchanged.
    """
    if not isinstance(content, list | tuple):
        return content
    parts = {str(place): part for place, part in enumerate(content) if isinstance(part, Mapping | _Recorded)}
    return parts or content


def _to_builtin(content: object, done: dict[int, object], depth: int = 0) -> object:
    """Convert modules to state dicts and arrays to tensors, in nested dicts.

    Args:
        content: content as read from the file.
        done: result for each container by id, because pickles may contain cycles.
        depth: nesting depth of `content`.
    """
    if _is_module(content):
        return dict(_module_state(content))
    if not isinstance(content, Mapping) or depth > _DEEPEST:
        return content
    if id(content) not in done:
        result: dict[object, object] = {}
        done[id(content)] = result
        # Arrays next to tensors may be the training history. Arrays are weights only in a dict without tensors.
        arrays = not any(isinstance(value, Tensor) for value in content.values())
        for key, value in content.items():
            is_weight = arrays and isinstance(value, _RecordedArray)
            result[key] = _tensor_of(value) if is_weight else _to_builtin(value, done, depth + 1)
    return done[id(content)]


def _attributes(stand_in: object) -> Mapping[str, Any]:
    """Return the attributes set on an object by the pickle."""
    found = stand_in.state if isinstance(stand_in, _Recorded) else getattr(stand_in, "__dict__", None)
    return found if isinstance(found, Mapping) else {}


def _is_module(content: object) -> bool:
    """Return whether a stand-in represents a module, as pickled by `torch.save(model)`."""
    if not isinstance(content, OrderedDict | _Recorded):
        return False
    attributes = _attributes(content)
    return all(isinstance(attributes.get(name), Mapping) for name in ("_modules", "_parameters", "_buffers"))


def _module_state(module: object, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    """Yield the state dict of a pickled module, in the order of `Module.state_dict`."""
    attributes = _attributes(module)
    hidden = attributes.get("_non_persistent_buffers_set")
    buffers = {k: v for k, v in attributes["_buffers"].items() if not isinstance(hidden, set) or k not in hidden}
    for name, value in (*attributes["_parameters"].items(), *buffers.items()):
        if isinstance(value, Tensor):
            yield f"{prefix}{name}", value.detach()
    for name, child in attributes["_modules"].items():
        if depth < _DEEPEST and _is_module(child):
            yield from _module_state(child, f"{prefix}{name}.", depth + 1)


def _tensor_of(array: _RecordedArray) -> object:
    """Convert a pickled NumPy array to a tensor; return the stand-in unchanged for non-numeric types."""
    match array.state:
        case (_, tuple(shape), _RecordedType(args=(str(code), *_), state=(_, order, *_)), fortran, bytes(content)):
            dtype = _NUMPY_TYPES.get(code)
        case _:
            return array
    count = math.prod(shape)
    if dtype is None or order not in ("<", "=", "|") or count * dtype.itemsize != len(content):
        return array
    values = torch.frombuffer(bytearray(content), dtype=dtype) if content else torch.empty(0, dtype=dtype)
    if fortran:
        return values.reshape(shape[::-1]).permute(*reversed(range(len(shape))))
    return values.reshape(shape)
