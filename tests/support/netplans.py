"""What would be asked of the kernel: netlink messages and nft commands as text, with no kernel behind them."""

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sampan.linux import libc, netlink
from sampan.linux.netlink import Link, Netlink, attributes
from sampan.linux.nftables import Nftables, NftablesError

_KINDS = {16: "new link", 17: "delete link", 20: "new address", 24: "new route", 25: "delete route"}


class Recorder:
    """Stands in for netlink sockets and libnftables on a host with these interfaces."""

    def __init__(self, *interfaces: str) -> None:
        self.interfaces = list(interfaces)
        self.lines: list[str] = []
        self.refused = ""
        """nft commands with this in them fail."""

    def run(self, commands: str) -> None:
        """As libnftables. Raises NftablesError."""
        if self.refused and self.refused in commands:
            raise NftablesError(f"Error: {self.refused}")
        self.lines.append(commands.strip())

    def index(self, name: str) -> int:
        """As if_nametoindex()."""
        if name not in self.interfaces:
            raise OSError(19, "No such device")
        return self.interfaces.index(name) + 1

    def links(self) -> list[Link]:
        """All there are."""
        return [Link(number, name, 0, up=True) for number, name in enumerate(self.interfaces, 1)]

    def ask(self, kind: int, body: bytes) -> list[bytes]:
        """One message."""
        name, words = _decoded(kind, body)
        self.lines.append(f"{_KINDS[kind]} {words}".rstrip())
        if kind == netlink.RTM_NEWLINK and name and name not in self.interfaces:
            self.interfaces.append(name)
        return []

    @property
    def text(self) -> str:
        """All of it, one a line."""
        return "".join(f"{line}\n" for line in self.lines)


@contextmanager
def recorded(monkeypatch: pytest.MonkeyPatch, *interfaces: str) -> Iterator[Recorder]:
    """What is asked of the kernel meanwhile."""
    recorder = Recorder(*interfaces)
    with monkeypatch.context() as patch:
        patch.setattr(Netlink, "__init__", lambda _self: None)
        patch.setattr(Netlink, "__exit__", lambda _self, *_exc: None)
        patch.setattr(Netlink, "_ask", lambda _self, kind, _flags, body: recorder.ask(kind, body))
        patch.setattr(Netlink, "links", lambda _self: recorder.links())
        patch.setattr(socket, "if_nametoindex", recorder.index)
        for name in ("unshare", "setns"):
            patch.setattr(libc, name, lambda *_words: None)
        patch.setattr(Path, "write_text", lambda _path, _text: 0)  # sysctls
        patch.setattr(Nftables, "__init__", lambda _self: None)
        patch.setattr(Nftables, "run", lambda _self, commands: recorder.run(commands))
        yield recorder


def _decoded(kind: int, body: bytes) -> tuple[str, str]:
    if kind in (netlink.RTM_NEWLINK, netlink.RTM_DELLINK):
        return _link(body)
    if kind == netlink.RTM_NEWADDR:
        family, prefix, _flags, _scope, index = struct.unpack_from("=BBBBI", body)
        return "", f"{socket.inet_ntop(family, attributes(body[8:])[1])}/{prefix} on {index}"
    family, *_rest, scope, _kind, _flags = struct.unpack_from("=BBBBBBBBI", body)
    found = attributes(body[12:])
    words = [f"by {socket.inet_ntop(family, found[5])}"] if 5 in found else []
    words += [f"by interface {_number(found[4])}"] if 4 in found else []
    return "", " ".join(["default", "inet6" if family == socket.AF_INET6 else "inet", *words, f"scope {scope}"])


def _link(body: bytes) -> tuple[str, str]:
    _family, _type, index, flags, _change = struct.unpack_from("=BxHiII", body)
    found = attributes(body[16:])
    name = found.get(3, b"").rstrip(b"\0").decode()
    words = [f"index {index}"] if index else []
    words += [f"name {name}"] if name else []
    words += [f"{key} {_number(found[number])}" for number, key in ((5, "of"), (10, "master"), (4, "mtu")) if number in found]
    words += ["mac " + found[1].hex(":")] if 1 in found else []
    words += ["alias " + found[20].decode()] if 20 in found else []
    words += ["in netns"] if 28 in found else []
    if 18 in found:
        info = attributes(found[18])
        words.append("kind " + info[1].rstrip(b"\0").decode())
        words += [f"data {number}={int.from_bytes(value, 'little')}" for number, value in attributes(info.get(2, b"")).items()]
    return name, " ".join([*words, *(["up"] if flags & 1 else [])])


def _number(value: bytes) -> int:
    found: int = struct.unpack("=I", value)[0]
    return found
