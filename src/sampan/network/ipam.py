"""Addresses of networks, in memory; what is saved of networks and of containers' endpoints is the durable record."""

import contextlib
import hashlib
import ipaddress
from collections.abc import Iterable, Iterator, Sequence

from sampan.errors import Forbidden, InvalidArgument, SystemFailure

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_DEFAULT_POOLS = (
    ("172.17.0.0/16", 16), ("172.18.0.0/16", 16), ("172.19.0.0/16", 16), ("172.20.0.0/14", 16), ("172.24.0.0/14", 16),
    ("172.28.0.0/14", 16), ("192.168.0.0/16", 20),
)  # fmt: skip
"""moby's default local address pools: bases, and the length of the prefixes they are cut to."""


class Pools:
    """Where the subnets of networks come from whose user asks for none."""

    def __init__(self, pools: Sequence[tuple[str, int]] = (), seed: str = "") -> None:
        """pools: (base, prefix length) of either family; where one family has none it has docker's.

        seed: names this engine, whose IPv6 prefix (RFC 4193) is made of it.
        """
        bases = [(ipaddress.ip_network(base), size) for base, size in pools]
        self._pools = [*bases]
        if not any(base.version == 4 for base, _ in bases):
            self._pools += [(ipaddress.ip_network(base), size) for base, size in _DEFAULT_POOLS]
        if not any(base.version == 6 for base, _ in bases):
            digits = hashlib.sha256(seed.encode()).digest()[:5]
            self._pools.append((ipaddress.IPv6Network((b"\xfd" + digits + bytes(10), 48)), 64))

    def subnets(self, version: int) -> Iterator[Network]:
        """All there are, in order."""
        for base, size in self._pools:
            if base.version == version:
                yield from base.subnets(new_prefix=size)

    def free(self, version: int, taken: Iterable[Network]) -> Interface:
        """The gateway (first address) of the first subnet that overlaps none that is taken. Raises SystemFailure."""
        others = [network for network in taken if network.version == version]
        for subnet in self.subnets(version):
            if not any(subnet.overlaps(other) for other in others):
                return ipaddress.ip_interface(f"{subnet[1]}/{subnet.prefixlen}")
        raise SystemFailure("all predefined address pools have been fully subnetted")


def parse_address(text: str) -> Address:
    """As Go's net.ParseIP: no zone (`fe80::1%eth0`), which may be any text and would come to the packet filter's. Raises ValueError."""
    if "%" in text:
        raise ValueError(f"{text!r} has a zone")
    return ipaddress.ip_address(text)


def parse_subnet(text: str) -> Network:
    """As Go's netip.ParsePrefix: an address, which may be any one of the subnet, and a length in bits. Raises ValueError."""
    address, _, length = text.partition("/")
    if not (length.isascii() and length.isdecimal()) or length != str(int(length)):
        raise ValueError(f"{text!r} is no address with a length")
    return ipaddress.ip_interface(f"{parse_address(address)}/{length}").network


def overlaps(network: Network, others: Iterable[Network]) -> bool:
    """Whether a network has addresses of others."""
    return any(network.version == other.version and network.overlaps(other) for other in others)


def routed(routes: Iterable[tuple[str, int]]) -> list[Network]:
    """The destinations of the host's routes, but the default ones."""
    return [ipaddress.ip_network(f"{address}/{length}", strict=False) for address, length in routes if length]


def gateway_of(bip: str, fixed_cidr: str, version: int, pools: Pools, routes: Iterable[tuple[str, int]]) -> Interface:
    """The address of a bridge that has none: bip, else the first of fixed_cidr, else of a free pool. Raises SystemFailure."""
    if bip:
        return ipaddress.ip_interface(bip)
    if fixed_cidr:
        network = ipaddress.ip_interface(fixed_cidr).network
        return ipaddress.ip_interface(f"{network[1]}/{network.prefixlen}")
    return pools.free(version, routed(routes))


def first_free(network: Network, ip_range: str, taken: Iterable[str]) -> str:
    """The gateway of a subnet whose user names none. Raises SystemFailure."""
    used = {int(ipaddress.ip_address(address)) for address in taken}
    for number in _usable(network, ipaddress.ip_network(ip_range) if ip_range else network):
        if number not in used:
            return str(network[number - int(network.network_address)])
    raise SystemFailure("no available IPv4 addresses on this network's address pools")


