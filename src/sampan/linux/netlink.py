"""Links, addresses and routes by rtnetlink (linux/rtnetlink.h, linux/if_link.h). A Netlink acts in the netns of the thread that made it."""

import contextlib
import os
import socket
import struct
from dataclasses import dataclass
from typing import Self

_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBI")
_ROUTE = struct.Struct("=BBBBBBBBI")
_ATTRIBUTE = struct.Struct("=HH")

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_NEWADDR, RTM_GETADDR, RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 16, 17, 18, 20, 22, 24, 25, 26
_REQUEST, _ACK, _DUMP, _REPLACE, _EXCL, _CREATE = 0x1, 0x4, 0x300, 0x100, 0x200, 0x400
_DONE, _ERROR = 3, 2
_IFLA_ADDRESS, _IFLA_NAME, _IFLA_MTU, _IFLA_MASTER, _IFLA_LINKINFO, _IFLA_IFALIAS, _IFLA_NET_NS_FD = 1, 3, 4, 10, 18, 20, 28
_IFF_UP = 1
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST = 1, 2, 4


@dataclass(frozen=True, slots=True)
class Link:
    """One network interface. No NamedTuple: that has a method `index`."""

    index: int
    name: str
    master: int
    """The index of its bridge; 0 for none."""
    up: bool


def _attribute(kind: int, payload: bytes) -> bytes:
    return _ATTRIBUTE.pack(4 + len(payload), kind) + payload + b"\0" * (-len(payload) % 4)


def _attributes(data: bytes) -> dict[int, bytes]:
    found = {}
    offset = 0
    while offset + 4 <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < 4:
            break
        found[kind & 0x3FFF] = data[offset + 4 : offset + length]
        offset += length + (-length % 4)
    return found


def _number(value: int) -> bytes:
    return struct.pack("=I", value)


