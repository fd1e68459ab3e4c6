"""Published ports of all containers: a socket that holds each, and the rule or the proxy that brings connections to the container."""

import asyncio
import errno
import logging
from collections.abc import Sequence

from sampan.errors import SystemFailure
from sampan.linux.nftables import NftablesError
from sampan.network.ports import HeldPort, PortRequest, Published, PublishedPorts, addresses, hold
from sampan.network.proxy import UserlandProxy
from sampan.network.rules import Rules

log = logging.getLogger(__name__)

LOT = 100
"""Ports that are dealt with before the event loop has its turn."""


class _Held:
    def __init__(self, address: str) -> None:
        self.address = address
        self.ports: list[HeldPort] = []


class Exposure:
    """One for an engine. Every method is for the event loop's thread."""

    def __init__(self, rules: Rules, proxy: UserlandProxy | None) -> None:
        """proxy: serves ports on IPv6 addresses; None where there is none."""
        self._rules = rules
        self._proxy = proxy
        self._held: dict[str, _Held] = {}
        self._published = PublishedPorts()

    async def stop(self) -> None:
        """Close what is held here; the rules and the proxy's connections stay."""
        if self._proxy is not None:
            await self._proxy.stop()
        for held in self._held.values():
            await self._free(held)
        self._held.clear()

    async def hold(
        self, container_id: str, name: str, address: str, requests: Sequence[PortRequest], default_ip: str
    ) -> tuple[Published, ...]:
        """Take ports of the host for a container at address. Raises SystemFailure in docker's words, holding none."""
        if requests and not self._rules.usable:
            raise SystemFailure(f"cannot publish ports of {name}: the firewall of the default bridge network is not available")
        held = self._held[container_id] = _Held(address)
        try:
            for done, request in enumerate(requests, 1):
                host_ips = addresses(request, default_ip, ipv6=self._proxy is not None)
                self._keep(held, hold(request, host_ips, name, container_id, address, self._published))
                await _turn(done)
        except BaseException:
            await self.close(container_id)
            raise
        return tuple(port.published for port in held.ports)

    async def open(self, container_id: str) -> None:
        """Let connections to its ports through, once its network is there. Raises SystemFailure."""
        held = self._held[container_id]
        try:
            await self._open(held, held.ports)
        except (NftablesError, OSError) as error:
            raise SystemFailure(f"failed to set up container networking: {error}") from error

    async def _open(self, held: _Held, ports: Sequence[HeldPort]) -> None:
        await self._rules.publish(held.address, _by_dnat(ports))
        for done, port in enumerate(ports, 1):
            await _turn(done)
            port.listen()  # after DNAT: no IPv4 connection ever waits here
            if port.is_ipv6:
                if self._proxy is None:
                    raise OSError(errno.EADDRNOTAVAIL, f"publishing on {port.published.host_ip} needs IPv6 and the userland proxy")
                await self._proxy.open(port, held.address)

    async def close(self, container_id: str) -> None:
        """Free a container's ports. Never raises."""
        held = self._held.pop(container_id, None)
        if held is None:
            return
        for port in held.ports:
            if port.is_ipv6 and self._proxy is not None:
                await self._proxy.close(port)
        by_dnat = _by_dnat(held.ports)
        await self._free(held)
        await self._rules.withdraw(by_dnat)

    async def reopen(self, container_id: str, address: str, ports: Sequence[Published]) -> None:
        """Take again what a running container had before sampand's restart. Never raises: what cannot be had is logged."""
        held = self._held[container_id] = _Held(address)
        for done, port in enumerate(ports, 1):
            request = PortRequest(port.port, port.protocol, port.host_ip, port.host_port, port.host_port)
            try:
                self._keep(held, hold(request, [port.host_ip], container_id[:12], container_id, address, self._published))
            except SystemFailure as error:
                log.warning("port %d of container %s: %s", port.host_port, container_id, error)
            await _turn(done)
        try:
            await self._open(held, held.ports)
        except (NftablesError, OSError):
            for one in held.ports:  # all but the one that cannot be opened
                try:
                    await self._open(held, [one])
                except (NftablesError, OSError) as error:
                    log.warning("port %d of container %s: %s", one.published.host_port, container_id, error)

    def _keep(self, held: _Held, ports: Sequence[HeldPort]) -> None:
        held.ports += ports
        for port in ports:
            self._published.add(port.published)

    async def _free(self, held: _Held) -> None:
        while held.ports:
            port = held.ports.pop()
            self._published.remove(port.published)
            port.close()
            await _turn(len(held.ports))


def _by_dnat(ports: Sequence[HeldPort]) -> list[Published]:
    """Those that the kernel's rules forward; the others are the userland proxy's."""
    return [port.published for port in ports if not port.is_ipv6]


async def _turn(done: int) -> None:
    """Let others have the event loop after each LOT of ports."""
    if done % LOT == 0:
        await asyncio.sleep(0)
