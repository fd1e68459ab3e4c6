"""Published ports: what a container asks for, and the sockets that hold them on the host."""

import contextlib
import errno
import resource
import socket
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import msgspec

from sampan.errors import InvalidArgument, NotImplementedYet, SystemFailure
from sampan.network.ipam import parse_address

WILDCARDS = ("0.0.0.0", "::")
_KINDS = {
    "tcp": (socket.SOCK_STREAM, socket.IPPROTO_TCP),
    "udp": (socket.SOCK_DGRAM, socket.IPPROTO_UDP),
    "sctp": (socket.SOCK_STREAM, socket.IPPROTO_SCTP),
}
ANY_PORT_TRIES = 64
"""How often the kernel is asked for a port that is free on both families."""


class Binding(Protocol):
    """A PortBinding of the API."""

    @property
    def host_ip(self) -> str:
        """Empty for the default."""

    @property
    def host_port(self) -> str:
        """A number, a range a-b, or empty for any."""


class PortRequest(msgspec.Struct, frozen=True):
    """One port to publish. host_first..host_last is where to look for a free one; 0..0 leaves it to the kernel.

    host_ip is an IP address in its canonical form, or empty.
    """

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

    def again(self) -> PortRequest:
        """What asks for just this."""
        return PortRequest(self.port, self.protocol, self.host_ip, self.host_port, self.host_port)


def split(port: str) -> tuple[int, str]:
    """Number and protocol of a container's port, `80/tcp` or `80`. Raises InvalidArgument."""
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


def _host_address(text: str) -> str:
    """The canonical text of an IP address, or empty for none. Raises InvalidArgument in the words of docker's client.

    A name is none: it would be looked up while everybody waits, and dockerd 28 takes it for "all addresses", which nobody has asked for.
    As for Go's net.ParseIP, an IPv4 address in IPv6's form is IPv4.
    """
    if not text:
        return ""
    try:
        address = parse_address(text)
    except ValueError:
        raise InvalidArgument(f"invalid IP address: {text}") from None
    return str(getattr(address, "ipv4_mapped", None) or address)


def port_requests(
    exposed: Iterable[str] | None, bindings: Mapping[str, Sequence[Binding] | None] | None, publish_all: bool
) -> list[PortRequest]:
    """What HostConfig.PortBindings and PublishAllPorts ask for, in order. Raises InvalidArgument."""
    found = []
    given = bindings or {}
    for key, items in given.items():
        port, protocol = split(key)
        for item in items or ():
            first, last = _span(item.host_port)
            found.append(PortRequest(port, protocol, _host_address(item.host_ip), first, last))
    if publish_all:
        found += [PortRequest(*split(key)) for key in exposed or () if not given.get(key)]
    return found


class HeldPort:
    """A bound socket: nobody else on the host can take the port while it is open."""

    def __init__(self, published: Published, held: socket.socket) -> None:
        self.published = published
        self.by_proxy = self.is_ipv6
        """Whether the userland proxy serves it: on IPv6 addresses always, for DNAT does not reach what comes from ::1."""
        self._socket = held

    @property
    def is_ipv6(self) -> bool:
        """Whether it is published on an IPv6 address."""
        return ":" in self.published.host_ip

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._socket.fileno()

    def listen(self) -> None:
        """Keep out those who bind with SO_REUSEADDR too; call it when DNAT takes all connections. Raises OSError."""
        if self.published.protocol == "tcp":
            self._socket.listen(4096 if self.by_proxy else 0)

    def close(self) -> None:
        """Free the port."""
        self._socket.close()


