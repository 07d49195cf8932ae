"""Simulated machines on one computer, which share no writable folder.

Each machine is a process with Linux namespaces of its own: network address, host name, processes, and mounts. Its home
folder, temporary folders and shared memory are new and empty. Everything else is visible and read-only, so installed
programs are the same on all machines. The machines are connected by virtual Ethernet links to a bridge in one more
network namespace.

The namespaces have no names. They disappear together with the processes in them, and those end with this process, even
if it is killed. Nothing has to be removed afterwards.
"""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import psutil

from tests.conftest import S3_ENVIRONMENT
from tests.study.servers import require

ROOT: Final = Path(__file__).parents[2]
HOME: Final = Path("/home/machine")
_NETWORK: Final = "10.77.0"
_BRIDGE: Final = "bridge"
_SECONDS_TO_START: Final = 30.0
_PROGRAMS: Final = ("unshare", "nsenter", "setpriv", "ip", "mount")
_WIRE: Final = Path(__file__).with_name("slow_wire.py")
# Ends the namespace's processes with this process.
_ISOLATED: Final = ("setpriv", "--pdeathsig", "KILL", "unshare", "--fork", "--kill-child=KILL")
_INIT: Final = """
set -e
mount --make-rprivate /
for folder in /tmp /var/tmp /home /dev/shm; do mount -t tmpfs -o size=8g,mode=1777 tmpfs $folder; done
mkdir /home/machine
printf '%s' "$HOSTS" > /home/hosts
mount --bind /home/hosts /etc/hosts
echo 'nameserver 127.0.0.1' > /home/resolv.conf  # there is none, and a refused connection is quicker than none
mount --bind /home/resolv.conf /etc/resolv.conf
{mounts}
mount -o remount,ro,bind /
hostname "$NAME"
touch /home/ready
# The first process of a machine collects ended orphans.
while :; do sleep 1; done
"""


def require_machines() -> None:
    """Skip the test with a reason if machines cannot be simulated here. Fail instead if programs are required."""
    missing = [name for name in _PROGRAMS if shutil.which(name) is None]
    require(not missing, f"{', '.join(missing)} (apt-get install util-linux iproute2)")
    allowed = os.geteuid() == 0 and subprocess.run(["unshare", "--net", "true"], check=False).returncode == 0
    require(allowed, "root, to create network namespaces")


