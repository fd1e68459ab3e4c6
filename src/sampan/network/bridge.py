"""The default bridge network: a Linux bridge, a veth per container, masquerade and published ports."""

import asyncio
import contextlib
import errno
import ipaddress
import logging
import os
import secrets
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from sampan.errors import SystemFailure
from sampan.linux.netlink import Netlink
from sampan.linux.nftables import NftablesError
from sampan.network import firewall, ipam, sandbox
from sampan.network.ports import HeldPort, PortRequest, Published, PublishedPorts, addresses, hold
from sampan.network.proxy import UserlandProxy, ipv6_is_usable
from sampan.network.watch import RulesetWatch

log = logging.getLogger(__name__)

VETH_PREFIX = "sv"
"""Names of our veths' ends on the host; reconcile() removes those of no container."""
LOT = 100
"""Ports that are dealt with before the event loop has its turn."""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """What a container has on the bridge, for as long as it runs: its address, its veth's end on the host, and its published ports."""

    ip: str
    veth: str
    ports: tuple[Published, ...]


class Endpoint(Place, frozen=True, kw_only=True):
    """A place just taken. netns is open until detach()."""

    netns: int
    prefix_len: int
    gateway: str
    mac: str


class _Held:
    def __init__(self, ip: str, veth: str) -> None:
        self.ip = ip
        self.veth = veth
        self.netns = -1
        self.ports: list[HeldPort] = []


class BridgeSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What daemon.json says of the default bridge network; docker's keys of the same names."""

    bridge: str
    bip: str = ""
    fixed_cidr: str = ""
    mtu: int = 1500
    icc: bool = True
    ip_masq: bool = True
    ip_forward: bool = True
    iptables: bool = True
    ip: str = "0.0.0.0"
    userland_proxy: bool = True
    owner: str = ""
    """The engine's exec-root, by which its userland proxy is found."""