class PublishedPorts:
    """What a network publishes, found by protocol and number however much it is."""

    def __init__(self, ports: Iterable[Published] = ()) -> None:
        self._by_number: dict[tuple[str, int], dict[str, Published]] = {}
        self._count = 0
        for port in ports:
            self.add(port)

    def __len__(self) -> int:
        return self._count

    def add(self, port: Published) -> None:
        """One more, which holder() did not find taken."""
        self._by_number.setdefault((port.protocol, port.host_port), {})[port.host_ip] = port
        self._count += 1

    def remove(self, port: Published) -> None:
        """No longer published. Raises KeyError when it never was."""
        addresses = self._by_number[port.protocol, port.host_port]
        del addresses[port.host_ip]
        self._count -= 1
        if not addresses:
            del self._by_number[port.protocol, port.host_port]

    def holder(self, protocol: str, host_ip: str, number: int) -> Published | None:
        """Who has the port already. Two sockets of one family with SO_REUSEADDR can both be bound until one listens."""
        addresses = self._by_number.get((protocol, number))
        if addresses is None:
            return None
        if host_ip in WILDCARDS:
            return next((port for other, port in addresses.items() if (":" in other) == (":" in host_ip)), None)
        return addresses.get(host_ip) or addresses.get("::" if ":" in host_ip else "0.0.0.0")


def most_sockets() -> int:
    """How many sockets may hold published ports: half of the descriptors that this process may have."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2


def addresses(request: PortRequest, default_ip: str, ipv6: bool) -> tuple[str, ...]:
    """Where a port is published: without an address on the default one; that is all of IPv4 and, where there is IPv6, all of it too."""
    if request.host_ip:
        return (request.host_ip,)
    return (default_ip, "::") if ipv6 and default_ip == "0.0.0.0" else (default_ip,)


def hold(
    request: PortRequest, host_ips: Sequence[str], name: str, container_id: str, address: str, taken: PublishedPorts
) -> list[HeldPort]:
    """Bind the first port of the request that is free on all of host_ips, for a container at address.

    taken: what this network publishes already; the caller adds what it got.
    Raises SystemFailure in docker 28's words, NotImplementedYet; holds nothing then.
    """
    failed = f"failed to set up container networking: driver failed programming external connectivity on endpoint {name} ({container_id})"
    if request.protocol not in _KINDS:
        raise NotImplementedYet(f"{failed}: publishing {request.protocol} is not implemented by Sampan yet")
    most = most_sockets()
    if len(taken) + len(host_ips) > most:
        raise SystemFailure(f"{failed}: too many published ports: {most} sockets at most, half of this process's limit of open files")
    words = ""
    tries = range(request.host_first, request.host_last + 1) if request.host_last else [0] * ANY_PORT_TRIES
    for port in tries:
        try:
            return _hold_all(request, host_ips, port, address, taken)
        except _Taken as error:
            words = str(error)
        except _Unusable as error:
            words = str(error)
            break
    raise SystemFailure(f"{failed}: {words}")


class _Taken(Exception):
    """Somebody has this port; another may be free."""


class _Unusable(Exception):
    """No port can be had there."""


def _hold_all(request: PortRequest, host_ips: Sequence[str], port: int, address: str, taken: PublishedPorts) -> list[HeldPort]:
    with contextlib.ExitStack() as undo:
        found: list[HeldPort] = []
        for host_ip in host_ips:
            holder = taken.holder(request.protocol, host_ip, port) if port else None
            if holder is not None:
                raise _Taken(f"Bind for {holder.host_ip}:{port} failed: port is already allocated")
            wanted = Published(request.port, request.protocol, host_ip, port)
            try:
                held = _bind(wanted)
            except OSError as error:
                shown = f"[{host_ip}]" if ":" in host_ip else host_ip
                words = f"failed to bind host port for {shown}:{port}:{address}:{request.port}/{request.protocol}: "
                words += (error.strerror or str(error)).lower()
                raise (_Taken(words) if error.errno == errno.EADDRINUSE else _Unusable(words)) from error
            undo.callback(held.close)
            port = held.getsockname()[1]
            found.append(HeldPort(msgspec.structs.replace(wanted, host_port=port), held))
        undo.pop_all()
        return found


def _bind(wanted: Published) -> socket.socket:
    kind, protocol = _KINDS[wanted.protocol]
    is_ipv6 = ":" in wanted.host_ip
    held = socket.socket(socket.AF_INET6 if is_ipv6 else socket.AF_INET, kind | socket.SOCK_CLOEXEC, protocol)
    try:
        if is_ipv6:
            held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if kind == socket.SOCK_STREAM:
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind((wanted.host_ip, wanted.host_port))
    except OSError:
        held.close()
        raise
    return held
