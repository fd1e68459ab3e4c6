"""macvlan and ipvlan networks: containers have interfaces on the network of one of the host's, with addresses of its subnet.

No rules of ours are in the way, and by the kernel's nature host and containers do not reach each other.
"""

import asyncio
import ipaddress
import os
import socket
from collections.abc import Collection

import msgspec

from sampan.errors import InvalidArgument, SystemFailure
from sampan.linux.netlink import Netlink
from sampan.network import ipam, sandbox
from sampan.network.bridge import Bridge, BridgeSettings, Place, index_of, mark_of, owned
from sampan.network.rules import Rules

KINDS = ("macvlan", "ipvlan")
_LAST_VLAN = 4094
_LONGEST_NUMBER = 9
_PROBE = "probe"


class Sublinks(Bridge):
    """settings.bridge is the parent interface, settings.mode one of its kind's (linux/netlink.py)."""

    def __init__(self, settings: BridgeSettings, rules: Rules, kind: str) -> None:
        """kind: of KINDS."""
        super().__init__(settings, rules)
        self._kind = kind
        self._addresses, self._addresses6 = (self._ranges(version) for version in (4, 6))

    def _ranges(self, version: int) -> ipam.Ranges | None:
        settings = self.settings
        given = [(settings.bip, settings.fixed_cidr), (settings.bip6, settings.fixed_cidr6), *settings.more]
        parts = [
            ipam.Addresses(ipaddress.ip_interface(gateway), part, settings.reserved, settings.name)
            for gateway, part in given
            if gateway and (":" in gateway) == (version == 6)
        ]
        return ipam.Ranges(parts) if parts else None

    async def prepare(self) -> None:
        """See that the kernel can. Raises SystemFailure, InvalidArgument."""
        try:
            await asyncio.to_thread(self._try)
        except OSError as error:
            words = (error.strerror or str(error)).lower()
            raise SystemFailure(f"failed to create the {self.settings.name} network on {self.settings.bridge}: {words}") from None

    async def finish(self) -> None:
        """There are no rules of it."""
        self._is_up, self.problem = True, ""

    def _try(self) -> None:
        """Have the parent, and see whether the kernel makes one: it may know nothing of them, or not on this parent.

        It is made in a netns of its own, with which it goes when we are killed.
        """
        settings = self.settings
        netns = sandbox.make([])
        try:
            with Netlink() as netlink:
                if index_of(settings.bridge) is None:
                    self._make_parent(netlink)
                netlink.add_sub(_PROBE, socket.if_nametoindex(settings.bridge), self._kind, settings.mode, netns=netns, flag=settings.flag)
            sandbox.leave(netns, _PROBE)  # now: a netns is taken down when the kernel has the time, and a passthru is the parent's only one
        finally:
            os.close(netns)

    def _make_parent(self, netlink: Netlink) -> None:
        """A parent that is not there: where none was asked for one that leads nowhere, else a VLAN of what its name says."""
        parent = self.settings.bridge
        if self.settings.dummy:
            netlink.add_dummy(parent)
        else:
            upper, number = vlan_of(parent)
            index = _index_of(upper)
            if not 1 <= number <= _LAST_VLAN:
                raise InvalidArgument(f"vlan id must be between 1-{_LAST_VLAN}, received: {number}")
            netlink.add_vlan(parent, index, number)
        netlink.set_link(socket.if_nametoindex(parent), alias=mark_of(self.settings.owner))

    async def remove(self) -> None:
        """Take the parent away if it was made for this engine: no other network is on it. Never raises."""
        if self.settings.bridge in await asyncio.to_thread(owned, self.settings.owner):
            await asyncio.to_thread(sandbox.delete_link, self.settings.bridge)

    @property
    def publishes(self) -> bool:
        """Never: whoever is on that network reaches every port."""
        return False

    @property
    def host_addresses(self) -> list[str]:
        """None: the host cannot be reached."""
        return []

    def _leads_out(self, mode: str) -> bool:
        return not self.settings.internal and not self._is_routed

    @property
    def _is_routed(self) -> bool:
        """Whether the kernel routes between interface and parent: all that leaves goes by the interface, to no gateway."""
        return self._kind == "ipvlan" and self.settings.mode != "l2"

    def _new_veth(self) -> str:
        return ""

    def interface(self, place: Place, name: str, *, default_routes: Collection[int] = ()) -> sandbox.Interface:
        """What is to be made in the container's netns."""
        made = super().interface(place, name, default_routes=default_routes)
        on_link = tuple(version for version in default_routes if self._is_routed and version in self.versions)
        return msgspec.structs.replace(made, kind=self._kind, mode=self.settings.mode, flag=self.settings.flag, on_link=on_link)


def vlan_of(parent: str) -> tuple[str, int]:
    """(interface, VLAN) that the name of a parent stands for: eth0.10. Raises InvalidArgument in docker's words."""
    upper, separator, text = parent.partition(".")
    if not separator:
        raise InvalidArgument(f"invalid subinterface vlan name {parent}, example formatting is eth0.10")
    if "." in text:
        raise InvalidArgument(f"required interface name format is: name.vlan_id, ex. eth0.10 for vlan 10, instead received {parent}")
    if not (text.isascii() and text.isdecimal()) or len(text) > _LONGEST_NUMBER:
        raise InvalidArgument(f"unable to parse a valid vlan id from: {text} (ex. eth0.10 for vlan 10)")
    return upper, int(text)


def _index_of(upper: str) -> int:
    try:
        return socket.if_nametoindex(upper)
    except OSError:
        raise InvalidArgument(f"-o parent interface was not found on the host: {upper}") from None
