"""Links, addresses and routes by rtnetlink (linux/rtnetlink.h, linux/if_link.h). A Netlink acts in the netns of the thread that made it."""

import contextlib
import os
import socket
import struct
from typing import NamedTuple, Self

_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBI")
_ROUTE = struct.Struct("=BBBBBBBBI")
_ATTRIBUTE = struct.Struct("=HH")

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_NEWADDR, RTM_GETADDR, RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 16, 17, 18, 20, 22, 24, 25, 26
_REQUEST, _ACK, _DUMP, _REPLACE, _EXCL, _CREATE = 0x1, 0x4, 0x300, 0x100, 0x200, 0x400
_DONE, _ERROR = 3, 2
_IFLA_ADDRESS, _IFLA_NAME, _IFLA_MTU, _IFLA_LINK, _IFLA_MASTER, _IFLA_LINKINFO, _IFLA_IFALIAS, _IFLA_NET_NS_FD = 1, 3, 4, 5, 10, 18, 20, 28
_IFLA_LINK_NETNSID = 37
_IFF_UP = 1
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST, _IFA_F_NODAD = 1, 2, 4, 2
_RTA_OIF, _RTA_GATEWAY = 4, 5
_RT_SCOPE_LINK = 253
_SOL_NETLINK, _GET_STRICT_CHECK = 270, 12
MACVLAN_MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}
"""linux/if_link.h, enum macvlan_mode."""
IPVLAN_MODES = {"l2": 0, "l3": 1, "l3s": 2}
"""linux/if_link.h, enum ipvlan_mode."""
IPVLAN_FLAGS = {"bridge": 0, "private": 1, "vepa": 2}
"""linux/if_link.h, IPVLAN_F_*."""


class Link(NamedTuple):
    """One network interface."""

    ifindex: int
    name: str
    master: int
    """The index of its bridge; 0 for none."""
    up: bool
    alias: str = ""
    """Free text that somebody gave it."""
    is_sub: bool = False
    """Whether it is a macvlan or ipvlan whose parent is in another netns."""


def attribute(kind: int, payload: bytes) -> bytes:
    """One, padded, to stand in a message."""
    return _ATTRIBUTE.pack(4 + len(payload), kind) + payload + b"\0" * (-len(payload) % 4)


