"""RAPL's files in the layout of Linux, in a folder of the test."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from tests.trainables.conftest import small_config
from trainables.costs.energy import EnergyMeter, EnergyReading, rapl_zones
from trainables.costs.epoch import run_epoch
from trainables.packing.pack import Pack
from trainables.run.run import DistillationRun

CPU = torch.device("cpu")
RANGE = 262_143_328_850


@pytest.fixture
def powercap(tmp_path):
    """Write the files of RAPL's zones and return the folder."""
    for name, zone in {
        "intel-rapl:0": "package-0",
        "intel-rapl:0:0": "core",
        "intel-rapl:0:1": "dram",
        "intel-rapl:1": "package-1",
        "intel-rapl:2": "psys",
        "intel-rapl-mmio:0": "package-0",
    }.items():
        folder = tmp_path / name
        folder.mkdir()
        (folder / "name").write_text(f"{zone}\n")
        (folder / "max_energy_range_uj").write_text(f"{RANGE}\n")
        count(tmp_path, name, 1_000_000)
    (tmp_path / "intel-rapl").mkdir()  # the driver's folder, which has no counter
    return tmp_path


def count(powercap: Path, zone: str, microjoules: int) -> None:
    (powercap / zone / "energy_uj").write_text(f"{microjoules}\n")


def test_packages_and_their_memory_are_counted_once_each(powercap):
    assert [zone.path.name for zone in rapl_zones(powercap)] == ["intel-rapl:0", "intel-rapl:0:1", "intel-rapl:1"]


def test_joules_are_what_all_counters_went_on_by(powercap):
    meter = EnergyMeter(CPU, powercap)
    before = meter.read()
    for zone, microjoules in (("intel-rapl:0", 3_500_000), ("intel-rapl:0:1", 1_250_000), ("intel-rapl:2", 9_000_000)):
        count(powercap, zone, microjoules)
    assert meter.since(before) == {"cost/cpu_energy_joules": pytest.approx(2.5 + 0.25)}


def test_a_counter_that_began_again_went_on_by_what_was_left_and_what_came(powercap):
    count(powercap, "intel-rapl:1", RANGE - 2_000_000)
    meter = EnergyMeter(CPU, powercap)
    before = meter.read()
    count(powercap, "intel-rapl:1", 500_000)
    assert meter.since(before) == {"cost/cpu_energy_joules": pytest.approx(2.5)}


def test_a_machine_that_does_not_tell_has_no_energy(tmp_path, powercap):
    silent = EnergyMeter(CPU, tmp_path / "nowhere")
    assert silent.read() == EnergyReading(None, None)
    assert silent.since(silent.read()) == {}
    (powercap / "intel-rapl:1" / "energy_uj").unlink()
    assert rapl_zones(powercap) == ()


def test_a_counter_that_goes_away_gives_nothing_rather_than_a_part(powercap):
    meter = EnergyMeter(CPU, powercap)
    before = meter.read()
    (powercap / "intel-rapl:1" / "energy_uj").unlink()
    assert meter.since(before) == {}
    count(powercap, "intel-rapl:1", 5)
    assert meter.since(EnergyReading(None, None)) == {}


class PretendedNVML(ModuleType):
    """Stand-in for the `pynvml` module with one GPU, because the test needs no GPU."""

    NVMLError = RuntimeError

    def __init__(self) -> None:
        super().__init__("pynvml")
        self.millijoules = 70_000

    def nvmlInit(self) -> None: ...

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        assert uuid == "GPU-1234"
        return uuid

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:
        if self.millijoules < 0:
            raise self.NVMLError
        return self.millijoules


def test_a_gpus_energy_is_what_nvml_counts(tmp_path, monkeypatch):
    nvml = PretendedNVML()
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="1234"))
    meter = EnergyMeter(torch.device("cuda", 1), tmp_path)
    before = meter.read()
    nvml.millijoules += 12_500
    assert meter.since(before) == {"cost/gpu_energy_joules": pytest.approx(12.5)}
    nvml.millijoules = -1
    assert meter.since(before) == {}
    assert EnergyMeter(torch.device("cuda", 1), tmp_path).read().gpu is None
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert EnergyMeter(torch.device("cuda", 1), tmp_path).read().gpu is None


def test_an_epoch_has_the_energy_that_the_counters_tell_and_a_pack_shares_it_out(
    powercap, digits, teacher, monkeypatch
):
    meter = EnergyMeter(CPU, powercap)
    for module in ("costs.epoch", "packing.pack"):
        monkeypatch.setattr(f"trainables.{module}.energy_meter", lambda device: meter)
    train_epoch, spent = DistillationRun.train_epoch, 4_000_000

    def burn(self):
        count(powercap, "intel-rapl:0", 1_000_000 + spent)
        return train_epoch(self)

    monkeypatch.setattr(DistillationRun, "train_epoch", burn)
    run = DistillationRun(small_config(), digits, teacher)
    assert run_epoch(run)["cost/cpu_energy_joules"] == pytest.approx(4.0)

    count(powercap, "intel-rapl:0", 1_000_000)
    pack = Pack.of_configs([small_config(seed=seed) for seed in range(4)], digits, teacher)
    train_pack = pack.train_epoch
    monkeypatch.setattr(pack, "train_epoch", lambda: (count(powercap, "intel-rapl:0", 5_000_000), train_pack())[1])
    for measures in pack.run_epoch().measures.values():
        assert measures["cost/cpu_energy_joules"] == pytest.approx(1.0)
