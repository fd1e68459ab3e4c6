"""What is wrong with networks: rows, bridges and containers' interfaces against each other."""

import asyncio
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

from sampan.engine.containerstore import Container, Containers
from sampan.engine.networkstore import Network, NetworkStore
from sampan.engine.sandboxes import Sandboxes
from sampan.findings import Finding
from sampan.linux.netlink import Link
from sampan.network import bridge, sandbox


class _Found(NamedTuple):
    """What the kernel shows."""

    links: dict[str, Link]
    owned: list[str]
    """Bridges made for this engine."""


class NetworkCheck:
    """Looks at what belongs to networks."""

    def __init__(self, networks: NetworkStore, places: Sandboxes, containers: Containers, owner: str) -> None:
        """owner: the engine's exec-root, by which its bridges are marked."""
        self._networks = networks
        self._places = places
        self._containers = containers
        self._owner = owner

    async def look(self) -> list[Finding]:
        """Networks without a bridge, bridges and interfaces of nobody, containers without their interface."""
        found = await asyncio.to_thread(self._search)
        return [*self._networks.look(), *self._look_at_bridges(found), *self._look_at_interfaces(found)]

    def _search(self) -> _Found:
        """Any thread."""
        return _Found({link.name: link for link in bridge.links()}, bridge.owned(self._owner))

    def _look_at_bridges(self, found: _Found) -> Iterator[Finding]:
        known = set()
        for network in self._networks:
            if network.bridge is None:
                continue
            name = network.bridge.settings.bridge
            known.add(name)
            if name not in found.links and not network.removing:
                yield Finding("network", network.name, "has no bridge", "make it", partial(self._make, network))
        for name in found.owned:
            if name not in known:
                yield Finding("bridge", name, "is of no network", "remove it", partial(self._remove_bridge, name))

    async def _make(self, network: Network) -> None:
        if self._networks.get(network.name) is network and network.bridge is not None and not network.removing:
            await network.bridge.start()

    async def _remove_bridge(self, name: str) -> None:
        if all(network.bridge is None or network.bridge.settings.bridge != name for network in self._networks):
            await asyncio.to_thread(sandbox.delete_link, name)

    def _look_at_interfaces(self, found: _Found) -> Iterator[Finding]:
        kept = self._places.veths()
        for network in self._networks:
            if network.bridge is None or (master := found.links.get(network.bridge.settings.bridge)) is None:
                continue
            for link in found.links.values():
                if link.master == master.ifindex and link.name.startswith(bridge.VETH_PREFIX) and link.name not in kept:
                    yield Finding("interface", link.name, "is of no container", "remove it", partial(self._remove_interface, link.name))
            for container, place in self._places.on(network):
                if _is_settled(container) and place.veth:  # a macvlan has no end here
                    yield from self._look_at(container, network, found.links.get(place.veth), master)

    def _look_at(self, container: Container, network: Network, link: Link | None, master: Link) -> Iterator[Finding]:
        if link is None:
            yield Finding("container", container.id, f"has lost its interface on network {network.name}", "restart it")
        elif link.master != master.ifindex:
            problem = f"is not on the bridge of network {network.name}"
            yield Finding("interface", link.name, problem, "put it there", partial(self._put_back, link.name, network))

    async def _remove_interface(self, name: str) -> None:
        if name not in self._places.veths():
            await asyncio.to_thread(sandbox.delete_link, name)

    async def _put_back(self, name: str, network: Network) -> None:
        if network.bridge is not None and name in self._places.veths():
            await asyncio.to_thread(bridge.put_on, name, network.bridge.settings.bridge)


def _is_settled(container: Container) -> bool:
    """Whether it runs, and is not being started, ended or changed."""
    return container.is_running and not container.lock.locked() and container.settled.is_set()