class Netlink:
    """A NETLINK_ROUTE socket. All methods raise OSError with the kernel's errno. Not to be shared between threads."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._socket.settimeout(10)
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._socket.close()

    def _ask(self, kind: int, flags: int, body: bytes) -> list[bytes]:
        self._sequence += 1
        self._socket.send(_HEADER.pack(16 + len(body), kind, _REQUEST | flags, self._sequence, 0) + body)
        found: list[bytes] = []
        while True:
            data = self._socket.recv(1 << 18)
            offset = 0
            while offset + 16 <= len(data):
                length, reply, _flags, sequence, _pid = _HEADER.unpack_from(data, offset)
                payload = data[offset + 16 : offset + length]
                offset += max(16, length + (-length % 4))
                if sequence != self._sequence:
                    continue
                if reply == _ERROR:
                    code = -struct.unpack_from("=i", payload)[0]
                    if code:
                        raise OSError(code, os.strerror(code))
                    return found
                if reply == _DONE:
                    return found
                found.append(payload)

    def links(self) -> list[Link]:
        """All interfaces."""
        found = []
        for payload in self._ask(RTM_GETLINK, _DUMP, _LINK.pack(0, 0, 0, 0, 0)):
            _family, _type, index, flags, _change = _LINK.unpack_from(payload)
            words = _attributes(payload[_LINK.size :])
            master = struct.unpack("=I", words[_IFLA_MASTER])[0] if _IFLA_MASTER in words else 0
            found.append(Link(index, words[_IFLA_NAME].rstrip(b"\0").decode(), master, bool(flags & _IFF_UP)))
        return found

    def addresses(self, index: int) -> list[tuple[str, int]]:
        """IPv4 addresses of an interface as (address, prefix length), the primary one first."""
        found = []
        for payload in self._ask(RTM_GETADDR, _DUMP, _ADDRESS.pack(socket.AF_INET, 0, 0, 0, 0)):
            _family, prefix, _flags, _scope, owner = _ADDRESS.unpack_from(payload)
            if owner == index:
                found.append((socket.inet_ntoa(_attributes(payload[_ADDRESS.size :])[_IFA_LOCAL]), prefix))
        return found

    def routes(self) -> list[tuple[str, int]]:
        """Destinations of all IPv4 routes as (address, prefix length); the default route is 0.0.0.0/0."""
        found = []
        for payload in self._ask(RTM_GETROUTE, _DUMP, _ROUTE.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0)):
            if payload[0] == socket.AF_INET:
                destination = _attributes(payload[_ROUTE.size :]).get(1, b"\0\0\0\0")
                found.append((socket.inet_ntoa(destination), payload[1]))
        return found

    def add_bridge(self, name: str, mac: bytes, mtu: int) -> None:
        """A bridge that is up. FileExistsError when the name is taken."""
        body = _LINK.pack(0, 0, 0, _IFF_UP, _IFF_UP) + _attribute(_IFLA_NAME, name.encode() + b"\0") + _attribute(_IFLA_ADDRESS, mac)
        if mtu:
            body += _attribute(_IFLA_MTU, _number(mtu))
        self._ask(RTM_NEWLINK, _ACK | _CREATE | _EXCL, body + _attribute(_IFLA_LINKINFO, _attribute(1, b"bridge\0")))

    def add_veth(self, name: str, master: int, peer: str, peer_mac: bytes, peer_netns: int, mtu: int) -> None:
        """A veth on a bridge, up, and its peer (down) in the netns of a file descriptor, by one message."""
        size = _attribute(_IFLA_MTU, _number(mtu)) if mtu else b""
        inner = (
            _LINK.pack(0, 0, 0, 0, 0) + _attribute(_IFLA_NAME, peer.encode() + b"\0") + _attribute(_IFLA_ADDRESS, peer_mac) + size
            + _attribute(_IFLA_NET_NS_FD, _number(peer_netns))
        )  # fmt: skip
        info = _attribute(1, b"veth\0") + _attribute(2, _attribute(1, inner))
        body = _LINK.pack(0, 0, 0, _IFF_UP, _IFF_UP) + _attribute(_IFLA_NAME, name.encode() + b"\0") + size
        body += _attribute(_IFLA_MASTER, _number(master)) + _attribute(_IFLA_LINKINFO, info)
        self._ask(RTM_NEWLINK, _ACK | _CREATE | _EXCL, body)

    def set_link(
        self,
        index: int,
        *,
        up: bool | None = None,
        master: int | None = None,
        mac: bytes | None = None,
        name: str | None = None,
        alias: str | None = None,
    ) -> None:
        """Change what is given. alias: free text that goes with the interface, 255 bytes at the most."""
        flags, change = (0, 0) if up is None else (_IFF_UP if up else 0, _IFF_UP)
        body = _LINK.pack(0, 0, index, flags, change)
        if master is not None:
            body += _attribute(_IFLA_MASTER, _number(master))
        if mac is not None:
            body += _attribute(_IFLA_ADDRESS, mac)
        if name is not None:
            body += _attribute(_IFLA_NAME, name.encode() + b"\0")
        if alias is not None:
            body += _attribute(_IFLA_IFALIAS, alias.encode())
        self._ask(RTM_NEWLINK, _ACK, body)

    def delete_link(self, name: str) -> None:
        """Remove an interface; a veth's peer goes with it."""
        self._ask(RTM_DELLINK, _ACK, _LINK.pack(0, 0, 0, 0, 0) + _attribute(_IFLA_NAME, name.encode() + b"\0"))

    def add_address(self, index: int, address: str, prefix: int, broadcast: str) -> None:
        """An IPv4 address. FileExistsError when it is there."""
        packed = socket.inet_aton(address)
        body = _ADDRESS.pack(socket.AF_INET, prefix, 0, 0, index) + _attribute(_IFA_LOCAL, packed) + _attribute(_IFA_ADDRESS, packed)
        self._ask(RTM_NEWADDR, _ACK | _CREATE | _EXCL, body + _attribute(_IFA_BROADCAST, socket.inet_aton(broadcast)))

    def set_default_route(self, gateway: str) -> None:
        """The IPv4 default route, instead of the one there is; "" for none."""
        body = _ROUTE.pack(socket.AF_INET, 0, 0, 0, 254, 3, 0, 1, 0)
        if gateway:
            self._ask(RTM_NEWROUTE, _ACK | _CREATE | _REPLACE, body + _attribute(5, socket.inet_aton(gateway)))
            return
        with contextlib.suppress(ProcessLookupError):  # ESRCH: there is none
            self._ask(RTM_DELROUTE, _ACK, _ROUTE.pack(socket.AF_INET, 0, 0, 0, 254, 0, 255, 0, 0))
