"""Energy use of the machine: RAPL for processors, NVML for a GPU; no measure where the counters are not readable.

Both counters cover the whole machine, not one process. An epoch's joules are therefore the machine's energy use during
the epoch, including other work. The sum over a study is correct only if the trials ran one after another on an
otherwise idle machine.
"""

import contextlib
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch

from trainables.spec.measures import CPU_ENERGY, GPU_ENERGY

POWERCAP: Final = Path("/sys/class/powercap")
_MICRO: Final = 1e-6
_MILLI: Final = 1e-3


@dataclass(frozen=True)
class Zone:
    """RAPL counter of a processor package, or of the memory attached to a package.

    Args:
        path: counter folder.
        highest: microjoules at which the counter wraps around to 0.
    """

    path: Path
    highest: int

    def microjoules(self) -> int:
        """Return the current counter value.

        Raises:
            OSError: if this user may not read the counter.
        """
        return int((self.path / "energy_uj").read_text())


class EnergyReading(NamedTuple):
    """Counter values at one moment; None for counters that could not be read.

    Args:
        cpu: microjoules of each zone, by zone path.
        gpu: millijoules.
    """

    cpu: Mapping[Path, int] | None
    gpu: int | None


class EnergyMeter:
    """Reader of this machine's energy counters.

    Args:
        device: trial device; for a GPU, the GPU's counter is read as well.
        powercap: folder with the kernel's power counters.
    """

    def __init__(self, device: torch.device, powercap: Path = POWERCAP) -> None:
        self._zones = rapl_zones(powercap)
        self._gpu = _gpu_counter(device)

    def read(self) -> EnergyReading:
        """Read the counters now."""
        cpu: dict[Path, int] | None = None
        if self._zones:
            # A counter may disappear during a study. The value is then missing and never estimated.
            with contextlib.suppress(OSError, ValueError):
                cpu = {zone.path: zone.microjoules() for zone in self._zones}
        return EnergyReading(cpu, self._gpu() if self._gpu is not None else None)

    def since(self, before: EnergyReading) -> dict[str, float]:
        """Return the joules used since a reading, by measure name, for counters readable at both times.

        At most one wrap-around per counter is detected. If a package uses more than the whole counter range within an
        epoch (262 kJ on many machines, an hour at 70 W), the result is too low.
        """
        now = self.read()
        joules = {}
        if now.cpu is not None and before.cpu is not None:
            used = ((now.cpu[z.path] - before.cpu[z.path], z.highest) for z in self._zones)
            joules[CPU_ENERGY] = _MICRO * sum(each if each >= 0 else each + highest for each, highest in used)
        if now.gpu is not None and before.gpu is not None:
            joules[GPU_ENERGY] = _MILLI * (now.gpu - before.gpu)
        return joules


@cache
def energy_meter(device: torch.device) -> EnergyMeter:
    """Return this machine's meter, created once per process and device."""
    return EnergyMeter(device)


def rapl_zones(powercap: Path = POWERCAP) -> tuple[Zone, ...]:
    """Return the zones to add up: every package and every package's memory, once each; empty if a zone is not readable.

    Other zones are skipped because their energy is already counted. A package counter includes the cores and the
    graphics unit, the board counter (`psys`) includes the packages, and `intel-rapl-mmio` is a second interface to the
    package counters.
    """
    zones = []
    try:
        for folder in sorted(powercap.glob("intel-rapl:*")):
            name = (folder / "name").read_text().strip()
            if name.startswith("package") or name == "dram":
                zone = Zone(folder, int((folder / "max_energy_range_uj").read_text()))
                zone.microjoules()
                zones.append(zone)
    except (OSError, ValueError):
        return ()  # a partial sum would be mistaken for the total
    return tuple(zones)


def _gpu_counter(device: torch.device) -> Callable[[], int | None] | None:
    if device.type != "cuda":
        return None
    try:
        nvml: Any = importlib.import_module("pynvml")
        nvml.nvmlInit()
        # By UUID, because NVML numbers all GPUs and PyTorch numbers only the GPUs visible to this process.
        handle = nvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except Exception:  # package or driver is missing, or the GPU is too old to count energy
        return None

    def counter() -> int | None:
        try:
            return int(nvml.nvmlDeviceGetTotalEnergyConsumption(handle))
        except nvml.NVMLError:
            return None

    return counter
