"""GPUs per trial: a number, or `auto` for a share measured when the study starts.

A plan with `auto` keeps the word. Each study run resolves it on the available nodes, and records the result in the
journal, because a resumed study may find other hardware.
"""

from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator

from trainables.process.gpu import count_gpus

AUTO: Final = "auto"
MOST_GPUS: Final = 1024
_STEPS: Final = 10_000  # Ray allocates resources in ten-thousandths


def _number(value: Any) -> Any:
    if value == AUTO:
        return value
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = -1.0
    if isinstance(value, bool) or not 0 <= number <= MOST_GPUS:
        raise ValueError(f"give a number of GPUs from 0 to {MOST_GPUS}, a fraction of one such as 0.25, or {AUTO}")
    return number


def on_grid(count: float) -> float:
    """Return a number of cores or GPUs in steps that Ray can allocate.

    Raises:
        ValueError: the number is not a multiple of 0.0001.
    """
    if 0 < count < 1 / _STEPS or abs(count - round(count, 4)) > 1e-9 * max(1.0, count):
        raise ValueError(f"Ray allocates cores and GPUs in steps of 0.0001: give {max(1 / _STEPS, round(count, 4)):g}")
    return count


def _allocatable(gpus: float | str) -> float | str:
    if isinstance(gpus, str):
        return gpus
    if gpus > 1 and not gpus.is_integer():
        raise ValueError("give a fraction of one GPU, such as 0.25, or a whole number of GPUs")
    return on_grid(gpus)


GpusPerTrial = Annotated[float | Literal["auto"], BeforeValidator(_number), AfterValidator(_allocatable)]


def may_use_gpus(gpus: float | str) -> bool:
    """Return whether trials use GPUs, or may use them once `auto` is resolved."""
    return gpus == AUTO or float(gpus) > 0


def planned_devices(gpus: float | str, address: str) -> tuple[str, ...]:
    """Return the devices for the trials, as far as this machine knows.

    Args:
        gpus: GPUs per trial, as given by the user.
        address: cluster address.
    """
    if gpus != AUTO:
        try:
            return ("cuda",) if float(gpus) > 0 else ("cpu",)
        except ValueError:  # rejected by the plan
            return ("cpu",)
    if address != "local":
        return ("cuda", "cpu")
    return ("cuda",) if count_gpus() else ("cpu",)


def share_of(trials: int) -> float:
    """Return the GPUs per trial if `trials` trials share one GPU, rounded down to a step that Ray can allocate."""
    return (_STEPS // trials) / _STEPS


def gpus_in_words(gpus: float | str) -> str:
    """Return the GPUs per trial for a preview."""
    return "a measured share of a GPU (auto)" if isinstance(gpus, str) else f"{gpus:g} GPU"
