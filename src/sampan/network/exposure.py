"""Published ports of all containers: a socket that holds each, and the rule or the proxy that brings connections to the container."""

import asyncio
import errno
import ipaddress
import logging
from collections.abc import Collection, Mapping, Sequence

import msgspec

from sampan.errors import SystemFailure
from sampan.linux.nftables import NftablesError
from sampan.network import flows
from sampan.network.ports import HeldPort, PortRequest, Published, PublishedPorts, addresses, hold
from sampan.network.proxy import UserlandProxy
from sampan.network.rules import Rules

log = logging.getLogger(__name__)

LOT = 100
"""Ports that are dealt with before the event loop has its turn."""


def _as_ipv6(address: str) -> str:
    """Of a container without IPv4, what the address on which ports are published means."""
    if address == "0.0.0.0":
        return "::"
    return "::1" if ipaddress.ip_address(address).is_loopback else address


class Target(msgspec.Struct, frozen=True):
    """A container's addresses; "" where it has none."""

    ip: str
    ip6: str = ""

    @property
    def either(self) -> str:
        """What the proxy connects to."""
        return self.ip or self.ip6

    @property
    def addresses(self) -> list[str]:
        """Those that it has."""
        return [address for address in (self.ip, self.ip6) if address]


class _Held:
    def __init__(self, target: Target) -> None:
        self.target = target
        self.ports: list[HeldPort] = []
        self.opened: list[Published] = []
        """On a routed network: no port of the host, but reached at the container's own address."""


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
        self,
        container_id: str,
        name: str,
        target: Target,
        requests: Sequence[PortRequest],
        default_ip: str,
        routed: Collection[int] = (),
    ) -> tuple[Published, ...]:
        """Take ports of the host for a container. routed: IP versions in which none is taken, only opened at the container's address.

        Raises SystemFailure in docker's words, holding none.
        """
        held = self._held[container_id] = _Held(target)
        try:
            return await self._take(held, container_id, name, requests, default_ip, routed)
        except BaseException:
            await self.close(container_id)
            raise

    async def _take(
        self, held: _Held, container_id: str, name: str, requests: Sequence[PortRequest], default_ip: str, routed: Collection[int]
    ) -> tuple[Published, ...]:
        if requests and not self._rules.usable:
            raise SystemFailure(f"cannot publish ports of {name}: the firewall of the default bridge network is not available")
        target = held.target
        for done, request in enumerate(requests, 1):
            ipv6 = bool(target.ip6) or (self._proxy is not None and request.protocol != "sctp")
            host_ips = addresses(request, default_ip, ipv6=ipv6)
            if not target.ip and not request.host_ip:
                host_ips = (_as_ipv6(default_ip),)
            for address in [item for item in host_ips if (6 if ":" in item else 4) in routed]:
                held.opened.append(Published(request.port, request.protocol, address, 0))
            mapped = [item for item in host_ips if (6 if ":" in item else 4) not in routed]
            self._keep(held, hold(request, mapped, name, container_id, target.either, self._published) if mapped else [])
            await _turn(done)
        return (*held.opened, *(port.published for port in held.ports))

    async def extend(
        self,
        container_id: str,
        name: str,
        target: Target,
        requests: Sequence[PortRequest],
        default_ip: str,
        routed: Collection[int] = (),
    ) -> tuple[Published, ...]:
        """More ports of the host for a container at target, which may have some: taken and let through. What is new.

        Raises SystemFailure, leaving it those that it had. Whose container ends meanwhile has none.
        """
        held = self._held.setdefault(container_id, _Held(target))
        more = _Held(held.target)
        try:
            published = await self._take(more, container_id, name, requests, default_ip, routed)
            await self._open(more)
        except BaseException:
            await self._drop(more)
            self._forget_empty(container_id, held)
            raise
        if self._held.get(container_id) is not held:
            await self._drop(more)
            return ()
        held.ports += more.ports
        held.opened += more.opened
        self._forget_empty(container_id, held)
        return published

    async def release(self, container_id: str, ports: Collection[Published]) -> None:
        """Free some of a container's ports. Never raises."""
        held = self._held.get(container_id)
        if held is None:
            return
        gone = _Held(held.target)
        gone.ports = [port for port in held.ports if port.published in ports]
        gone.opened = [port for port in held.opened if port in ports]
        held.ports = [port for port in held.ports if port not in gone.ports]
        held.opened = [port for port in held.opened if port not in gone.opened]
        self._forget_empty(container_id, held)
        await self._drop(gone)

    def _forget_empty(self, container_id: str, held: _Held) -> None:
        if not held.ports and not held.opened and self._held.get(container_id) is held:
            del self._held[container_id]

    async def open(self, container_id: str) -> None:
        """Let connections to its ports through, once its network is there. Raises SystemFailure."""
        await self._open(self._held[container_id])

    async def _open(self, held: _Held) -> None:
        try:
            await self._forward([(held, held.ports)])
            for done, port in enumerate(held.ports, 1):
                await _turn(done)
                await self._serve(held, port)
        except (NftablesError, OSError) as error:
            raise SystemFailure(f"failed to set up container networking: {error}") from error

    async def _forward(self, lots: Sequence[tuple[_Held, Sequence[HeldPort]]]) -> None:
        """Have rules for ports of containers, however many, in one transaction. Raises NftablesError, OSError."""
        forwarded: dict[Published, str] = {}
        opened: dict[str, Sequence[Published]] = {}
        for held, ports in lots:
            for address in held.target.addresses:
                forwarded.update(dict.fromkeys(_by_dnat(ports, address), address))
                opened[address] = [port for port in held.opened if (":" in port.host_ip) == (":" in address)]
        await self._rules.publish(forwarded)
        if any(port.protocol == "udp" for port in forwarded):
            await asyncio.to_thread(flows.forget_older, forwarded)
        await self._rules.open({address: ports for address, ports in opened.items() if ports})

    async def _serve(self, held: _Held, port: HeldPort) -> None:
        """What is to be done for a port beside its rule. Raises OSError."""
        target = held.target
        by_dnat = bool(target.ip6 if port.is_ipv6 else target.ip)
        port.by_proxy = self._proxy is not None and port.published.protocol != "sctp" and (port.is_ipv6 or not by_dnat)
        port.listen()  # after DNAT: no connection that it takes ever waits here
        if port.by_proxy and self._proxy is not None:
            await self._proxy.open(port, target.either)
        elif not by_dnat:
            raise OSError(errno.EADDRNOTAVAIL, f"publishing on {port.published.host_ip} needs IPv6 and the userland proxy")

    async def close(self, container_id: str) -> None:
        """Free a container's ports. Never raises."""
        held = self._held.pop(container_id, None)
        if held is not None:
            await self._drop(held)

    async def _drop(self, held: _Held) -> None:
        published = [port.published for port in held.ports]
        await self._withdraw_from_proxy(held)
        await self._free(held)
        await self._withdraw(held.target, published)
        await self._shut(held)

    async def _withdraw(self, target: Target, ports: Sequence[Published]) -> None:
        await self._rules.withdraw(ports)
        for address in target.addresses:
            if any(port.protocol == "udp" for port in ports):
                await asyncio.to_thread(flows.forget_former, address, ports)

    async def _shut(self, held: _Held) -> None:
        for address in held.target.addresses:
            await self._rules.shut(address, [port for port in held.opened if (":" in port.host_ip) == (":" in address)])

    async def _withdraw_from_proxy(self, held: _Held) -> None:
        for port in held.ports:
            if port.by_proxy and self._proxy is not None:
                await self._proxy.close(port)

    def holds(self, container_id: str) -> bool:
        """Whether a container has ports."""
        return container_id in self._held

    async def move(self, container_id: str, target: Target) -> None:
        """A container's ports lead to another of its addresses from now on. Raises SystemFailure, having freed them."""
        held = self._held[container_id]
        await self._withdraw_from_proxy(held)
        await self._withdraw(held.target, [port.published for port in held.ports])
        await self._shut(held)
        held.target = target
        try:
            await self._open(held)
        except BaseException:
            await self.close(container_id)
            raise

    async def reopen(self, running: Mapping[str, tuple[Target, Sequence[Published]]]) -> None:
        """Take again what running containers had before sampand's restart. Never raises: what cannot be had is logged."""
        found = [await self._hold_again(container_id, target, ports) for container_id, (target, ports) in running.items()]
        lots = [(held, held.ports) for held in found]
        try:
            await self._forward(lots)
        except (NftablesError, OSError):
            lots = [(held, await self._forward_each(held)) for held in found]
        for held, ports in lots:
            for done, port in enumerate(ports, 1):
                await _turn(done)
                try:
                    await self._serve(held, port)
                except OSError as error:
                    log.warning("port %d on %s: %s", port.published.host_port, port.published.host_ip, error)

    async def _hold_again(self, container_id: str, target: Target, ports: Sequence[Published]) -> _Held:
        held = self._held[container_id] = _Held(target)
        held.opened = [port for port in ports if not port.host_port]
        for done, port in enumerate([port for port in ports if port.host_port], 1):
            try:
                self._keep(held, hold(port.again(), [port.host_ip], container_id[:12], container_id, target.either, self._published))
            except SystemFailure as error:
                log.warning("port %d of container %s: %s", port.host_port, container_id, error)
            await _turn(done)
        return held

    async def _forward_each(self, held: _Held) -> list[HeldPort]:
        """A container's ports, or those that can be forwarded."""
        found = []
        for lot in (held.ports, *([port] for port in held.ports)):
            try:
                await self._forward([(held, lot)])
            except (NftablesError, OSError) as error:
                log.warning("ports %s: %s", ", ".join(str(port.published.host_port) for port in lot), error)
            else:
                found += lot
            if len(found) == len(held.ports):
                break
        return found

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


def _by_dnat(ports: Sequence[HeldPort], address: str) -> list[Published]:
    """Those that the kernel's rules forward to an address: of its family. Others are the userland proxy's."""
    return [port.published for port in ports if port.is_ipv6 == (":" in address)]


async def _turn(done: int) -> None:
    """Let others have the event loop after each LOT of ports."""
    if done % LOT == 0:
        await asyncio.sleep(0)
