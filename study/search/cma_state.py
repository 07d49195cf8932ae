"""Safe loading of CMA-ES optimiser state from a study's journal.

Optuna pickles the optimiser and stores the pickle as hexadecimal text in a trial's attributes. Optuna reads the pickle
with `pickle.loads`, which executes arbitrary code. A journal may come from an untrusted source, so these pickles never
reach `pickle.loads`. The unpickler here accepts a fixed list of names and replaces each by a passive class from this
module. The values are validated against a new optimiser from the installed version of cmaes. Optuna receives an
optimiser with these values, pickled in this process. The values equal those in the journal bit for bit.
"""

import io
import pickle
from collections.abc import Mapping
from typing import Any, Final, TypeGuard

import numpy as np

# Prefix for plain CMA-ES. The samplers here use no other variant.
_PREFIX: Final = "cma:optimizer"
_CHUNK: Final = 2045  # characters; Optuna's chunk size, for databases with short columns
_MOST_LETTERS: Final = 20_000_000
_MOST_PARAMETERS: Final = 1_000
_MOST: Final = 1_000_000  # upper bound for any count; typical counts are in the hundreds
_NOT_INITIALISED: Final = frozenset({"_funhist_values"})  # uninitialised memory until enough generations have ended
_ROUNDING: Final = 1e-6


class UntrustedStateError(ValueError):
    """Raised if the CMA-ES state in a journal is not a valid optimiser state."""


def trusted_attributes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a trial's attributes with any CMA-ES state validated and pickled again.

    Args:
        attributes: trial attributes from a journal.

    Raises:
        UntrustedStateError: the state is damaged or names an object not used by CMA-ES. Nothing from it was called.
    """
    if not isinstance(attributes, Mapping):
        raise UntrustedStateError(f"the attributes of the trial are not a mapping: {str(attributes)[:80]!r}")
    chunks = {name: value for name, value in attributes.items() if name.startswith(_PREFIX)}
    if not chunks:
        return dict(attributes)
    try:
        state = _read("".join(chunks[f"{_PREFIX}:{number}"] for number in range(len(chunks))))
    except UntrustedStateError:
        raise
    except Exception as error:  # a damaged pickle raises anything
        raise UntrustedStateError(f"it cannot be read ({type(error).__name__}: {str(error)[:200]})") from None
    import cmaes  # imports SciPy, which takes a second

    optimizer = cmaes.CMA.__new__(cmaes.CMA)
    optimizer.__setstate__(_checked(state))
    text = pickle.dumps(optimizer).hex()
    others = {name: value for name, value in attributes.items() if name not in chunks}
    starts = range(0, len(text), _CHUNK)
    return {
        **others,
        **{f"{_PREFIX}:{number}": text[start : start + _CHUNK] for number, start in enumerate(starts)},
    }


def _read(text: str) -> dict[str, Any]:
    """Return a pickled optimiser's fields: numbers, None and float64 arrays."""
    if len(text) > _MOST_LETTERS:
        raise UntrustedStateError(f"it has {len(text):,} characters, more than any CMA-ES state")
    found = _NumbersOnly(io.BytesIO(bytes.fromhex(text))).load()
    if not isinstance(found, _Optimizer) or not isinstance(found.state, dict):
        raise UntrustedStateError(f"it contains a {type(found).__name__.strip('_')} instead of an optimiser")
    return {name: value.value if isinstance(value, _Holder) else value for name, value in found.state.items()}


class _Optimizer:
    """Stand-in for `cmaes.CMA`, storing the pickled state."""

    state: object = None

    def __setstate__(self, state: object) -> None:
        self.state = state


class _Dtype:
    """Stand-in for `numpy.dtype`, limited to float64."""

    def __init__(self, name: str, *_: object) -> None:
        if name != "f8":
            raise UntrustedStateError(f"it has numbers of type {name!r} instead of float64")
        self.order = "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] not in ("<", ">"):
            raise UntrustedStateError("it has numbers with an unknown byte order")
        self.order = state[1]

    def read(self, content: bytes) -> np.ndarray:
        """Return the numbers stored in these bytes, shape (n,)."""
        return np.frombuffer(content, np.dtype(f"{self.order}f8")).astype(np.float64)


class _Holder:
    """Base class of stand-ins for NumPy functions creating a value."""

    value: object = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        raise UntrustedStateError("it sets the state of an object without state")


class _Array(_Holder):
    """Stand-in for `numpy.ndarray` and for the function creating an empty array."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, is_fortran, content = state
        self.value = _shaped(dtype, content, shape, "F" if is_fortran else "C")


class _Buffer(_Holder):
    """Stand-in for the function creating an array in newer pickle protocols."""

    def __init__(self, content: bytes, dtype: _Dtype, shape: tuple[int, ...], order: str) -> None:
        self.value = _shaped(dtype, bytes(content), shape, order)


class _Scalar(_Holder):
    """Stand-in for the function creating a NumPy scalar."""

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
    """Unpickler for stand-ins, numbers, strings and containers. Nothing named in the pickle is called."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _STAND_INS[module, name]
        except KeyError:
            raise UntrustedStateError(f"it names {module}.{name}, which no CMA-ES state uses") from None


def _checked(state: dict[str, Any]) -> dict[str, Any]:
    """Check each field against an optimiser from the installed version of cmaes. Return the state."""
    size, population = state.get("_n_dim"), state.get("_popsize")
    if not (_is_count(size) and 0 < size <= _MOST_PARAMETERS and _is_count(population) and population > 1):
        raise UntrustedStateError(f"it has {size!r} parameters and a population of {population!r}")
    import cmaes  # imports SciPy, which takes a second

    own = cmaes.CMA(np.full(size, 0.5), 0.1, np.tile([0.0, 1.0], (size, 1)), population_size=population)
    expected = own.__getstate__()
    if expected.keys() != state.keys():
        names = ", ".join(sorted(map(str, expected.keys() ^ state.keys())))
        raise UntrustedStateError(f"it does not match the installed version of cmaes, with other fields: {names[:200]}")
    shapes = {"_D": (size,), "_B": (size, size)}  # None most of the time
    for name, value in state.items():
        like = expected[name]
        fits = (value is None and like is None) or _shape(value) == shapes.get(name, _shape(like))
        if isinstance(like, int):  # bool included
            fits = type(value) is type(like) and (type(like) is bool or _is_count(value))
        elif fits and value is not None and name not in _NOT_INITIALISED:
            fits = bool(np.isfinite(value).all())
        if not fits:
            raise UntrustedStateError(f"invalid {name}: {str(value)[:80]!r}")
    low, high = state["_bounds"].T
    if not (state["_sigma"] > 0 and (low < high).all()):
        raise UntrustedStateError(f"invalid _sigma {state['_sigma']} or _bounds {str(state['_bounds'])[:80]!r}")
    if not ((low - _ROUNDING <= state["_mean"]) & (state["_mean"] <= high + _ROUNDING)).all():
        raise UntrustedStateError(f"_mean {str(state['_mean'])[:80]!r} is out of bounds")
    return state


def _is_count(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 <= value <= _MOST


def _shape(value: object) -> tuple[int, ...] | None:
    """Return the shape of a float64 array or number, or None for other values."""
    if isinstance(value, np.ndarray):
        return value.shape
    return () if isinstance(value, float) else None