class Machine:
    """One simulated machine.

    Args:
        name: host name.
        number: last part of the address.
        hosts: content of `/etc/hosts`.
        mounts: further shell commands, run before the file system becomes read-only.
        environment: environment variables for all commands.
    """

    def __init__(self, name: str, number: int, *, hosts: str, mounts: str, environment: Mapping[str, str]) -> None:
        self.name = name
        self.address = f"{_NETWORK}.{number}"
        self.port_name = f"port{number}"
        self.environment = dict(environment)
        isolated = [*_ISOLATED, "--net", "--uts", "--ipc", "--mount", "--pid", "--mount-proc"]
        self._holder = subprocess.Popen(
            [*isolated, "bash", "-c", _INIT.format(mounts=mounts)], env={**os.environ, "HOSTS": hosts, "NAME": name}
        )
        self.pid = _child_of(self._holder)
        deadline = time.monotonic() + _SECONDS_TO_START
        while not (self.root / "home/ready").exists():
            assert self._holder.poll() is None, f"machine {name} did not start"
            assert time.monotonic() < deadline, f"machine {name} did not start in {_SECONDS_TO_START:g} s"
            time.sleep(0.02)

    @property
    def root(self) -> Path:
        """The machine's file system as seen from outside."""
        return Path(f"/proc/{self.pid}/root")

    @property
    def home(self) -> Path:
        """The machine's home folder as seen from outside."""
        return self.root / HOME.relative_to("/")

    def start(self, *command: str | Path, **environment: str) -> "Process":
        """Start a command on this machine in the home folder. Standard output and error go to a file."""
        return Process(self, [str(each) for each in command], environment)

    def run(self, *command: str | Path, timeout: float = 120, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command on this machine, and return exit code and text."""
        process = self.start(*command, **environment)
        code = process.wait(timeout)
        return subprocess.CompletedProcess(process.command, code, process.said, process.said)

    def shell(self, line: str, *, timeout: float = 240, **environment: str) -> str:
        """Run a command line as typed on this machine. Fail unless it succeeds. Return the text."""
        done = self.run("bash", "-c", line, timeout=timeout, **environment)
        assert done.returncode == 0, f"{self.name}$ {line}\n{done.stdout}"
        return done.stdout

    def processes(self, *names: str) -> list[psutil.Process]:
        """Return the machine's processes with one of these texts in the command line, or all of them."""
        found, own = [], Path(f"/proc/{self.pid}/ns/pid").readlink()
        for each in psutil.process_iter():
            with suppress(psutil.Error, OSError):  # the process has ended
                if Path(f"/proc/{each.pid}/ns/pid").readlink() != own:
                    continue
                if not names or any(name in " ".join(each.cmdline()) for name in names):
                    found.append(each)
        return found

    def end(self) -> None:
        """End all processes of this machine. It then no longer exists."""
        self._holder.kill()
        self._holder.wait()


class Process:
    """A command running on a machine."""

    _count = 0

    def __init__(self, machine: Machine, command: Sequence[str], environment: Mapping[str, str]) -> None:
        Process._count += 1
        self.machine = machine
        self.command = command
        self._log = machine.home / f"command-{Process._count}.log"
        inside = ["nsenter", f"--target={machine.pid}", "--net", "--uts", "--ipc", "--mount", "--pid"]
        with self._log.open("wb") as log:
            self._entered = subprocess.Popen(
                [*inside, f"--wdns={HOME}", *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**machine.environment, **environment},
                start_new_session=True,
            )

    @property
    def said(self) -> str:
        """Text on standard output and error so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def poll(self) -> int | None:
        """Return the exit code, or None while the command runs."""
        return self._entered.poll()

    def wait(self, timeout: float) -> int:
        """Wait for the end, and return the exit code. Kill the command and fail if it takes longer."""
        try:
            return self._entered.wait(timeout)
        except subprocess.TimeoutExpired:
            self.send(signal.SIGKILL)
            self._entered.kill()
            self._entered.wait()
            raise AssertionError(
                f"{self.machine.name}$ {shlex.join(self.command)} took over {timeout:g} s:\n{self.said}"
            ) from None

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the command."""
        for child in psutil.Process(self._entered.pid).children():
            child.send_signal(number)


class Network:
    """A bridge, and the machines connected to it. Use `network()`.

    Args:
        names: names of all machines that may ever be added.
        environment: environment variables for all commands, in addition to a minimum.
    """

    def __init__(self, names: Sequence[str], environment: Mapping[str, str]) -> None:
        self._numbers = {name: number for number, name in enumerate(names, start=2)}
        self._environment = {
            "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "HOME": str(HOME),
            "LANG": "C.UTF-8",
            "COLUMNS": "120",
            "PYTHONPATH": str(ROOT),
            **S3_ENVIRONMENT,
            **environment,
        }
        self._switch = subprocess.Popen([*_ISOLATED, "--net", "sleep", "infinity"])
        self._pid = _child_of(self._switch)
        self._wires: dict[str, subprocess.Popen[bytes]] = {}
        self.machines: dict[str, Machine] = {}
        self._ip(f"link add {_BRIDGE} type bridge", f"link set {_BRIDGE} up", f"addr add {_NETWORK}.1/24 dev {_BRIDGE}")

    def add(self, name: str, *, mounts: str = "") -> Machine:
        """Start a machine and connect it.

        Args:
            name: one of the network's names.
            mounts: further shell commands for changes of the machine's file system.
        """
        addresses = "".join(f"{_NETWORK}.{number} {each}\n" for each, number in self._numbers.items())
        machine = Machine(
            name,
            self._numbers[name],
            hosts=f"127.0.0.1 localhost\n{addresses}",
            mounts=mounts,
            environment=self._environment,
        )
        self.machines[name] = machine
        self._ip(
            f"link add {machine.port_name} type veth peer name eth0 netns {machine.pid}",
            f"link set {machine.port_name} master {_BRIDGE} up",
        )
        for line in (
            "link set lo up",
            "link set eth0 up",
            f"addr add {machine.address}/24 dev eth0",
            f"route add default via {_NETWORK}.1",
        ):
            _inside(machine.pid, "ip", *line.split())
        return machine

    def cut(self, machine: Machine) -> None:
        """Cut a machine's link. Packets disappear without an error, as with a cable pulled out of a far switch."""
        self._ip(f"link set {machine.port_name} nomaster")

    def mend(self, machine: Machine) -> None:
        """Restore a machine's link, after `cut` or `slow`."""
        if (wire := self._wires.pop(machine.name, None)) is not None:
            wire.kill()
            wire.wait()
            self._ip(f"link del {_end(machine)}")
        self._ip(f"link set {machine.port_name} master {_BRIDGE}")

    @contextmanager
    def cut_for(self, machine: Machine, seconds: float) -> Iterator[None]:
        """Cut a link, run the body, and restore the link as soon as `seconds` have passed."""
        began = time.monotonic()
        self.cut(machine)
        try:
            yield
            time.sleep(max(0.0, began + seconds - time.monotonic()))
        finally:
            self.mend(machine)

    def slow(self, machine: Machine, *, seconds: float, loss: float) -> None:
        """Delay all packets of a machine in both directions, and lose some of them.

        Args:
            machine: the machine.
            seconds: delay in each direction.
            loss: share of lost packets, from 0 to 1.
        """
        near, far = f"{_end(machine)}", f"{_end(machine)}far"
        self._ip(
            f"link set {machine.port_name} nomaster",
            f"link add {near} type veth peer name {far}",
            f"link set {near} up",
            f"link set {far} master {_BRIDGE} up",
        )
        # A forwarder sees whole packets only if neither side leaves cutting and checksums to the network card.
        _inside(machine.pid, sys.executable, _WIRE, "--plain", "eth0")
        wire = [sys.executable, _WIRE, "--plain", far, "--between", machine.port_name, near]
        self._wires[machine.name] = subprocess.Popen(
            ["nsenter", f"--target={self._pid}", "--net", *map(str, wire), str(seconds), str(loss)]
        )

    def close(self) -> None:
        """End all machines."""
        for wire in self._wires.values():
            wire.kill()
            wire.wait()
        for machine in self.machines.values():
            machine.end()
        self._switch.kill()
        self._switch.wait()

    def _ip(self, *lines: str) -> None:
        for line in lines:
            _inside(self._pid, "ip", *line.split())


@contextmanager
def network(names: Sequence[str], **environment: str) -> Iterator[Network]:
    """Yield a network without machines, and end all machines afterwards.

    Args:
        names: names of all machines that may be added.
        environment: environment variables for all commands on the machines.
    """
    require_machines()
    created = Network(names, environment)
    try:
        yield created
    finally:
        created.close()


def _end(machine: Machine) -> str:
    return f"end{machine.port_name}"


def _child_of(process: "subprocess.Popen[Any]") -> int:
    """Return the identifier of a process's first child, after waiting for it."""
    deadline = time.monotonic() + _SECONDS_TO_START
    while True:
        for child in psutil.Process(process.pid).children():
            return child.pid
        assert process.poll() is None, f"{process.args} ended with {process.poll()}"
        assert time.monotonic() < deadline, f"{process.args} started no process"
        time.sleep(0.02)


def _inside(pid: int, *command: str | Path) -> None:
    """Run a command in the network of a process, with this computer's files."""
    subprocess.run(["nsenter", f"--target={pid}", "--net", *map(str, command)], check=True)