class BridgeNetwork:
    """The driver. Every method is for the event loop's thread; what blocks runs in a worker."""

    def __init__(self, settings: BridgeSettings) -> None:
        self.settings = settings
        self.bridge = settings.bridge
        self.default_ip = settings.ip or "0.0.0.0"
        self._firewall: firewall.Firewall | None = None
        self._watch: RulesetWatch | None = None
        self._proxy = UserlandProxy(settings.owner) if settings.userland_proxy and ipv6_is_usable() else None
        self._addresses: ipam.Addresses | None = None
        self._held: dict[str, _Held] = {}
        self._published = PublishedPorts()
        self._tasks: set[asyncio.Task[None]] = set()
        self.warnings: list[str] = []
        """What does not work on this host, for the log and `docker info`."""

    @property
    def gateway(self) -> ipaddress.IPv4Interface:
        """The bridge's address. Raises SystemFailure before start()."""
        if self._addresses is None:
            raise SystemFailure("the default bridge network is not available")
        return self._addresses.gateway

    # the bridge

    async def start(self) -> None:
        """Make or adopt the bridge and its rules. Raises SystemFailure; a missing firewall is a warning only."""
        try:
            await asyncio.to_thread(self._start)
            if self._firewall is not None:
                self._watch = RulesetWatch(self._firewall.table, self._restore_rules)
        except (OSError, ValueError) as error:
            raise SystemFailure(f"failed to create the default bridge network {self.bridge}: {error}") from error

    def _start(self) -> None:
        with Netlink() as netlink:
            index = next((link.index for link in netlink.links() if link.name == self.bridge), None)
            found = netlink.addresses(index) if index is not None else []
            gateway = ipaddress.IPv4Interface(found[0]) if found else None
            bip = self.settings.bip
            if gateway is None:
                gateway = ipam.gateway_of(bip, self.settings.fixed_cidr, netlink.routes())
                if index is None:
                    netlink.add_bridge(self.bridge, sandbox.mac_of(str(gateway.ip)), self.settings.mtu)
                    index = socket.if_nametoindex(self.bridge)
                netlink.add_address(index, str(gateway.ip), gateway.network.prefixlen, str(gateway.network.broadcast_address))
            elif bip and ipaddress.IPv4Interface(bip) != gateway:
                self._warn(f"bridge {self.bridge} has the address {gateway} already; bip {bip} is not used")
            assert index is not None
            netlink.set_link(index, up=True)
        self._addresses = ipam.Addresses(gateway, self.settings.fixed_cidr)
        if self.settings.ip_forward:
            _sysctl("net/ipv4/ip_forward", "1")
        if self.settings.iptables:
            self._start_firewall(gateway.network)

    def _start_firewall(self, subnet: ipaddress.IPv4Network) -> None:
        try:
            rules = firewall.Firewall(self.bridge)
            rules.create(subnet, icc=self.settings.icc, masquerade=self.settings.ip_masq)
        except NftablesError as error:
            self._warn(f"nftables cannot be used: no masquerade and no published ports: {error}")
            return
        self._firewall = rules
        _sysctl(f"net/ipv4/conf/{self.bridge}/route_localnet", "1")  # after the guard in the table: never without it
        firewall.open_forwarding(self.bridge)

    async def _restore_rules(self, ours: bool) -> None:
        """Put back what somebody took away: our own table, or the way through the host's filter."""
        rules = self._firewall
        if rules is None:
            return
        if not ours:
            await asyncio.to_thread(firewall.open_forwarding, self.bridge)
            return
        log.warning("somebody removed rules of table %s: making it anew", rules.table)
        try:
            # Without a break for the event loop: no container comes or goes between the table and its elements.
            rules.create(self.gateway.network, icc=self.settings.icc, masquerade=self.settings.ip_masq)
            for held in self._held.values():
                published = _by_dnat(held.ports)
                if published:
                    rules.publish(held.ip, published)
        except NftablesError as error:
            log.warning("table %s: %s", rules.table, error)

    def _warn(self, words: str) -> None:
        self.warnings.append(words)
        log.warning("%s", words)

    async def stop(self, remove: bool) -> None:
        """Close what is held. With remove also take the bridge and all rules away: no container may run."""
        if self._watch is not None:
            await self._watch.stop()
        if self._proxy is not None:
            await self._proxy.stop()
        for held in list(self._held.values()):
            await self._close(held)
        self._held.clear()
        if self._tasks:
            await asyncio.gather(*self._tasks)
        if remove:
            await asyncio.to_thread(self._remove)

    def _remove(self) -> None:
        with contextlib.suppress(OSError), Netlink() as netlink:
            netlink.delete_link(self.bridge)
        if self._firewall is not None:
            with contextlib.suppress(NftablesError):
                self._firewall.remove()
            firewall.close_forwarding(self.bridge)

    # containers

    async def attach(self, container_id: str, name: str, ports: Sequence[PortRequest], mac: str = "") -> Endpoint:
        """A netns with an address (mac: in colon form, "" for one made of the address), and the published ports.

        Raises SystemFailure, leaving nothing.
        """
        await self.detach(container_id)
        gateway = self.gateway
        if ports and self._firewall is None:
            raise SystemFailure(f"cannot publish ports of {name}: the firewall of the default bridge network is not available")
        assert self._addresses is not None
        held = _Held(self._addresses.take(), VETH_PREFIX + secrets.token_hex(5))
        self._held[container_id] = held
        address = ipaddress.IPv4Interface((held.ip, gateway.network.prefixlen))
        try:
            for done, request in enumerate(ports, 1):
                host_ips = addresses(request, self.default_ip, ipv6=self._proxy is not None)
                self._keep(held, hold(request, host_ips, name, container_id, held.ip, self._published))
                await _turn(done)
            hardware = bytes.fromhex(mac.replace(":", "")) if mac else sandbox.mac_of(held.ip)
            mtu = self.settings.mtu
            held.netns = await asyncio.to_thread(sandbox.make, held.veth, self.bridge, address, hardware, str(gateway.ip), mtu)
            await self._open(held, held.ports)
            published = tuple(port.published for port in held.ports)
        except BaseException as error:
            await self.detach(container_id)
            if isinstance(error, (OSError, NftablesError)):
                raise SystemFailure(f"failed to set up container networking: {error}") from error
            raise
        return Endpoint(
            ip=held.ip, veth=held.veth, ports=published, netns=held.netns,
            prefix_len=gateway.network.prefixlen, gateway=str(gateway.ip), mac=sandbox.mac_text(hardware),
        )  # fmt: skip

    async def _open(self, held: _Held, ports: Sequence[HeldPort]) -> None:
        """Let connections to held ports through. Raises NftablesError, OSError."""
        by_dnat = _by_dnat(ports)
        if by_dnat and self._firewall is not None:
            await asyncio.to_thread(self._firewall.publish, held.ip, by_dnat)
        for done, port in enumerate(ports, 1):
            await _turn(done)
            port.listen()  # after DNAT: no IPv4 connection ever waits here
            if port.is_ipv6:
                if self._proxy is None:
                    raise OSError(errno.EADDRNOTAVAIL, f"publishing on {port.published.host_ip} needs IPv6 and the userland proxy")
                await self._proxy.open(port, held.ip)

    async def detach(self, container_id: str) -> None:
        """Take everything of a container back. Never raises."""
        held = self._held.pop(container_id, None)
        if held is None:
            return
        for port in held.ports:
            if port.is_ipv6 and self._proxy is not None:
                await self._proxy.close(port)
        by_dnat = _by_dnat(held.ports)
        await self._close(held)
        await asyncio.to_thread(self._disconnect, held.veth, by_dnat)
        if self._addresses is not None:
            self._addresses.release(held.ip)  # its veth is down: nothing answers at the address
        task = asyncio.get_running_loop().create_task(self._discard(held))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _keep(self, held: _Held, ports: Sequence[HeldPort]) -> None:
        held.ports += ports
        for port in ports:
            self._published.add(port.published)

    async def _close(self, held: _Held) -> None:
        """Free the netns and the ports on the host."""
        if held.netns >= 0:
            os.close(held.netns)
            held.netns = -1
        while held.ports:
            port = held.ports.pop()
            self._published.remove(port.published)
            port.close()
            await _turn(len(held.ports))

    def _disconnect(self, veth: str, published: Sequence[Published]) -> None:
        with contextlib.suppress(OSError), Netlink() as netlink:
            netlink.set_link(socket.if_nametoindex(veth), up=False)
        if self._firewall is None or not published:
            return
        try:
            self._firewall.withdraw(published)
        except NftablesError:  # one that is not there: attach() failed before it, or its rules were taken away
            for port in published:
                with contextlib.suppress(NftablesError):
                    self._firewall.withdraw([port])

    async def _discard(self, held: _Held) -> None:
        """Delete a veth. The kernel takes some 20 ms: nobody waits."""
        await asyncio.to_thread(_delete_link, held.veth)

    async def reconcile(self, live: Mapping[str, Place]) -> None:
        """Take again what live containers have, by their IDs, after start(); remove veths of no container. Never raises."""
        for container_id, place in live.items():
            if self._addresses is None:
                continue
            held = _Held(place.ip, place.veth)
            if not self._addresses.take_this(held.ip):
                log.warning("address %s of container %s is not free", held.ip, container_id)
            self._held[container_id] = held
            await self._publish_again(container_id, held, place.ports)
        await asyncio.to_thread(self._remove_strays, {held.veth for held in self._held.values()})

    async def _publish_again(self, container_id: str, held: _Held, ports: Sequence[Published]) -> None:
        for done, port in enumerate(ports, 1):
            request = PortRequest(port.port, port.protocol, port.host_ip, port.host_port, port.host_port)
            try:
                self._keep(held, hold(request, [port.host_ip], container_id[:12], container_id, held.ip, self._published))
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

    def _remove_strays(self, kept: set[str]) -> None:
        with contextlib.suppress(OSError), Netlink() as netlink:
            master = socket.if_nametoindex(self.bridge)
            for link in netlink.links():
                if link.master == master and link.name.startswith(VETH_PREFIX) and link.name not in kept:
                    netlink.delete_link(link.name)


def _by_dnat(ports: Sequence[HeldPort]) -> list[Published]:
    """Those that the kernel's rules forward; the others are the userland proxy's."""
    return [port.published for port in ports if not port.is_ipv6]


async def _turn(done: int) -> None:
    """Let others have the event loop after each LOT of ports."""
    if done % LOT == 0:
        await asyncio.sleep(0)


def _delete_link(name: str) -> None:
    with contextlib.suppress(OSError), Netlink() as netlink:
        netlink.delete_link(name)


def _sysctl(name: str, value: str) -> None:
    path = Path("/proc/sys") / name
    try:
        if path.read_text().strip() != value:
            path.write_text(value)
    except OSError as error:
        log.warning("sysctl %s cannot be set: %s", name, error)
