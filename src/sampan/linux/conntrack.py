"""The kernel's table of connections (nfnetlink, linux/netfilter/nfnetlink_conntrack.h): flows of UDP are looked at, and forgotten.

To the kernel a UDP client that goes on sending from its port is one flow, and with the first packet its translation was decided.
"""

import contextlib
import re
import socket
import struct
from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

from sampan.linux.netlink import attribute, attributes

_NETFILTER = 12
_HEADER = struct.Struct("=IHHII")
_GENERIC = struct.Struct("!BBH")
_GET, _DELETE = 0x101, 0x102
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_ERROR, _DONE = 2, 3
_NESTED = 0x8000
_ORIGINAL, _REPLY, _ID, _ZONE, _FILTER = 1, 2, 12, 18, 25
_KEY = {_ORIGINAL: _NESTED, _ID: 0, _ZONE: 0}
_BY_PROTOCOL = 1 << 3
_IP, _PROTOCOL = 1, 2
_UDP = 17
_DESTINATION_PORT = 3
_PORTS = re.compile(re.escape(attribute(_DESTINATION_PORT, bytes(2))[:4]) + b"(..)", re.DOTALL)
"""Where a message has ports that are sent to."""


class Flow(NamedTuple):
    """One UDP flow: where its client sends to, and who answers."""

    asked: str
    asked_port: int
    answers: str
    answers_port: int
    key: bytes
    """What the kernel knows it by."""


def forget_udp(family: int, ports: Collection[int], matches: Callable[[Flow], bool]) -> int:
    """Forget the flows of a family to these ports that match, so that their next packet is looked at anew; how many there were. Blocks.

    Raises OSError, also where the kernel has no such table.
    """
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETFILTER) as asked:
        asked.settimeout(10)
        found = [flow for flow in _flows(asked, family, ports) if flow.asked_port in ports and matches(flow)]
        for number, flow in enumerate(found, 2):
            with contextlib.suppress(FileNotFoundError):  # it has ended
                _send(asked, _DELETE, _ACK, number, family, flow.key)
                list(_answers(asked, number))
    return len(found)


def _send(asked: socket.socket, kind: int, flags: int, sequence: int, family: int, body: bytes = b"") -> None:
    asked.send(_HEADER.pack(20 + len(body), kind, _REQUEST | flags, sequence, 0) + _GENERIC.pack(family, 0, 0) + body)


def _answers(asked: socket.socket, sequence: int) -> Iterator[bytes]:
    while True:
        data = asked.recv(1 << 18)
        offset = 0
        while offset + 16 <= len(data):
            length, kind, _flags, found, _pid = _HEADER.unpack_from(data, offset)
            payload = data[offset + 16 : offset + length]
            offset += max(16, length + (-length % 4))
            if found != sequence:
                continue
            if kind == _ERROR:
                code = -struct.unpack_from("=i", payload)[0]
                if code:
                    raise OSError(code, "connection tracking")
                return
            if kind == _DONE:
                return
            yield payload[_GENERIC.size :]


def _flows(asked: socket.socket, family: int, ports: Collection[int]) -> Iterator[Flow]:
    """Those that may be to these ports: there can be hundreds of thousands of others, which are not worth being taken apart."""
    wanted_ports = {port.to_bytes(2) for port in ports}
    only_udp = attribute(_ORIGINAL | _NESTED, attribute(_PROTOCOL | _NESTED, attribute(1, bytes([_UDP]))))
    wanted = attribute(_FILTER | _NESTED, attribute(1, struct.pack("=I", _BY_PROTOCOL)) + attribute(2, struct.pack("=I", 0)))
    _send(asked, _GET, _DUMP, 1, family, only_udp + wanted)  # Linux before 5.8 knows no filter, and tells of all
    for payload in _answers(asked, 1):
        if wanted_ports.isdisjoint(_PORTS.findall(payload)):
            continue
        words = attributes(payload)
        original, reply = (attributes(words.get(key, b"")) for key in (_ORIGINAL, _REPLY))
        there, back = (attributes(item.get(_PROTOCOL, b"")) for item in (original, reply))
        if there.get(1) != bytes([_UDP]):
            continue
        source, destination = (1, 2) if family == socket.AF_INET else (3, 4)
        key = b"".join(attribute(kind | flag, words[kind]) for kind, flag in _KEY.items() if kind in words)
        yield Flow(
            socket.inet_ntop(family, attributes(original[_IP])[destination]), int.from_bytes(there[3]),
            socket.inet_ntop(family, attributes(reply[_IP])[source]), int.from_bytes(back[2]), key,
        )  # fmt: skip
