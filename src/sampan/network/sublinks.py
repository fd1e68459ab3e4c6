"""macvlan and ipvlan networks: containers have interfaces on the network of one of the host's, with addresses of its subnet.

No rules of ours are in the way, and by the kernel's nature host and containers do not reach each other.
"""

import asyncio
import ipaddress
import secrets
import socket
from collections.abc import Collection

import msgspec

from sampan.errors import SystemFailure
from sampan.linux.netlink import Netlink
from sampan.network import ipam, sandbox
from sampan.network.bridge import Bridge, BridgeSettings, Place
from sampan.network.rules import Rules


class Sublinks(Bridge):
    """settings.bridge is the parent interface, settings.mode one of its kind's (linux/netlink.py)."""

    def __init__(self, settings: BridgeSettings, rules: Rules, kind: str) -> None:
        """kind: macvlan or ipvlan."""
        super().__init__(settings, rules)
        self._kind = kind
        both = ((4, settings.bip, settings.fixed_cidr), (6, settings.bip6, settings.fixed_cidr6))
        found = {
            version: ipam.Addresses(ipaddress.ip_interface(gateway), part, settings.reserved, settings.name)
            for version, gateway, part in both
            if gateway
        }
        self._addresses, self._addresses6 = found.get(4), found.get(6)

    async def _start(self) -> None:
        try:
            await asyncio.to_thread(self._try)
        except OSError as error:
            words = (error.strerror or str(error)).lower()
            raise SystemFailure(f"failed to create the {self.settings.name} network on {self.settings.bridge}: {words}") from None
        self._is_up = True

    def _try(self) -> None:
        """Whether the kernel makes one: it may know nothing of them, or not on this parent."""
        name = f"svt{secrets.token_hex(5)}"
        with Netlink() as netlink:
            netlink.add_sub(name, socket.if_nametoindex(self.settings.bridge), self._kind, self.settings.mode)
            netlink.delete_link(name)

    async def remove(self) -> None:
        """Nothing was made."""

    @property
    def publishes(self) -> bool:
        """Never: whoever is on that network reaches every port."""
        return False

    @property
    def host_addresses(self) -> list[str]:
        """None: the host cannot be reached."""
        return []

    def _way_out(self, addresses: ipam.Addresses | None, mode: str) -> str:
        return str(addresses.gateway.ip) if addresses is not None and not self.settings.internal else ""

    def _new_veth(self) -> str:
        return ""

    def interface(self, place: Place, name: str, *, default_routes: Collection[int] = ()) -> sandbox.Interface:
        """What is to be made in the container's netns."""
        made = super().interface(place, name, default_routes=default_routes)
        return msgspec.structs.replace(made, kind=self._kind, mode=self.settings.mode)

    def remove_strays(self, kept: set[str]) -> bool:
        """There are none: the interface goes with its netns."""
        return False
