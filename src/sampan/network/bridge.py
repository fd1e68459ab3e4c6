"""One bridge network: a Linux bridge with an address, its part of the rules, and the addresses of its containers."""

import asyncio
import contextlib
import errno
import ipaddress
import logging
import secrets
import socket
from pathlib import Path

import msgspec

from sampan.errors import SystemFailure
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
    """The interface's name."""
    name: str = "bridge"
    """The network's."""
    bip: str = ""
    """The bridge's own address, with the subnet's prefix length; "" for one of a free pool."""
    fixed_cidr: str = ""
    """The part of the subnet that containers get addresses of."""
    reserved: tuple[str, ...] = ()
    """Addresses of the subnet that others have."""
    mtu: int = 1500
    icc: bool = True
    ip_masq: bool = True
    internal: bool = False
    owner: str = ""
    """The engine's exec-root: bridges that were made for it are marked by it, and only those are removed."""
    ip: str = "0.0.0.0"
    """Where its containers' ports are published when nothing else is asked for."""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """What a container has on the bridge, for as long as it runs."""

    ip: str
    veth: str
    """Its interface's end on the host."""
    prefix_len: int
    gateway: str
    mac: str
    endpoint_id: str = ""


class Bridge:
    """Every method is for the event loop's thread; what blocks runs in a worker."""

    def __init__(self, settings: BridgeSettings, rules: Rules) -> None:
        self.settings = settings
        self.default_ip = settings.ip or "0.0.0.0"
        self._rules = rules
        self._addresses: ipam.Addresses | None = None
        self._starting = asyncio.Lock()
        self.warnings: list[str] = []
        """What does not work on this host, for the log and `docker info`."""

    @property
    def gateway(self) -> ipaddress.IPv4Interface:
        """The bridge's address. Raises SystemFailure before start()."""
        return self._own.gateway

    @property
    def subnet(self) -> ipaddress.IPv4Network:
        """What no other network may overlap, whether the bridge could be made or not."""
        return ipaddress.IPv4Interface(self.settings.bip).network if self._addresses is None else self.gateway.network

    @property
    def _own(self) -> ipam.Addresses:
        if self._addresses is None:
            raise SystemFailure(f"the network {self.settings.name} is not available")
        return self._addresses

    @property
    def is_up(self) -> bool:
        """Whether start() has been through."""
        return self._addresses is not None

    async def start(self) -> None:
        """Make or adopt the bridge, and its rules before anything goes over it; can be repeated when it was lost. Raises SystemFailure."""
        async with self._starting:
            await self._start()

    async def ensure(self) -> None:
        """Make the bridge if that failed at the start of the engine. Raises SystemFailure."""
        async with self._starting:
            if self._addresses is None:
                await self._start()

    async def _start(self) -> None:
        try:
            gateway = await asyncio.to_thread(self._make)
            if self._addresses is None:
                self._addresses = ipam.Addresses(gateway, self.settings.fixed_cidr, self.settings.reserved, self.settings.name)
            zone = Zone(
                bridge=self.settings.bridge, subnets=(gateway.network,), icc=self.settings.icc, masquerade=self.settings.ip_masq,
                internal=self.settings.internal,
            )  # fmt: skip
            await self._rules.add(zone)
            await asyncio.to_thread(self._bring_up)
        except (OSError, ValueError) as error:
            shown = "default bridge" if self.settings.name == "bridge" else self.settings.name
            raise SystemFailure(f"failed to create the {shown} network {self.settings.bridge}: {error}") from error

    def _make(self) -> ipaddress.IPv4Interface:
        with Netlink() as netlink:
            index = next((link.index for link in netlink.links() if link.name == self.settings.bridge), None)
            if index is not None and not Path("/sys/class/net", self.settings.bridge, "bridge").is_dir():
                raise FileExistsError(errno.EEXIST, "there is an interface of this name that is no bridge")
            found = netlink.addresses(index) if index is not None else []
            gateway = ipaddress.IPv4Interface(found[0]) if found else None
            bip = self.settings.bip
            if gateway is None:
                gateway = ipam.gateway_of(bip, self.settings.fixed_cidr, netlink.routes())
                if index is None:
                    mac = sandbox.mac_of(str(gateway.ip))
                    netlink.add_bridge(self.settings.bridge, mac, self.settings.mtu)
                    index = socket.if_nametoindex(self.settings.bridge)
                    netlink.set_link(index, alias=mark_of(self.settings.owner))
                netlink.add_address(index, str(gateway.ip), gateway.network.prefixlen, str(gateway.network.broadcast_address))
            elif bip and ipaddress.IPv4Interface(bip) != gateway:
                words = f"bridge {self.settings.bridge} has the address {gateway} already; bip {bip} is not used"
                self.warnings.append(words)
                log.warning("%s", words)
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

    def take(self, asked: str = "", mac: str = "") -> Place:
        """An address, or the one asked for, and the name of a veth. mac: in colon form, "" for one made of the address.

        Raises SystemFailure, InvalidArgument, Forbidden.
        """
        ip = self._own.take(asked)
        gateway = self.gateway
        hardware = mac or sandbox.mac_text(sandbox.mac_of(ip))
        veth = VETH_PREFIX + secrets.token_hex(5)
        return Place(
            ip=ip, veth=veth, prefix_len=gateway.network.prefixlen, gateway=str(gateway.ip), mac=hardware, endpoint_id=new_id()
        )  # fmt: skip

    def take_again(self, ip: str) -> bool:
        """The address of a container that ran before sampand's restart; False when it is not free."""
        return self._addresses is not None and self._addresses.take_this(ip)

    def interface(self, place: Place, name: str, *, default_route: bool) -> sandbox.Interface:
        """What is to be made in the container's netns."""
        return sandbox.Interface(
            name=name, veth=place.veth, bridge=self.settings.bridge, mac=bytes.fromhex(place.mac.replace(":", "")),
            address=ipaddress.IPv4Interface((place.ip, place.prefix_len)), mtu=self.settings.mtu,
            gateway=place.gateway if default_route and not self.settings.internal else "",
        )  # fmt: skip

    async def release(self, place: Place) -> None:
        """Take an address back; its veth is down then, and still to be deleted. Never raises."""
        await asyncio.to_thread(sandbox.take_down, place.veth)
        if self._addresses is not None:
            self._addresses.release(place.ip)  # nothing answers at it

    def remove_strays(self, kept: set[str]) -> None:
        """Remove veths of no container. Blocks. Never raises."""
        with contextlib.suppress(OSError), Netlink() as netlink:
            master = socket.if_nametoindex(self.settings.bridge)
            for link in netlink.links():
                if link.master == master and link.name.startswith(VETH_PREFIX) and link.name not in kept:
                    netlink.delete_link(link.name)


def mark_of(owner: str) -> str:
    """The alias of bridges made for an engine; "" for nobody's."""
    return f"sampan {owner}"[:255] if owner else ""


def owned(owner: str) -> list[str]:
    """The names of the bridges that were made for an engine, whatever it knows of them."""
    found = []
    for path in Path("/sys/class/net").iterdir():
        with contextlib.suppress(OSError, UnicodeDecodeError):
            if mark_of(owner) and (path / "ifalias").read_text().rstrip("\n") == mark_of(owner):
                found.append(path.name)
    return found


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
