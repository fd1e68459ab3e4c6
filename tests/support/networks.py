"""A bridge network without an engine, for tests of the kernel's part: what engine/sandboxes.py does, for one network."""

import asyncio
import os
from collections.abc import Mapping, Sequence

import msgspec

from sampan.errors import SystemFailure
from sampan.network import firewall, sandbox
from sampan.network.bridge import Bridge, BridgeSettings, Place, remove_strays
from sampan.network.exposure import Exposure, Target
from sampan.network.ports import PortRequest, Published
from sampan.network.proxy import UserlandProxy, ipv6_is_usable
from sampan.network.rules import Rules


class Endpoint(msgspec.Struct, frozen=True):
    """A container that has only its network. netns is open until detach()."""

    place: Place
    netns: int
    ports: tuple[Published, ...]

    @property
    def ip(self) -> str:
        """Its address."""
        return self.place.ip


class BridgeNetwork:
    """One network with published ports."""

    def __init__(self, settings: BridgeSettings) -> None:
        self.rules = Rules(firewall.table_of(settings.bridge))
        self.exposure = Exposure(self.rules, UserlandProxy("/nowhere") if ipv6_is_usable() else None)
        self.bridge = Bridge(settings, self.rules)
        self._endpoints: dict[str, Endpoint] = {}

    async def start(self) -> None:
        """Rules, then the bridge."""
        await self.rules.start()
        await self.bridge.start()

    async def stop(self, remove: bool) -> None:
        """remove: nothing of it stays."""
        await self.exposure.stop()
        for endpoint in self._endpoints.values():
            os.close(endpoint.netns)
        self._endpoints.clear()
        if remove:
            await asyncio.to_thread(sandbox.delete_link, self.bridge.settings.bridge)
        await self.rules.stop(remove)

    async def attach(self, container_id: str, name: str, ports: Sequence[PortRequest]) -> Endpoint:
        """A container with an address and published ports. Raises SystemFailure, leaving nothing."""
        place = self.bridge.take()
        try:
            held = await self.exposure.hold(container_id, name, Target(place.ip, place.ip6), ports, self.bridge.default_ip)
            netns = await asyncio.to_thread(sandbox.make, [self.bridge.interface(place, "eth0", default_routes=(4,))])
        except SystemFailure:
            await self.bridge.release(place)
            raise
        await self.exposure.open(container_id)
        self._endpoints[container_id] = Endpoint(place, netns, held)
        return self._endpoints[container_id]

    async def detach(self, container_id: str) -> None:
        """The container is gone."""
        await self.exposure.close(container_id)
        endpoint = self._endpoints.pop(container_id, None)
        if endpoint is not None:
            os.close(endpoint.netns)
            await self.bridge.release(endpoint.place)
            await asyncio.to_thread(sandbox.delete_link, endpoint.place.veth)

    async def reconcile(self, live: Mapping[str, Endpoint]) -> None:
        """What a restart of sampand does."""
        for endpoint in live.values():
            self.bridge.take_again(endpoint.place)
        await self.exposure.reopen({container_id: (Target(endpoint.ip), endpoint.ports) for container_id, endpoint in live.items()})
        await asyncio.to_thread(remove_strays, [self.bridge.settings.bridge], {endpoint.place.veth for endpoint in live.values()})
