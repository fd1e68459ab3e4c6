"""The embedded name servers of containers on networks of users' own: one for each, which answers as long as the container runs."""

import asyncio
import ipaddress
import logging
import os
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING

from sampan.engine.containerstore import Container
from sampan.engine.endpoints import Chosen, names_by_link
from sampan.engine.networkfiles import HOST_NAME, NetworkFiles
from sampan.errors import SystemFailure
from sampan.network import sandbox
from sampan.network.names import NetworkNames, View

if TYPE_CHECKING:
    from sampan.network.dnsserver import DnsServer

log = logging.getLogger(__name__)

UDP, TCP = "dns-udp", "dns-tcp"
"""Names of the sockets in custody: queries wait in them while sampand is away."""


class NameService:
    """One for an engine. Every method is for the event loop's thread."""

    def __init__(self, files: NetworkFiles) -> None:
        self._files = files
        self._served: dict[str, _Served] = {}

    async def start(self, container: Container, netns: int, joined: Chosen) -> Mapping[str, int]:
        """Serve a container: the sockets are made in its netns, which the caller closes. Their descriptors, which stay ours, by name.

        Raises SystemFailure.
        """
        try:
            udp, tcp = await asyncio.to_thread(sandbox.name_service, netns)
        except OSError as error:
            raise SystemFailure(f"failed to set up container networking: the name service: {error}") from error
        self._serve(container, udp, tcp, joined)
        return {UDP: udp.fileno(), TCP: tcp.fileno()}

    def resume(self, container: Container, held: Mapping[str, int], joined: Chosen) -> bool:
        """Go on with the sockets of a former sampand's time, which others held; False when nobody has them any more."""
        if UDP not in held or TCP not in held:
            return False
        self._serve(container, socket.socket(fileno=os.dup(held[UDP])), socket.socket(fileno=os.dup(held[TCP])), joined)
        return True

    def _serve(self, container: Container, udp: socket.socket, tcp: socket.socket, joined: Chosen) -> None:
        from sampan.network.dnsserver import DnsServer  # with the first network of a user's own: not all have one

        served = self._served[container.id] = _Served(self._files)
        served.set(joined)
        server = DnsServer(udp, tcp, lambda: served.view, lambda: () if served.internal else self._files.upstream(container))
        server.start()
        served.server = server

    def serves(self, container: Container) -> bool:
        """Whether it has a server."""
        return container.id in self._served

    def changed(self, container: Container, joined: Chosen) -> None:
        """A container with a server is on these networks from now on."""
        served = self._served.get(container.id)
        if served is not None:
            served.set(joined)

    async def stop(self, container_id: str) -> None:
        """Serve a container no more. Never raises."""
        served = self._served.pop(container_id, None)
        if served is not None and served.server is not None:
            await served.server.stop()

    async def close(self) -> None:
        """Stop all; the sockets live on in custody."""
        for container_id in list(self._served):
            await self.stop(container_id)


class _Served:
    def __init__(self, files: NetworkFiles) -> None:
        self._files = files
        self.view = View([])
        self.internal = False
        self.server: DnsServer | None = None

    def set(self, joined: Chosen) -> None:
        named = [(network.names, names_by_link(settings.links or ())) for network, settings in joined if not network.is_predefined]
        own = NetworkNames("")
        addresses = self._files.host_addresses(network for network, _ in joined)
        if addresses:
            own.add("", [HOST_NAME], [ipaddress.ip_address(address) for address in addresses])
        self.view = View([*named, (own, {})])
        self.internal = all(network.row.internal for network, _ in joined)
