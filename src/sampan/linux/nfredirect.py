"""A table of nftables that sends what goes to port 53 of an address to other ports there: nfnetlink, without libnftables.

For the name service in a container's netns. libnftables waits with select(2): in a process with more than 1,024 descriptors a new context
of it is the end. It also takes longer to load its cache than these messages take.

Source: linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h; numbers in attributes are big-endian.
"""

import os
import socket
import struct
from collections.abc import Mapping, Sequence

from sampan.linux.netlink import attribute

_NETFILTER = 12
_HEADER = struct.Struct("=IHHII")
_GENERIC = struct.Struct("!BBH")
_REQUEST, _ACK, _CREATE, _APPEND = 0x1, 0x4, 0x400, 0x800
_ERROR = 2
_BEGIN, _END, _NEWTABLE, _DELTABLE, _NEWCHAIN, _NEWRULE = 0x10, 0x11, 0xA00, 0xA02, 0xA03, 0xA06
_SUBSYSTEM, _IPV4 = 10, 2
_NESTED = 0x8000
_OUTPUT, _PRIORITY_DNAT, _ACCEPT, _DNAT = 3, -100, 1, 1
_NETWORK, _TRANSPORT, _L4PROTO, _EQUAL = 1, 2, 16, 0
_PROTOCOLS = {"tcp": 6, "udp": 17}
_DNS = 53


def _nested(kind: int, *parts: bytes) -> bytes:
    return attribute(kind | _NESTED, b"".join(parts))


def _number(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("!i", value))


def _text(kind: int, text: str) -> bytes:
    return attribute(kind, text.encode() + b"\0")


def _expression(name: str, *attributes: bytes) -> bytes:
    return _nested(1, _text(1, name), _nested(2, *attributes))


def _payload(base: int, offset: int, length: int) -> bytes:
    return _expression("payload", _number(1, 1), _number(2, base), _number(3, offset), _number(4, length))


def _equals(value: bytes) -> bytes:
    return _expression("cmp", _number(1, 1), _number(2, _EQUAL), _nested(3, attribute(1, value)))


def _load(register: int, value: bytes) -> bytes:
    return _expression("immediate", _number(1, register), _nested(2, attribute(1, value)))


def _rule(table: str, address: bytes, protocol: str, port: int) -> bytes:
    """`ip daddr ADDRESS meta l4proto PROTOCOL th dport 53 dnat to ADDRESS:PORT`."""
    expressions = (
        _payload(_NETWORK, 16, 4), _equals(address),
        _expression("meta", _number(1, 1), _number(2, _L4PROTO)), _equals(bytes([_PROTOCOLS[protocol]])),
        _payload(_TRANSPORT, 2, 2), _equals(struct.pack("!H", _DNS)),
        _load(1, address), _load(2, struct.pack("!H", port)),
        _expression("nat", _number(1, _DNAT), _number(2, _IPV4), _number(3, 1), _number(5, 2)),
    )  # fmt: skip
    return _text(1, table) + _text(2, "output") + _nested(4, *expressions)


def messages(table: str, address: str, ports: Mapping[str, int]) -> Sequence[tuple[int, int, bytes]]:
    """(type, flags, attributes) of what makes the table anew. ports: by protocol."""
    hook = _nested(4, _number(1, _OUTPUT), _number(2, _PRIORITY_DNAT))
    chain = _text(1, table) + _text(3, "output") + hook + _number(5, _ACCEPT) + _text(7, "nat")
    packed = socket.inet_aton(address)
    return [
        (_NEWTABLE, _CREATE, _text(1, table)),
        (_DELTABLE, 0, _text(1, table)),
        (_NEWTABLE, _CREATE, _text(1, table)),
        (_NEWCHAIN, _CREATE, chain),
        *((_NEWRULE, _CREATE | _APPEND, _rule(table, packed, protocol, port)) for protocol, port in ports.items()),
    ]


def redirect_dns(table: str, address: str, ports: Mapping[str, int]) -> None:
    """Send what goes to port 53 of an IPv4 address in this thread's netns to these ports of it, by protocol. Raises OSError."""
    asked = messages(table, address, ports)
    batch = [_message(_BEGIN, 0, 0, b"", family=0, resource=_SUBSYSTEM)]
    batch += [_message(kind, flags | _ACK, number, body) for number, (kind, flags, body) in enumerate(asked, 1)]
    batch.append(_message(_END, 0, 0, b"", family=0, resource=_SUBSYSTEM))
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETFILTER) as kernel:
        kernel.settimeout(10)
        kernel.send(b"".join(batch))
        waiting = len(asked)
        while waiting:
            data = kernel.recv(1 << 16)
            offset = 0
            while offset + 20 <= len(data):
                length, kind = struct.unpack_from("=IH", data, offset)
                if kind == _ERROR:
                    waiting -= 1
                    code = -struct.unpack_from("=i", data, offset + 16)[0]
                    if code:
                        raise OSError(code, os.strerror(code))
                offset += max(16, length + (-length % 4))


def _message(kind: int, flags: int, number: int, body: bytes, *, family: int = _IPV4, resource: int = 0) -> bytes:
    head = _GENERIC.pack(family, 0, resource)
    return _HEADER.pack(_HEADER.size + len(head) + len(body), kind, _REQUEST | flags, number, 0) + head + body
