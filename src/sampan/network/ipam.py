"""Addresses of networks, in memory; what is saved of networks and of containers' endpoints is the durable record."""

import ipaddress
from collections.abc import Iterable, Sequence

from sampan.errors import Forbidden, InvalidArgument, SystemFailure

POOLS = tuple(ipaddress.IPv4Network(f"172.{second}.0.0/16") for second in range(17, 32)) + tuple(
    ipaddress.IPv4Network(f"192.168.{third}.0/20") for third in range(0, 256, 16)
)
"""moby's default local address pools."""


def free_pool(
    taken: Iterable[ipaddress.IPv4Network], pools: Sequence[ipaddress.IPv4Network] = POOLS, words: str = ""
) -> ipaddress.IPv4Interface:
    """The gateway (first address) of the first pool that overlaps none that is taken. Raises SystemFailure."""
    networks = list(taken)
    for pool in pools:
        if not any(pool.overlaps(network) for network in networks):
            return ipaddress.IPv4Interface((pool[1], pool.prefixlen))
    raise SystemFailure(words or "all predefined address pools have been fully subnetted")


def routed(routes: Iterable[tuple[str, int]]) -> list[ipaddress.IPv4Network]:
    """The destinations of the host's routes, but the default one."""
    return [ipaddress.IPv4Network(item, strict=False) for item in routes if item[1]]


def gateway_of(bip: str, fixed_cidr: str, routes: Iterable[tuple[str, int]]) -> ipaddress.IPv4Interface:
    """The address of a bridge that has none: bip, else the first of fixed_cidr, else of a free pool. Raises SystemFailure."""
    if bip:
        return ipaddress.IPv4Interface(bip)
    if fixed_cidr:
        network = ipaddress.IPv4Interface(fixed_cidr).network
        return ipaddress.IPv4Interface((network[1], network.prefixlen))
    return free_pool(routed(routes))


class Addresses:
    """Lowest free address first, as docker gives them. Not thread-safe."""

    def __init__(self, gateway: ipaddress.IPv4Interface, ip_range: str = "", reserved: Iterable[str] = (), network: str = "bridge") -> None:
        """ip_range: the part of the gateway's subnet to give addresses from; "" is all of it. reserved: addresses of others there.

        network: its name, for messages. Raises SystemFailure.
        """
        self.gateway = gateway
        self._network = network
        self._pool = ipaddress.IPv4Interface(ip_range).network if ip_range else gateway.network
        if not self._pool.subnet_of(gateway.network):
            raise SystemFailure(f"fixed-cidr {ip_range} is not within the bridge's subnet {gateway.network}")
        self._fixed = {int(gateway.ip), *(int(ipaddress.IPv4Address(address)) for address in reserved)}
        self._taken = set(self._fixed)

    def take(self, asked: str = "") -> str:
        """A free address, or the one asked for. Raises SystemFailure, InvalidArgument, Forbidden in docker's words."""
        subnet = self.gateway.network
        if asked:
            address = ipaddress.IPv4Address(asked)
            if address not in subnet:
                raise InvalidArgument(f"no configured subnet contains IP address {address}")
            if int(address) in self._taken or address in (subnet.network_address, subnet.broadcast_address):
                raise Forbidden("Address already in use")
            self._taken.add(int(address))
            return str(address)
        unusable = {int(subnet.network_address), int(subnet.broadcast_address)}
        for number in range(int(self._pool.network_address), int(self._pool.broadcast_address) + 1):
            if number not in self._taken and number not in unusable:
                self._taken.add(number)
                return str(ipaddress.IPv4Address(number))
        raise SystemFailure(f"no available IPv4 addresses on this network's address pools: {self._network}")

    def take_this(self, address: str) -> bool:
        """Take one address again; False when it is outside the subnet or taken."""
        parsed = ipaddress.IPv4Address(address)
        if parsed not in self.gateway.network or int(parsed) in self._taken:
            return False
        self._taken.add(int(parsed))
        return True

    def release(self, address: str) -> None:
        """Give an address back; the gateway and what is reserved stay taken."""
        number = int(ipaddress.IPv4Address(address))
        if number not in self._fixed:
            self._taken.discard(number)
