"""Published ports: what a container asks for, and the sockets that hold them on the host."""

import errno
import socket
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Protocol

import msgspec

from sampan.errors import InvalidArgument, NotImplementedYet, SystemFailure


class Binding(Protocol):
    """A PortBinding of the API."""

    @property
    def host_ip(self) -> str:
        """Empty for the default."""

    @property
    def host_port(self) -> str:
        """A number, a range a-b, or empty for any."""


class PortRequest(msgspec.Struct, frozen=True):
    """One port to publish. host_first..host_last is where to look for a free one; 0..0 leaves it to the kernel."""

    port: int
    protocol: str
    host_ip: str = ""
    host_first: int = 0
    host_last: int = 0


class Published(msgspec.Struct, frozen=True):
    """One port that is published."""

    port: int
    protocol: str
    host_ip: str
    host_port: int


def _split(port: str) -> tuple[int, str]:
    number, _, protocol = port.partition("/")
    if not (number.isascii() and number.isdecimal() and len(number) < 6 and 0 < int(number) < 65536):
        raise InvalidArgument(f"invalid port specification: {port!r}")
    return int(number), protocol.lower() or "tcp"


def _span(text: str) -> tuple[int, int]:
    first, separator, last = text.partition("-")
    last = last if separator else first
    if not text or text == "0":
        return 0, 0
    digits = first + last
    if not (digits.isascii() and digits.isdecimal() and len(digits) < 11 and first and last and 0 < int(first) <= int(last) < 65536):
        raise InvalidArgument(f"invalid port specification: {text!r}")
    return int(first), int(last)


def port_requests(
    exposed: Iterable[str] | None, bindings: Mapping[str, Sequence[Binding] | None] | None, publish_all: bool
) -> list[PortRequest]:
    """What HostConfig.PortBindings and PublishAllPorts ask for, in order. Raises InvalidArgument."""
    found = []
    given = bindings or {}
    for key, items in given.items():
        port, protocol = _split(key)
        for item in items or ():
            first, last = _span(item.host_port)
            found.append(PortRequest(port, protocol, item.host_ip, first, last))
    if publish_all:
        found += [PortRequest(*_split(key)) for key in exposed or () if not given.get(key)]
    return found


class HeldPort:
    """A bound socket: nobody else on the host can take the port while it is open."""

    def __init__(self, published: Published, held: socket.socket) -> None:
        self.published = published
        self._socket = held

    def listen(self) -> None:
        """Keep out those who bind with SO_REUSEADDR too; call it when DNAT takes all connections. Raises OSError."""
        if self.published.protocol == "tcp":
            self._socket.listen(0)

    def close(self) -> None:
        """Free the port."""
        self._socket.close()


def _clashes(mine: Published, other: Published) -> bool:
    same = (mine.protocol, mine.host_port) == (other.protocol, other.host_port)
    return same and (mine.host_ip == other.host_ip or "0.0.0.0" in (mine.host_ip, other.host_ip))


def hold(
    request: PortRequest, default_ip: str, name: str, container_id: str, address: str = "", taken: Collection[Published] = ()
) -> HeldPort:
    """Bind the first free port of the request, for a container at address. Raises SystemFailure in docker 28's words, NotImplementedYet.

    taken: what this network publishes already. Two sockets with SO_REUSEADDR can both be bound until one listens, so the kernel
    alone would let two containers that start at the same time have the same port.
    """
    host_ip = request.host_ip or default_ip
    failed = f"failed to set up container networking: driver failed programming external connectivity on endpoint {name} ({container_id})"
    if ":" in host_ip or request.protocol not in ("tcp", "udp"):
        raise NotImplementedYet(f"{failed}: publishing {request.protocol} on {host_ip} is not implemented by Sampan yet")
    words = f"Bind for {host_ip}:{request.host_last} failed: port is already allocated"
    for port in range(request.host_first, request.host_last + 1):
        published = Published(request.port, request.protocol, host_ip, port)
        if port and any(_clashes(published, other) for other in taken):
            words = f"Bind for {host_ip}:{port} failed: port is already allocated"
            continue
        try:
            held = _bind(published)
        except OSError as error:
            target = f"{host_ip}:{port}:{address}:{request.port}/{request.protocol}"
            words = f"failed to bind host port for {target}: {(error.strerror or str(error)).lower()}"
            if error.errno != errno.EADDRINUSE:
                break
            continue
        return HeldPort(Published(request.port, request.protocol, host_ip, held.getsockname()[1]), held)
    raise SystemFailure(f"{failed}: {words}")


def _bind(wanted: Published) -> socket.socket:
    kind = socket.SOCK_STREAM if wanted.protocol == "tcp" else socket.SOCK_DGRAM
    held = socket.socket(socket.AF_INET, kind | socket.SOCK_CLOEXEC)
    try:
        if kind == socket.SOCK_STREAM:
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind((wanted.host_ip, wanted.host_port))
    except OSError:
        held.close()
        raise
    return held
