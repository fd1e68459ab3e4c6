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


class Addresses:
    """Lowest free address first, as docker gives them. Not thread-safe."""

    def __init__(self, gateway: ipaddress.IPv4Interface) -> None:
        self.gateway = gateway
        self._taken = {int(gateway.ip)}

    def take(self) -> str:
        """A free address. Raises SystemFailure."""
        network = self.gateway.network
        for number in range(int(network.network_address) + 1, int(network.broadcast_address)):
            if number not in self._taken:
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