def _usable(subnet: Network, pool: Network) -> Iterator[int]:
    """Numbers of a subnet's part that an interface can have: not the subnet's first, nor IPv4's broadcast address."""
    first, last = int(subnet.network_address), int(subnet.broadcast_address)
    small = subnet.max_prefixlen - subnet.prefixlen < 2
    for number in range(int(pool.network_address), int(pool.broadcast_address) + 1):
        if small or (number != first and (number != last or subnet.version == 6)):
            yield number


class Addresses:
    """Lowest free address first, as docker gives them. Not thread-safe."""

    def __init__(self, gateway: Interface, ip_range: str = "", reserved: Iterable[str] = (), network: str = "bridge") -> None:
        """ip_range: the part of the gateway's subnet to give addresses from; "" is all of it. reserved: addresses of others there.

        network: its name, for messages. Raises SystemFailure.
        """
        self.gateway = gateway
        self._network = network
        self._pool: Network = ipaddress.ip_interface(ip_range).network if ip_range else gateway.network
        if self._pool.version != gateway.version or not self._pool.subnet_of(gateway.network):  # type: ignore[arg-type]
            raise SystemFailure(f"fixed-cidr {ip_range} is not within the bridge's subnet {gateway.network}")
        others = [ipaddress.ip_address(address) for address in reserved]
        self._fixed = {int(gateway.ip), *(int(address) for address in others if address.version == gateway.version)}
        self._taken = set(self._fixed)

    def take(self, asked: str = "") -> str:
        """A free address, or the one asked for. Raises SystemFailure, InvalidArgument, Forbidden in docker's words."""
        subnet = self.gateway.network
        if asked:
            address = ipaddress.ip_address(asked)
            if address not in subnet:
                raise InvalidArgument(f"no configured subnet contains IP address {address}")
            if int(address) in self._taken or int(address) not in _usable(subnet, ipaddress.ip_network(address)):
                raise Forbidden("Address already in use")
            self._taken.add(int(address))
            return str(address)
        for number in _usable(subnet, self._pool):
            if number not in self._taken:
                self._taken.add(number)
                return str(subnet[number - int(subnet.network_address)])
        raise SystemFailure(f"no available IPv{subnet.version} addresses on this network's address pools: {self._network}")

    def take_this(self, address: str) -> bool:
        """Take one address again; False when it is outside the subnet or taken."""
        parsed = ipaddress.ip_address(address)
        if parsed not in self.gateway.network or int(parsed) in self._taken:
            return False
        self._taken.add(int(parsed))
        return True

    def release(self, address: str) -> None:
        """Give an address back; the gateway and what is reserved stay taken."""
        number = int(ipaddress.ip_address(address))
        if number not in self._fixed:
            self._taken.discard(number)


class Ranges:
    """All addresses of a network in one family: of its subnets, the first one that has a free one. Not thread-safe."""

    def __init__(self, parts: Sequence[Addresses]) -> None:
        """parts: one or more."""
        self._parts = parts

    @property
    def gateways(self) -> list[Interface]:
        """Of each subnet, in order."""
        return [part.gateway for part in self._parts]

    @property
    def gateway(self) -> Interface:
        """Of the first subnet."""
        return self._parts[0].gateway

    def gateway_of(self, address: str) -> Interface:
        """Of the subnet that an address is of."""
        return self._of(address).gateway

    def take(self, asked: str = "") -> str:
        """A free address, or the one asked for. Raises SystemFailure, InvalidArgument, Forbidden in docker's words."""
        if asked:
            return self._of(asked).take(asked)
        for part in self._parts[:-1]:
            with contextlib.suppress(SystemFailure):
                return part.take()
        return self._parts[-1].take()

    def take_this(self, address: str) -> bool:
        """Take one address again; False when it is outside the subnets or taken."""
        return self._of(address).take_this(address)

    def release(self, address: str) -> None:
        """Give an address back."""
        self._of(address).release(address)

    def _of(self, address: str) -> Addresses:
        """The subnet's of an address; the first one's where it is of none, which says so."""
        parsed = ipaddress.ip_address(address)
        return next((part for part in self._parts if parsed in part.gateway.network), self._parts[0])
