"""One bridge network: a Linux bridge with an address, its part of the rules, and the addresses of its containers."""

import asyncio
import contextlib
import errno
import ipaddress
import logging
import secrets
import socket
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import msgspec

from sampan.errors import EngineError, SystemFailure
from sampan.ids import new_id
from sampan.linux.netlink import Link, Netlink
from sampan.network import ipam, sandbox
from sampan.network.firewall import Zone
from sampan.network.rules import Rules

log = logging.getLogger(__name__)

VETH_PREFIX = "sv"
"""Names of our veths' ends on the host; remove_strays() removes those of no container."""


class BridgeSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a network is to be; for the default one daemon.json says it, in docker's keys of the same names."""

    bridge: str
    """The interface's name; of a macvlan that of the parent."""
    name: str = "bridge"
    """The network's."""
    bip: str = ""
    """The bridge's own address, with the subnet's prefix length; "" for one of a free pool."""
    fixed_cidr: str = ""
    """The part of the subnet that containers get addresses of."""
    ipv4: bool = True
    ipv6: bool = False
    bip6: str = ""
    """As bip and fixed_cidr, for IPv6."""
    fixed_cidr6: str = ""
    more: tuple[tuple[str, str], ...] = ()
    """(bip, fixed_cidr) of further subnets, which only macvlans and ipvlans can have."""
    reserved: tuple[str, ...] = ()
    """Addresses of the subnets that others have."""
    mtu: int = 1500
    icc: bool = True
    ip_masq: bool = True
    internal: bool = False
    mode: str = "nat"
    """How containers' IPv4 addresses are reached: nat, nat-unprotected, routed, isolated (docker's gateway_mode_ipv4)."""
    mode6: str = "nat"
    flag: str = "bridge"
    """Of an ipvlan: bridge, private, vepa."""
    dummy: bool = False
    """Whether the parent is to be an interface that leads nowhere, made for this network."""
    inhibit: bool = False
    """Whether the bridge is to have no IPv4 address: somebody else has the gateway's."""
    prefix: str = "eth"
    """What the names of its interfaces in containers begin with."""
    owner: str = ""
    """The engine's exec-root: bridges that were made for it are marked by it, and only those are removed."""
    ip: str = "0.0.0.0"
    """Where its containers' ports are published when nothing else is asked for."""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """What a container has on the bridge, for as long as it runs."""

    veth: str
    """Its interface's end on the host; "" for a macvlan."""
    mac: str
    ip: str = ""
    """ "" where the network has no IPv4."""
    prefix_len: int = 0
    gateway: str = ""
    ip6: str = ""
    prefix_len6: int = 0
    gateway6: str = ""
    endpoint_id: str = ""


