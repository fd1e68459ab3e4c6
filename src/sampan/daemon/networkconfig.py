"""The keys of daemon.json that say what networks are like: checked, and brought into their final form."""

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any


class NetworkProblem(Exception):
    """The value of `key` cannot be used."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


def check_address(key: str, address: str, version: int) -> None:
    """bip, fixed-cidr and their IPv6 twins. Raises NetworkProblem."""
    try:
        network = ipaddress.ip_interface(address) if address else None
    except ValueError as error:
        raise NetworkProblem(key, f"invalid CIDR address: {address}") from error
    if network and (network.version != version or "/" not in address):
        raise NetworkProblem(key, f"invalid CIDR address: {address}")


def check_part(key: str, part: str, bip: str) -> None:
    """fixed-cidr is a part of the subnet of bip, where both are given. Raises NetworkProblem."""
    if part and bip:
        subnet, pool = ipaddress.ip_interface(bip).network, ipaddress.ip_interface(part).network
        if not pool.subnet_of(subnet):  # type: ignore[arg-type]  # check_address() saw to it that they are of one family
            raise NetworkProblem(key, f"{key} {part} is not within the bridge's subnet {subnet}")


def check_host_gateways(addresses: Sequence[str]) -> None:
    """host-gateway-ips: one of each family at the most. Raises NetworkProblem."""
    for version in (4, 6):
        if sum(ipaddress.ip_address(address).version == version for address in addresses) > 1:
            raise NetworkProblem("host-gateway-ips", f"only one IPv{version} host gateway IP address can be specified")


def pools_of(pools: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, int], ...]:
    """default-address-pools as (base, prefix length). Raises NetworkProblem."""
    key = "default-address-pools"
    found: list[tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, int]] = []
    for pool in pools:
        base, size = pool.get("base") or pool.get("Base") or "", pool.get("size") or pool.get("Size") or 0
        try:
            network = ipaddress.ip_network(base, strict=False)
        except ValueError as error:
            raise NetworkProblem(key, f"invalid CIDR address: {base}") from error
        if not isinstance(size, int) or isinstance(size, bool) or not network.prefixlen <= size <= network.max_prefixlen:
            raise NetworkProblem(
                key, f"invalid pool size {size} for {base}: it must be from {network.prefixlen} to {network.max_prefixlen}"
            )
        if any(network.version == other.version and network.overlaps(other) for other, _ in found):
            raise NetworkProblem(key, f"pools overlap: {base}")
        found.append((network, size))
    return tuple((str(network), size) for network, size in found)
