"""Forward Ethernet frames between two network interfaces, with a delay and random loss. Needs root and Linux.

The kernel's own emulation (netem) is missing in many kernels. This forwarder needs packet sockets alone.
"""

import argparse
import array
import fcntl
import random
import select
import socket
import struct
import time
from collections import deque

_ALL_PROTOCOLS = 0x0003
_SIOCETHTOOL = 0x8946
_TO_TURN_OFF = (0x17, 0x1F, 0x24, 0x2C)  # checksums by the card, and TCP, generic segmentation, and receive offload
_LARGEST = 65_536
_OUTGOING = 4  # packet type: sent by this computer
_SEED = 7


def turn_off_offload(interface: str) -> None:
    """Let the kernel cut packets to the link's size and complete checksums."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for command in _TO_TURN_OFF:
            value = array.array("B", struct.pack("=II", command, 0))
            request = struct.pack("16sP", interface.encode(), value.buffer_info()[0])
            fcntl.ioctl(control, _SIOCETHTOOL, request)


def forward(one: str, other: str, *, delay: float, loss: float) -> None:
    """Forward frames in both directions until this process is killed.

    Args:
        one: name of an interface.
        other: name of the other interface.
        delay: seconds from the arrival of a frame to the forwarding.
        loss: share of lost frames.
    """
    sockets = []
    for name in (one, other):
        each = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL_PROTOCOLS))
        each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        each.bind((name, 0))
        sockets.append(each)
    to = {sockets[0]: sockets[1], sockets[1]: sockets[0]}
    chance, waiting = random.Random(_SEED), deque()
    while True:
        left = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        for each in select.select(sockets, [], [], left)[0]:
            frame, address = each.recvfrom(_LARGEST)
            if address[2] != _OUTGOING and chance.random() >= loss:
                waiting.append((time.monotonic() + delay, to[each], frame))
        while waiting and waiting[0][0] <= time.monotonic():
            _, target, frame = waiting.popleft()
            try:
                target.send(frame)
            except OSError:  # the interface is down, or the frame is too long: lost, as on a real wire
                continue


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plain", help="interface to turn off offload for")
    parser.add_argument("--between", nargs=4, metavar=("ONE", "OTHER", "DELAY", "LOSS"))
    given = parser.parse_args()
    if given.plain:
        turn_off_offload(given.plain)
    if given.between:
        one, other, delay, loss = given.between
        forward(one, other, delay=float(delay), loss=float(loss))


if __name__ == "__main__":
    main()