def attributes(data: bytes) -> dict[int, bytes]:
    """A message's attributes by their numbers; of several with one number the last."""
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
        with contextlib.suppress(OSError):  # Linux 4.20: addresses of one interface without a look at all others
            self._socket.setsockopt(_SOL_NETLINK, _GET_STRICT_CHECK, 1)
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
            words = attributes(payload[_LINK.size :])
            master = struct.unpack("=I", words[_IFLA_MASTER])[0] if _IFLA_MASTER in words else 0
            alias = words.get(_IFLA_IFALIAS, b"").rstrip(b"\0").decode(errors="replace")
            kind = attributes(words.get(_IFLA_LINKINFO, b"")).get(1, b"").rstrip(b"\0")
            is_sub = kind in (b"macvlan", b"ipvlan") and _IFLA_LINK_NETNSID in words
            name = words[_IFLA_NAME].rstrip(b"\0").decode(errors="replace")  # the kernel takes any bytes
            found.append(Link(index, name, master, bool(flags & _IFF_UP), alias, is_sub))
        return found

    def addresses(self, index: int, family: int = socket.AF_INET) -> list[tuple[str, int]]:
        """Addresses of an interface as (address, prefix length), the primary one first; of IPv6 the global ones."""
        found = []
        for payload in self._ask(RTM_GETADDR, _DUMP, _ADDRESS.pack(family, 0, 0, 0, index)):
            kind, prefix, _flags, scope, owner = _ADDRESS.unpack_from(payload)
            words = attributes(payload[_ADDRESS.size :])
            if owner == index and kind == family and (scope == 0 or family == socket.AF_INET):
                found.append((socket.inet_ntop(family, words[_IFA_LOCAL if family == socket.AF_INET else _IFA_ADDRESS]), prefix))
        return found

    def own_addresses(self, family: int) -> set[str]:
        """Every address of this netns in a family."""
        found = set()
        for payload in self._ask(RTM_GETADDR, _DUMP, _ADDRESS.pack(family, 0, 0, 0, 0)):
            if payload[0] == family:
                words = attributes(payload[_ADDRESS.size :])
                found.add(socket.inet_ntop(family, words.get(_IFA_LOCAL) or words[_IFA_ADDRESS]))
        return found

    def routes(self, family: int = socket.AF_INET) -> list[tuple[str, int]]:
        """Destinations of all routes of a family as (address, prefix length); that of the default route is all zeros with length 0."""
        nowhere = bytes(4 if family == socket.AF_INET else 16)
        return [
            (socket.inet_ntop(family, attributes(payload[_ROUTE.size :]).get(1, nowhere)), payload[1])
            for payload in self._ask(RTM_GETROUTE, _DUMP, _ROUTE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0))
            if payload[0] == family
        ]

    def add_bridge(self, name: str, mac: bytes, mtu: int) -> None:
        """A bridge that is up. FileExistsError when the name is taken."""
        body = _LINK.pack(0, 0, 0, _IFF_UP, _IFF_UP) + attribute(_IFLA_NAME, name.encode() + b"\0") + attribute(_IFLA_ADDRESS, mac)
        if mtu:
            body += attribute(_IFLA_MTU, _number(mtu))
        self._ask(RTM_NEWLINK, _ACK | _CREATE | _EXCL, body + attribute(_IFLA_LINKINFO, attribute(1, b"bridge\0")))

    def add_veth(self, name: str, master: int, peer: str, peer_mac: bytes, peer_netns: int, mtu: int) -> None:
        """A veth on a bridge, up, and its peer (down) in the netns of a file descriptor, by one message."""
        size = attribute(_IFLA_MTU, _number(mtu)) if mtu else b""
        inner = (
            _LINK.pack(0, 0, 0, 0, 0) + attribute(_IFLA_NAME, peer.encode() + b"\0") + attribute(_IFLA_ADDRESS, peer_mac) + size
            + attribute(_IFLA_NET_NS_FD, _number(peer_netns))
        )  # fmt: skip
        info = attribute(1, b"veth\0") + attribute(2, attribute(1, inner))
        body = _LINK.pack(0, 0, 0, _IFF_UP, _IFF_UP) + attribute(_IFLA_NAME, name.encode() + b"\0") + size
        body += attribute(_IFLA_MASTER, _number(master)) + attribute(_IFLA_LINKINFO, info)
        self._ask(RTM_NEWLINK, _ACK | _CREATE | _EXCL, body)

    def add_vlan(self, name: str, parent: int, number: int) -> None:
        """What of an interface's packets has the tag of a VLAN, as an interface that is up."""
        data = attribute(1, struct.pack("=H", number))
        self._add_upper(name, "vlan", attribute(_IFLA_LINK, _number(parent)), attribute(2, data))

    def add_dummy(self, name: str) -> None:
        """An interface that leads nowhere, up."""
        self._add_upper(name, "dummy", b"", b"")

    def _add_upper(self, name: str, kind: str, body: bytes, data: bytes) -> None:
        body = _LINK.pack(0, 0, 0, _IFF_UP, _IFF_UP) + attribute(_IFLA_NAME, name.encode() + b"\0") + body
        self._ask(RTM_NEWLINK, _ACK | _CREATE | _EXCL, body + attribute(_IFLA_LINKINFO, attribute(1, kind.encode() + b"\0") + data))

    def add_sub(self, name: str, parent: int, kind: str, mode: str, mac: bytes = b"", netns: int = -1, flag: str = "bridge") -> None:
        """An interface of another one (down): a macvlan or ipvlan, in the netns of a file descriptor or in this one.

        mode: of MACVLAN_MODES or IPVLAN_MODES. mac: a macvlan's own; an ipvlan has its parent's. flag: an ipvlan's, of IPVLAN_FLAGS.
        """
        body = _LINK.pack(0, 0, 0, 0, 0) + attribute(_IFLA_NAME, name.encode() + b"\0") + attribute(_IFLA_LINK, _number(parent))
        if netns >= 0:
            body += attribute(_IFLA_NET_NS_FD, _number(netns))
        if kind == "macvlan":
            body += attribute(_IFLA_ADDRESS, mac) if mac else b""
            wanted = attribute(1, _number(MACVLAN_MODES[mode]))
        else:
            wanted = attribute(1, struct.pack("=H", IPVLAN_MODES[mode]))
            wanted += attribute(2, struct.pack("=H", IPVLAN_FLAGS[flag])) if IPVLAN_FLAGS[flag] else b""
        info = attribute(1, kind.encode() + b"\0") + attribute(2, wanted)
        self._ask(RTM_NEWLINK, _ACK | _CREATE | _EXCL, body + attribute(_IFLA_LINKINFO, info))

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
            body += attribute(_IFLA_MASTER, _number(master))
        if mac is not None:
            body += attribute(_IFLA_ADDRESS, mac)
        if name is not None:
            body += attribute(_IFLA_NAME, name.encode() + b"\0")
        if alias is not None:
            body += attribute(_IFLA_IFALIAS, alias.encode())
        self._ask(RTM_NEWLINK, _ACK, body)

    def delete_link(self, name: str) -> None:
        """Remove an interface; a veth's peer goes with it."""
        self._ask(RTM_DELLINK, _ACK, _LINK.pack(0, 0, 0, 0, 0) + attribute(_IFLA_NAME, name.encode() + b"\0"))

    def add_address(self, index: int, address: str, prefix: int, broadcast: str = "") -> None:
        """An address; of IPv6 it is usable at once, without a search for others that have it. FileExistsError when it is there."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        packed = socket.inet_pton(family, address)
        flags = _IFA_F_NODAD if family == socket.AF_INET6 else 0
        body = _ADDRESS.pack(family, prefix, flags, 0, index) + attribute(_IFA_LOCAL, packed) + attribute(_IFA_ADDRESS, packed)
        if broadcast:
            body += attribute(_IFA_BROADCAST, socket.inet_aton(broadcast))
        self._ask(RTM_NEWADDR, _ACK | _CREATE | _EXCL, body)

    def set_default_route(self, gateway: str, family: int = socket.AF_INET, *, by: int = 0) -> None:
        """The default route of a family, instead of the one there is; "" for none. by: the interface, where there is no gateway."""
        if gateway or by:
            scope = 0 if gateway or family == socket.AF_INET6 else _RT_SCOPE_LINK
            body = _ROUTE.pack(family, 0, 0, 0, 254, 3, scope, 1, 0)
            body += attribute(_RTA_GATEWAY, socket.inet_pton(family, gateway)) if gateway else attribute(_RTA_OIF, _number(by))
            self._ask(RTM_NEWROUTE, _ACK | _CREATE | _REPLACE, body)
            return
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):  # ESRCH: there is none; ENOENT: IPv6's table is empty
            self._ask(RTM_DELROUTE, _ACK, _ROUTE.pack(family, 0, 0, 0, 254, 0, 255, 0, 0))
