"""Who has an address now: told to the neighbours unasked, since they may remember the container that had it before.

As docker does, several times: a bridge drops what comes before it has noticed that its port is in use.
"""

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Sequence
from typing import Final

from sampan.network import sandbox

TIMES: Final = 3
INTERVAL: Final = 1.0
FIRST: Final = 0.1
_BROADCAST = b"\xff" * 6
_ALL_NODES = socket.inet_pton(socket.AF_INET6, "ff02::1")
_ICMPV6 = 58


def arp(mac: bytes, address: str) -> bytes:
    """A gratuitous ARP request (RFC 5227, 2.3), as an Ethernet frame."""
    packed = socket.inet_aton(address)
    return _BROADCAST + mac + struct.pack("!HHHBBH", 0x0806, 1, 0x0800, 6, 4, 1) + mac + packed + bytes(6) + packed


def advertisement(mac: bytes, address: str) -> bytes:
    """An unsolicited neighbour advertisement with the override flag (RFC 4861, 7.2.6), as an Ethernet frame."""
    packed = socket.inet_pton(socket.AF_INET6, address)
    body = struct.pack("!BBHI", 136, 0, 0, 0x20000000) + packed + b"\x02\x01" + mac
    total = sum(struct.unpack(f"!{(40 + len(body)) // 2}H", packed + _ALL_NODES + struct.pack("!II", len(body), _ICMPV6) + body))
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    body = body[:2] + struct.pack("!H", ~total & 0xFFFF) + body[4:]
    header = struct.pack("!IHBB", 6 << 28, len(body), _ICMPV6, 255) + packed + _ALL_NODES
    return b"\x33\x33" + _ALL_NODES[-4:] + mac + struct.pack("!H", 0x86DD) + header + body


def _open(netns: int, interfaces: Sequence[sandbox.Interface]) -> list[tuple[sandbox.Interface, socket.socket]]:
    try:
        return list(zip(interfaces, sandbox.packet_sockets(netns, interfaces), strict=True))
    except OSError:  # it has ended
        return []
    finally:
        os.close(netns)


def _send(interface: sandbox.Interface, sending: socket.socket) -> None:
    frames = [arp(interface.mac, str(interface.address.ip))] if interface.address is not None else []
    frames += [advertisement(interface.mac, str(interface.address6.ip))] if interface.address6 is not None else []
    for frame in frames:
        with contextlib.suppress(OSError):
            sending.send(frame)


async def announce(netns: int, interfaces: Sequence[sandbox.Interface]) -> None:
    """Tell of interfaces in a netns, whose descriptor is closed then. Never raises.

    A macvlan is told of once: it has no bridge to wait for, and an open socket would keep it when its container has ended. An ipvlan has
    its parent's MAC address.
    """
    pairs = await asyncio.to_thread(_open, netns, [interface for interface in interfaces if interface.kind != "ipvlan"])
    try:
        for interface, sending in pairs:
            _send(interface, sending)
            if interface.kind != "veth":
                sending.close()
        for number in range(TIMES):
            await asyncio.sleep(INTERVAL if number else FIRST)
            for interface, sending in pairs:
                _send(interface, sending)
    finally:
        for _, sending in pairs:
            sending.close()