class Bridge:
    """Every method is for the event loop's thread; what blocks runs in a worker."""

    def __init__(self, settings: BridgeSettings, rules: Rules, pools: ipam.Pools | None = None) -> None:
        """pools: where a subnet comes from that the settings do not name."""
        self.settings = settings
        self.default_ip = settings.ip or "0.0.0.0"
        self._rules = rules
        self._pools = pools or ipam.Pools()
        self._addresses: ipam.Ranges | None = None
        self._addresses6: ipam.Ranges | None = None
        self._is_up = False
        self._starting = asyncio.Lock()
        self.warnings: list[str] = []
        """What does not work on this host, for the log and `docker info`."""
        self.problem = ""
        """Why it could not be started, until it could."""

    @property
    def gateways(self) -> list[ipam.Interface]:
        """The bridge's addresses, IPv4 first; what its settings say, before they are had."""
        if self._is_up:
            return [gateway for addresses in (self._addresses, self._addresses6) if addresses is not None for gateway in addresses.gateways]
        settings = self.settings
        return [ipaddress.ip_interface(text) for text in (settings.bip, settings.bip6, *(bip for bip, _ in settings.more)) if text]

    @property
    def host_addresses(self) -> list[str]:
        """The addresses that are the host to its containers, IPv4 first."""
        settings = self.settings
        without = {4: settings.inhibit or settings.mode == "isolated", 6: settings.mode6 == "isolated"}
        return [str(found.ip) for found in self.gateways if not without[found.version]]

    @property
    def subnets(self) -> list[ipam.Network]:
        """What no other network may overlap, whether the bridge could be made or not."""
        return [found.network for found in self.gateways]

    @property
    def versions(self) -> frozenset[int]:
        """The IP versions that it has."""
        return frozenset(version for version, has in ((4, self.settings.ipv4), (6, self.settings.ipv6)) if has)

    @property
    def publishes(self) -> bool:
        """Whether ports of its containers can be published."""
        return not self.settings.internal

    @property
    def routed(self) -> frozenset[int]:
        """The IP versions in which ports are not mapped to the host's: whoever has a route reaches those that are published."""
        return frozenset(version for version, mode in ((4, self.settings.mode), (6, self.settings.mode6)) if mode == "routed")

    async def start(self) -> None:
        """Make or adopt the bridge, and its rules before anything goes over it; can be repeated when it was lost. Raises SystemFailure."""
        async with self._starting:
            await self._start()

    async def ensure(self) -> None:
        """Make the bridge if that failed at the start of the engine. Raises SystemFailure."""
        async with self._starting:
            if not self._is_up:
                await self._start()

    async def _start(self) -> None:
        zone = await self.prepare()
        if zone is not None:
            await self._rules.add(zone)
        await self.finish()

    async def prepare(self) -> Zone | None:
        """First half of a start: the interface is there. What the rules are to know of it before finish(). Raises SystemFailure."""
        with self._failing():
            gateway, gateway6 = await asyncio.to_thread(self._make)
            settings = self.settings
            if gateway is not None and self._addresses is None:
                self._addresses = ipam.Ranges([ipam.Addresses(gateway, settings.fixed_cidr, settings.reserved, settings.name)])
            if gateway6 is not None and self._addresses6 is None:
                self._addresses6 = ipam.Ranges([ipam.Addresses(gateway6, settings.fixed_cidr6, settings.reserved, settings.name)])
        return self._zone()

    async def finish(self) -> None:
        """Second half, with its rules in force: it forwards, and gives addresses. Raises SystemFailure."""
        with self._failing():
            await asyncio.to_thread(self._bring_up)
        self._is_up, self.problem = True, ""

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:
            shown = "default bridge" if self.settings.name == "bridge" else self.settings.name
            raise SystemFailure(f"failed to create the {shown} network {self.settings.bridge}: {error}") from error

    def _zone(self) -> Zone:
        settings = self.settings
        both = ((self._addresses, settings.mode), (self._addresses6, settings.mode6))
        had = [(addresses.gateway.network, mode) for addresses, mode in both if addresses is not None]
        return Zone(
            bridge=settings.bridge, subnets=tuple(subnet for subnet, _ in had), icc=settings.icc, internal=settings.internal,
            masqueraded=tuple(subnet for subnet, mode in had if settings.ip_masq and mode.startswith("nat") and not settings.internal),
            unprotected=tuple(subnet.version for subnet, mode in had if mode == "nat-unprotected"),
        )  # fmt: skip

    def _make(self) -> tuple[ipam.Interface | None, ipam.Interface | None]:
        with Netlink() as netlink:
            index = index_of(self.settings.bridge)
            if index is not None and not Path("/sys/class/net", self.settings.bridge, "bridge").is_dir():
                raise FileExistsError(errno.EEXIST, "there is an interface of this name that is no bridge")
            settings = self.settings
            has = netlink.addresses(index) if index is not None and settings.ipv4 else []
            gateway: ipam.Interface | None = ipaddress.IPv4Interface(has[0]) if has else None
            if gateway is None and settings.ipv4:
                routes = [] if settings.bip or settings.fixed_cidr else netlink.routes()
                gateway = ipam.gateway_of(settings.bip, settings.fixed_cidr, 4, self._pools, routes)
            elif gateway is not None and settings.bip and ipaddress.ip_interface(settings.bip) != gateway:
                words = f"bridge {settings.bridge} has the address {gateway} already; bip {settings.bip} is not used"
                self.warnings.append(words)
                log.warning("%s", words)
            if index is None:
                mac = sandbox.mac_of(str(gateway.ip)) if gateway is not None else b"\x02" + secrets.token_bytes(5)
                netlink.add_bridge(settings.bridge, mac, settings.mtu)
                index = socket.if_nametoindex(settings.bridge)
                netlink.set_link(index, alias=mark_of(settings.owner))
            if gateway is not None and not has and not settings.inhibit and settings.mode != "isolated":
                netlink.add_address(index, str(gateway.ip), gateway.network.prefixlen, str(gateway.network.broadcast_address))
            return gateway, self._make6(netlink, index) if settings.ipv6 else None

    def _make6(self, netlink: Netlink, index: int) -> ipam.Interface:
        """The bridge's IPv6 address, which it has then."""
        settings = self.settings
        directory = Path("/proc/sys/net/ipv6/conf", settings.bridge)
        if not directory.exists():
            raise OSError(errno.EAFNOSUPPORT, "this host has no IPv6")
        (directory / "disable_ipv6").write_text("0")
        (directory / "accept_ra").write_text("0")  # what a container announces is not for the host
        if self._rules.forward:
            sysctl("net/ipv6/conf/all/forwarding", "1")
        has = [ipaddress.ip_interface(found) for found in netlink.addresses(index, socket.AF_INET6)]
        wanted = settings.bip6 or next((str(found) for found in has), "")
        routes = [] if wanted or settings.fixed_cidr6 else netlink.routes(socket.AF_INET6)
        gateway = ipam.gateway_of(wanted, settings.fixed_cidr6, 6, self._pools, routes)
        if gateway not in has and settings.mode6 != "isolated":
            netlink.add_address(index, str(gateway.ip), gateway.network.prefixlen)
        return gateway

    def _bring_up(self) -> None:
        with Netlink() as netlink:
            netlink.set_link(socket.if_nametoindex(self.settings.bridge), up=True)
        if self._rules.usable:
            sysctl(f"net/ipv4/conf/{self.settings.bridge}/route_localnet", "1")  # after the guard in the table: never without it

    async def remove(self) -> None:
        """Take the bridge and its rules away: no container is on it. Never raises."""
        if self.settings.bridge in owned(self.settings.owner):
            await asyncio.to_thread(sandbox.delete_link, self.settings.bridge)
        await self._rules.drop(self.settings.bridge)

    # containers

    def take(self, asked: str = "", mac: str = "", asked6: str = "") -> Place:
        """Addresses, or those asked for, and the name of a veth. mac: in colon form, "" for one made of the address.

        Raises SystemFailure, InvalidArgument, Forbidden.
        """
        if not self._is_up:
            raise SystemFailure(f"the network {self.settings.name} is not available")
        v4, v6 = self._addresses, self._addresses6
        ip = v4.take(asked) if v4 is not None else ""
        try:
            ip6 = v6.take(asked6) if v6 is not None else ""
        except EngineError:
            if v4 is not None:
                v4.release(ip)
            raise
        hardware = sandbox.mac_of(ip) if ip else b"\x02" + secrets.token_bytes(5)
        (length, gateway), (length6, gateway6) = self._way_out(v4, ip, self.settings.mode), self._way_out(v6, ip6, self.settings.mode6)
        return Place(
            veth=self._new_veth(), mac=mac or sandbox.mac_text(hardware), endpoint_id=new_id(),
            ip=ip, prefix_len=length, gateway=gateway, ip6=ip6, prefix_len6=length6, gateway6=gateway6,
        )  # fmt: skip

    def _way_out(self, addresses: ipam.Ranges | None, address: str, mode: str) -> tuple[int, str]:
        """The length of the prefix of an address, and its gateway; "" where nothing leads out."""
        if addresses is None:
            return 0, ""
        gateway = addresses.gateway_of(address)
        return gateway.network.prefixlen, str(gateway.ip) if self._leads_out(mode) else ""

    def _leads_out(self, mode: str) -> bool:
        return mode != "isolated" and not self.settings.internal

    def _new_veth(self) -> str:
        return VETH_PREFIX + secrets.token_hex(5)

    def take_again(self, place: Place) -> bool:
        """The addresses of a container that ran before sampand's restart; False when they are not free."""
        both = ((self._addresses, place.ip), (self._addresses6, place.ip6))
        return all([addresses is not None and addresses.take_this(ip) for addresses, ip in both if ip])

    def interface(self, place: Place, name: str, *, default_routes: Collection[int] = ()) -> sandbox.Interface:
        """What is to be made in the container's netns. default_routes: the IP versions whose default route goes by it."""
        return sandbox.Interface(
            name=name, veth=place.veth, bridge=self.settings.bridge, mac=bytes.fromhex(place.mac.replace(":", "")),
            address=ipaddress.IPv4Interface((place.ip, place.prefix_len)) if place.ip else None,
            address6=ipaddress.IPv6Interface((place.ip6, place.prefix_len6)) if place.ip6 else None,
            mtu=self.settings.mtu, gateway=place.gateway if 4 in default_routes else "",
            gateway6=place.gateway6 if 6 in default_routes else "",
        )  # fmt: skip

    async def release(self, place: Place) -> None:
        """Take addresses back; the veth is down then, and still to be deleted. Never raises."""
        if place.veth:
            await asyncio.to_thread(sandbox.take_down, place.veth)
        for addresses, ip in ((self._addresses, place.ip), (self._addresses6, place.ip6)):
            if addresses is not None and ip:
                addresses.release(ip)  # nothing answers at it


