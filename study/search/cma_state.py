"""The state of CMA-ES in a study's journal, read without calling what a pickle names.

Optuna pickles the optimiser, keeps it in hexadecimal in the attributes of a trial, and reads it back with
`pickle.loads`, which runs whatever code the pickle asks for. A journal may come from anybody, so its bytes never get
there. They are read here by an unpickler that knows six names and puts classes of this module in their place, which
hold numbers and do nothing. The numbers are checked against an optimiser of the installed version, and what Optuna
gets is that optimiser, pickled in this process. Its numbers are those of the journal, bit for bit.
"""

import io
import pickle
from collections.abc import Mapping
from typing import Any, Final, TypeGuard

import cmaes
import numpy as np

# The samplers here use CMA-ES as it is: no other prefix is read.
_PREFIX: Final = "cma:optimizer"
_CHUNK: Final = 2045  # letters; as Optuna splits it, for databases with short columns
_MOST_LETTERS: Final = 20_000_000
_MOST_PARAMETERS: Final = 1_000
_MOST: Final = 1_000_000  # of any count; Optuna's are in the hundreds
_NOT_INITIALISED: Final = frozenset({"_funhist_values"})  # holds anything until as many generations have ended
_ROUNDING: Final = 1e-6


class UntrustedStateError(ValueError):
    """What stands where the state of CMA-ES belongs is something else."""


def trusted_attributes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes of a trial with the state of CMA-ES among them, if there is one, checked and pickled again.

    Args:
        attributes: of a trial, as a journal has them.

    Raises:
        UntrustedStateError: the state is damaged, or names what no state of CMA-ES needs. Nothing of it was called.
    """
    if not isinstance(attributes, Mapping):
        raise UntrustedStateError(f"its attributes are {str(attributes)[:80]!r}")
    chunks = {name: value for name, value in attributes.items() if name.startswith(_PREFIX)}
    if not chunks:
        return dict(attributes)
    try:
        state = _read("".join(chunks[f"{_PREFIX}:{number}"] for number in range(len(chunks))))
    except UntrustedStateError:
        raise
    except Exception as error:  # a damaged pickle raises anything
        raise UntrustedStateError(f"it cannot be read ({type(error).__name__}: {str(error)[:200]})") from None
    optimizer = cmaes.CMA.__new__(cmaes.CMA)
    optimizer.__setstate__(_checked(state))
    letters = pickle.dumps(optimizer).hex()
    others = {name: value for name, value in attributes.items() if name not in chunks}
    starts = range(0, len(letters), _CHUNK)
    return {
        **others,
        **{f"{_PREFIX}:{number}": letters[start : start + _CHUNK] for number, start in enumerate(starts)},
    }


def _read(letters: str) -> dict[str, Any]:
    """The fields of a pickled optimiser: numbers, None and arrays of float64."""
    if len(letters) > _MOST_LETTERS:
        raise UntrustedStateError(f"it has {len(letters):,} letters, more than any state of CMA-ES")
    found = _NumbersOnly(io.BytesIO(bytes.fromhex(letters))).load()
    if not isinstance(found, _Optimizer) or not isinstance(found.state, dict):
        raise UntrustedStateError(f"it is a {type(found).__name__.strip('_')}")
    return {name: value.value if isinstance(value, _Holder) else value for name, value in found.state.items()}


class _Optimizer:
    """Stands in for `cmaes.CMA`: keeps the state that a pickle gives it."""

    state: object = None

    def __setstate__(self, state: object) -> None:
        self.state = state


class _Dtype:
    """Stands in for `numpy.dtype`, of which float64 alone is needed."""

    def __init__(self, name: str, *_: object) -> None:
        if name != "f8":
            raise UntrustedStateError(f"it has numbers of type {name!r}")
        self.order = "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] not in ("<", ">"):
            raise UntrustedStateError("it has numbers in an unknown order of bytes")
        self.order = state[1]

    def read(self, content: bytes) -> np.ndarray:
        """The numbers in these bytes (n,)."""
        return np.frombuffer(content, np.dtype(f"{self.order}f8")).astype(np.float64)


class _Holder:
    """Stands in for what makes a value of NumPy."""

    value: object = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        raise UntrustedStateError("it sets what cannot be set")


class _Array(_Holder):
    """Stands in for `numpy.ndarray` and what makes an empty one."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, is_fortran, content = state
        self.value = _shaped(dtype, content, shape, "F" if is_fortran else "C")


class _Buffer(_Holder):
    """Stands in for what makes an array in newer protocols of pickle."""

    def __init__(self, content: bytes, dtype: _Dtype, shape: tuple[int, ...], order: str) -> None:
        self.value = _shaped(dtype, bytes(content), shape, order)


class _Scalar(_Holder):
    """Stands in for what makes a single number."""

    def __init__(self, dtype: _Dtype, content: bytes) -> None:
        (self.value,) = dtype.read(content)


def _shaped(dtype: _Dtype, content: bytes, shape: tuple[int, ...], order: Any) -> np.ndarray:
    return dtype.read(content).reshape(shape, order=order)


_STAND_INS: Final[dict[tuple[str, str], type]] = {
    ("cmaes._cma", "CMA"): _Optimizer,
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): _Array,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _Array for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _Scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _Buffer for core in ("core", "_core")},
}


class _NumbersOnly(pickle.Unpickler):
    """Makes stand-ins, numbers, strings and containers, and calls nothing that a pickle names."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _STAND_INS[module, name]
        except KeyError:
            raise UntrustedStateError(f"it names {module}.{name}, which no state of CMA-ES needs") from None


def _checked(state: dict[str, Any]) -> dict[str, Any]:
    """The state, if every field is what the installed version of cmaes has there."""
    size, population = state.get("_n_dim"), state.get("_popsize")
    if not (_is_count(size) and 0 < size <= _MOST_PARAMETERS and _is_count(population) and population > 1):
        raise UntrustedStateError(f"it is of {size!r} parameters and a population of {population!r}")
    own = cmaes.CMA(np.full(size, 0.5), 0.1, np.tile([0.0, 1.0], (size, 1)), population_size=population)
    expected = own.__getstate__()
    if expected.keys() != state.keys():
        names = ", ".join(sorted(map(str, expected.keys() ^ state.keys())))
        raise UntrustedStateError(f"it is not of the installed version of cmaes, which differs in {names[:200]}")
    shapes = {"_D": (size,), "_B": (size, size)}  # which are None most of the time
    for name, value in state.items():
        like = expected[name]
        fits = (value is None and like is None) or _shape(value) == shapes.get(name, _shape(like))
        if isinstance(like, int):  # bool included
            fits = type(value) is type(like) and (type(like) is bool or _is_count(value))
        elif fits and value is not None and name not in _NOT_INITIALISED:
            fits = bool(np.isfinite(value).all())
        if not fits:
            raise UntrustedStateError(f"its {name} is {str(value)[:80]!r}")
    low, high = state["_bounds"].T
    if not (state["_sigma"] > 0 and (low < high).all()):
        raise UntrustedStateError(f"its _sigma is {state['_sigma']}, its _bounds are {str(state['_bounds'])[:80]!r}")
    if not ((low - _ROUNDING <= state["_mean"]) & (state["_mean"] <= high + _ROUNDING)).all():
        raise UntrustedStateError(f"its _mean {str(state['_mean'])[:80]!r} is out of its bounds")
    return state


def _is_count(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 <= value <= _MOST


def _shape(value: object) -> tuple[int, ...] | None:
    """Of an array or number of float64; None of anything else."""
    if isinstance(value, np.ndarray):
        return value.shape
    return () if isinstance(value, float) else None
