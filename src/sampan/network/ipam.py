"""IPv4 addresses of one subnet, in memory; the containers' saved endpoints are the durable record."""

import ipaddress
from collections.abc import Iterable

from sampan.errors import SystemFailure

POOLS = tuple(ipaddress.IPv4Network(f"172.{second}.0.0/16") for second in range(17, 32)) + tuple(
    ipaddress.IPv4Network(f"192.168.{third}.0/20") for third in range(0, 256, 16)
)
"""moby's default local address pools."""


def free_pool(taken: Iterable[tuple[str, int]]) -> ipaddress.IPv4Interface:
    """The gateway (first address) of the first pool that overlaps no route. Raises SystemFailure."""
    networks = [ipaddress.IPv4Network(item, strict=False) for item in taken if item[1]]
    for pool in POOLS:
        if not any(pool.overlaps(network) for network in networks):
            return ipaddress.IPv4Interface((pool[1], pool.prefixlen))
    raise SystemFailure("all predefined address pools have been fully subnetted")


def gateway_of(bip: str, fixed_cidr: str, routes: Iterable[tuple[str, int]]) -> ipaddress.IPv4Interface:
    """The address of a bridge that has none: bip, else the first of fixed_cidr, else of a free pool. Raises SystemFailure."""
    if bip:
        return ipaddress.IPv4Interface(bip)
    if fixed_cidr:
        network = ipaddress.IPv4Interface(fixed_cidr).network
        return ipaddress.IPv4Interface((network[1], network.prefixlen))
    return free_pool(routes)


class Addresses:
    """Lowest free address first, as docker gives them. Not thread-safe."""

    def __init__(self, gateway: ipaddress.IPv4Interface, fixed_cidr: str = "") -> None:
        """fixed_cidr: the part of the gateway's subnet to give addresses from; "" is all of it. Raises SystemFailure."""
        self.gateway = gateway
        self._pool = ipaddress.IPv4Interface(fixed_cidr).network if fixed_cidr else gateway.network
        if not self._pool.subnet_of(gateway.network):
            raise SystemFailure(f"fixed-cidr {fixed_cidr} is not within the bridge's subnet {gateway.network}")
        self._taken = {int(gateway.ip)}

    def take(self) -> str:
        """A free address. Raises SystemFailure."""
        subnet = self.gateway.network
        unusable = {int(subnet.network_address), int(subnet.broadcast_address)}
        for number in range(int(self._pool.network_address), int(self._pool.broadcast_address) + 1):
            if number not in self._taken and number not in unusable:
                self._taken.add(number)
                return str(ipaddress.IPv4Address(number))
        raise SystemFailure("no available IPv4 addresses on this network's address pools: bridge")

    def take_this(self, address: str) -> bool:
        """Take one address again; False when it is outside the subnet or taken."""
        parsed = ipaddress.IPv4Address(address)
        if parsed not in self.gateway.network or int(parsed) in self._taken:
            return False
        self._taken.add(int(parsed))
        return True

    def release(self, address: str) -> None:
        """Give an address back; the gateway stays taken."""
        number = int(ipaddress.IPv4Address(address))
        if number != int(self.gateway.ip):
            self._taken.discard(number)