def remove_strays(bridges: Iterable[str], kept: set[str]) -> bool:
    """Remove veths on bridges that are no container's; whether there was one. Blocks. Never raises."""
    found = False
    with contextlib.suppress(OSError), Netlink() as netlink:
        masters = {index for index in map(index_of, bridges) if index is not None}
        for link in netlink.links():
            if link.master in masters and link.name.startswith(VETH_PREFIX) and link.name not in kept:
                found = True
                netlink.delete_link(link.name)
    return found


def index_of(name: str) -> int | None:
    """An interface's number; None where there is none of this name. One question, however many there are."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return None


def mark_of(owner: str) -> str:
    """The alias of bridges made for an engine; "" for nobody's."""
    return f"sampan {owner}"[:255] if owner else ""


def owned(owner: str) -> list[str]:
    """The names of the bridges that were made for an engine, whatever it knows of them."""
    return [link.name for link in links() if mark_of(owner) and link.alias == mark_of(owner)]


def links() -> list[Link]:
    """All interfaces of the host. Raises OSError. Blocks."""
    with Netlink() as netlink:
        return netlink.links()


def put_on(veth: str, bridge: str) -> None:
    """Have a container's interface on a bridge again. Raises OSError. Blocks."""
    with Netlink() as netlink:
        netlink.set_link(socket.if_nametoindex(veth), up=True, master=socket.if_nametoindex(bridge))


def sysctl(name: str, value: str) -> None:
    """Set a value of /proc/sys unless it is so; a failure is logged."""
    path = Path("/proc/sys") / name
    try:
        if path.read_text().strip() != value:
            path.write_text(value)
    except OSError as error:
        log.warning("sysctl %s cannot be set: %s", name, error)
