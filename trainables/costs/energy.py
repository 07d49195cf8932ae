"""The energy that the machine says it used: of processors by RAPL, of a GPU by NVML; nothing where neither tells.

Both count all that the machine does, not one process: beside other work, an epoch's joules are the machine's while the
epoch ran. They add up to the truth over a study only where its trials ran one after another, and alone.
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
    """One counter of RAPL: a processor package, or the memory beside one.

    Args:
        path: its folder.
        highest: microjoules after which its counter begins at 0 again.
    """

    path: Path
    highest: int

    def microjoules(self) -> int:
        """What the counter says.

        Raises:
            OSError: it is not for this user.
        """
        return int((self.path / "energy_uj").read_text())


class EnergyReading(NamedTuple):
    """Counters at one moment; None where they do not tell.

    Args:
        cpu: microjoules of each zone, by its path.
        gpu: millijoules.
    """

    cpu: Mapping[Path, int] | None
    gpu: int | None


class EnergyMeter:
    """Reads this machine's counters.

    Args:
        device: where trials run; a GPU is asked for its own.
        powercap: the folder of the kernel's counters.
    """

    def __init__(self, device: torch.device, powercap: Path = POWERCAP) -> None:
        self._zones = rapl_zones(powercap)
        self._gpu = _gpu_counter(device)

    def read(self) -> EnergyReading:
        """The counters now."""
        cpu: dict[Path, int] | None = None
        if self._zones:
            # A counter may be taken away in between: what is not told is absent, and never a guess.
            with contextlib.suppress(OSError, ValueError):
                cpu = {zone.path: zone.microjoules() for zone in self._zones}
        return EnergyReading(cpu, self._gpu() if self._gpu is not None else None)

    def since(self, before: EnergyReading) -> dict[str, float]:
        """Joules since a reading, by the measure's name; only of what told, then and now.

        A counter that began again is seen to have done so once: an epoch in which a package uses more than its whole
        range (262 kJ on many, an hour of 70 W) is told too little.
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
    """This machine's meter, looked for once a process."""
    return EnergyMeter(device)


def rapl_zones(powercap: Path = POWERCAP) -> tuple[Zone, ...]:
    """The zones to add up: every package and its memory, each counted once; none where they may not be read.

    A package's cores and graphics are in its own counter, the whole board's (`psys`) has the packages in it, and
    `intel-rapl-mmio` is the same package by another way.
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
        return ()  # a part of them would pass for the whole
    return tuple(zones)


def _gpu_counter(device: torch.device) -> Callable[[], int | None] | None:
    if device.type != "cuda":
        return None
    try:
        nvml: Any = importlib.import_module("pynvml")
        nvml.nvmlInit()
        # By its own name: NVML numbers all GPUs, PyTorch only those that this process may see.
        handle = nvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except Exception:  # no such package, no such driver, or a GPU too old to count
        return None

    def counter() -> int | None:
        try:
            return int(nvml.nvmlDeviceGetTotalEnergyConsumption(handle))
        except nvml.NVMLError:
            return None

    return counter
