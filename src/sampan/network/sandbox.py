"""A container's network namespace and the interfaces in it.

What happens inside one is done by a short-lived thread, so that the daemon's other threads stay in the host's.
"""

import contextlib
import errno
import ipaddress
import os
import socket
import threading
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import msgspec

from sampan.errors import SystemFailure
from sampan.linux import libc, nfredirect
from sampan.linux.namespaces import CLONE_NEWNET
from sampan.linux.netlink import Netlink
from sampan.network.resolvconf import EMBEDDED


class Interface(msgspec.Struct, frozen=True, kw_only=True):
    """One interface of a container, and its other end on a bridge of the host."""

    name: str
    """Inside: eth0."""
    veth: str
    """On the host; "" for a macvlan, which has no end there."""
    bridge: str
    """Where that is; of a macvlan the parent interface."""
    mac: bytes
    mtu: int
    address: ipaddress.IPv4Interface | None = None
    address6: ipaddress.IPv6Interface | None = None
    gateway: str = ""
    """Of the default route, for the one interface that has it."""
    gateway6: str = ""
    kind: str = "veth"
    """Or macvlan, or ipvlan."""
    mode: str = ""
    """Of a macvlan or ipvlan."""
    flag: str = "bridge"
    """Of an ipvlan."""
    on_link: tuple[int, ...] = ()
    """The IP versions whose default route goes by it without a gateway."""
    link_local: tuple[str, ...] = ()
    """More addresses, in CIDR form."""
    sysctls: tuple[str, ...] = ()
    """Its own, as net.X.Y.IFNAME.Z=V with its name in the place of IFNAME."""

    @property
    def default_routes(self) -> frozenset[int]:
        """The IP versions whose default route goes by it."""
        return frozenset((*self.on_link, *(version for version, by in ((4, self.gateway), (6, self.gateway6)) if by)))


_TABLE = "sampan_dns"
"""In the container's own netns."""
_ADDING = "failed to set up container networking: failed to add interface {} to sandbox: "


def mac_of(address: str) -> bytes:
    """moby's MAC address for an IPv4 address: 02:42 and the address."""
    return b"\x02\x42" + socket.inet_aton(address)


def mac_text(mac: bytes) -> str:
    """In the usual colon form."""
    return ":".join(f"{byte:02x}" for byte in mac)


def _allow_hairpin(veth: str) -> None:
    """Let a container reach its own published port where br_netfilter is on.

    There DNAT happens while the packet is bridged, and a bridge does not send a packet out of the port it came from unless told to.
    Without br_netfilter the packet is routed and leaves as the bridge's own.
    """
    with contextlib.suppress(OSError):
        if Path("/proc/sys/net/bridge/bridge-nf-call-iptables").read_text().strip() == "1":
            Path(f"/sys/class/net/{veth}/brport/hairpin_mode").write_text("1")


def _in_thread(work: Callable[[], None]) -> None:
    """Do work in a thread that may change its namespaces. Raises its OSError or SystemFailure."""
    failed: list[OSError | SystemFailure] = []

    def body() -> None:
        try:
            work()
        except (OSError, SystemFailure) as error:
            failed.append(error)

    thread = threading.Thread(target=body, name="netns")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


def _set_up(inside: Netlink, interface: Interface) -> None:
    """Address, state and route of an interface that is there; the thread is in its netns."""
    index = socket.if_nametoindex(interface.name)
    if interface.address is not None:
        network = interface.address.network
        inside.add_address(index, str(interface.address.ip), network.prefixlen, str(network.broadcast_address))
    # Without IPv6 on the network there is none on the interface, as docker has it; it also spares the wait for a tentative address.
    with contextlib.suppress(FileNotFoundError):
        Path(f"/proc/sys/net/ipv6/conf/{interface.name}/disable_ipv6").write_text("1" if interface.address6 is None else "0")
    if interface.address6 is not None:
        inside.add_address(index, str(interface.address6.ip), interface.address6.network.prefixlen)
    try:
        for found in map(ipaddress.ip_interface, interface.link_local):
            inside.add_address(index, str(found.ip), found.network.prefixlen)
    except OSError as error:
        shown = " ".join(interface.link_local)
        words = f'error setting interface "{interface.veth}" link local IPs to [{shown}]: {_reason(error)}'
        raise SystemFailure(_ADDING.format(interface.veth) + words) from error
    inside.set_link(index, up=True)
    for sysctl in interface.sysctls:
        _set_sysctl(interface, sysctl)
    _set_default_routes(inside, interface)


def _set_default_routes(inside: Netlink, interface: Interface) -> None:
    if interface.gateway:
        inside.set_default_route(interface.gateway)
    if interface.gateway6:
        inside.set_default_route(interface.gateway6, socket.AF_INET6)
    for version in interface.on_link:
        inside.set_default_route("", socket.AF_INET if version == 4 else socket.AF_INET6, by=socket.if_nametoindex(interface.name))


def _set_sysctl(interface: Interface, sysctl: str) -> None:
    """One of an interface's own, in docker's words where it cannot be. Raises SystemFailure."""
    name, separator, value = sysctl.partition("=")
    words = name.split(".")
    problem = ""
    if not separator:
        problem = f"expected sysctl '{sysctl}' to have format name=value"
    elif len(words) != 5:
        problem = f"expected sysctl '{sysctl}' to have format net.X.Y.IFNAME.Z"
    else:
        path = Path("/proc/sys", *(word.replace("/", "") for word in words[:3]), interface.name, words[4].replace("/", ""))
        try:
            if not path.is_file():
                problem = f"{path} is not a sysctl file"
            elif path.read_text().strip() != value:
                path.write_text(value)
        except OSError as error:
            problem = f"unable to write to '{path}': write {path}: {_reason(error)}"
    if problem:
        raise SystemFailure(_ADDING.format(interface.veth) + problem)


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def _add(host: Netlink, netns: int, interface: Interface, master: int) -> None:
    problem = _name_problem(interface.name)
    if not problem:
        try:
            _make(host, netns, interface, master)
        except FileExistsError:
            problem = errno.EEXIST
    if problem:
        words = f'error renaming interface "{interface.veth}" to "{interface.name}": {os.strerror(problem).lower()}'
        raise SystemFailure(_ADDING.format(interface.veth) + words)


def _name_problem(name: str) -> int:
    """The error number for what the kernel does not take as a name, or takes for a pattern to make one of; 0 for none."""
    if len(name.encode()) > 15:
        return errno.ERANGE
    is_bad = name in ("", ".", "..") or any(letter in "/:%" or letter.isspace() or not letter.isprintable() for letter in name)
    return errno.EINVAL if is_bad else 0


def _make(host: Netlink, netns: int, interface: Interface, master: int) -> None:
    if interface.kind != "veth":
        host.add_sub(interface.name, master, interface.kind, interface.mode, interface.mac, netns, interface.flag)
        return
    host.add_veth(interface.veth, master, interface.name, interface.mac, netns, interface.mtu)
    _allow_hairpin(interface.veth)


def make(interfaces: Sequence[Interface], netns: int | None = None) -> int:
    """A file descriptor of a new netns with lo and these up, on their bridges. Blocks for some ms.

    netns: that is there already, and empty; it is closed on failure. Raises OSError, SystemFailure, leaving nothing.
    """
    found = [] if netns is None else [netns]

    def enter() -> None:
        if found:
            libc.setns(found[0], CLONE_NEWNET)
        else:
            libc.unshare(CLONE_NEWNET)
            found.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))

    try:
        _fill(interfaces, found, enter)
    except (OSError, SystemFailure):
        for fd in found:
            os.close(fd)
        raise
    return found[0]


def _fill(interfaces: Sequence[Interface], found: list[int], enter: Callable[[], None]) -> None:
    """Put lo and interfaces up in the netns that is entered in a thread, and is the one of found then. Raises OSError, SystemFailure."""
    masters = [socket.if_nametoindex(interface.bridge) for interface in interfaces]
    with Netlink() as host:  # made here: it acts in this thread's netns for good

        def work() -> None:
            enter()
            for interface, master in zip(interfaces, masters, strict=True):
                _add(host, found[0], interface, master)
            with Netlink() as inside:
                inside.set_link(socket.if_nametoindex("lo"), up=True)
                for interface in interfaces:
                    _set_up(inside, interface)

        _in_thread(work)


def join(netns: int, interface: Interface) -> None:
    """Add an interface to the netns of a running container. Raises OSError, SystemFailure, leaving nothing. Blocks for some ms."""
    with Netlink() as host:

        def work() -> None:
            libc.setns(netns, CLONE_NEWNET)
            with Netlink() as inside:
                _set_up(inside, interface)

        _add(host, netns, interface, socket.if_nametoindex(interface.bridge))
        try:
            _in_thread(work)
        except (OSError, SystemFailure):
            if interface.veth:
                delete_link(interface.veth)
            else:
                leave(netns, interface.name)
            raise


def leave(netns: int, name: str) -> None:
    """Remove an interface from the netns of a running container. Never raises. Blocks."""

    def work() -> None:
        libc.setns(netns, CLONE_NEWNET)
        with Netlink() as inside:
            inside.delete_link(name)

    with contextlib.suppress(OSError):
        _in_thread(work)


def remove_strays(netns: int, kept: Collection[str]) -> bool:
    """Remove macvlans and ipvlans on the host's interfaces from a container's netns, but those of these names; whether there was one.

    One that the container has renamed is none as long as there are no more than are kept. Raises OSError. Blocks.
    """
    strays: list[str] = []

    def work() -> None:
        libc.setns(netns, CLONE_NEWNET)
        with Netlink() as inside:
            found = [link.name for link in inside.links() if link.is_sub]
            if len(found) > len(kept):
                strays.extend(name for name in found if name not in kept)
            for name in strays:
                with contextlib.suppress(OSError):  # the container may be at it too
                    inside.delete_link(name)

    _in_thread(work)
    return bool(strays)


def route(netns: int, interfaces: Sequence[Interface]) -> None:
    """Have the default routes of a netns by those interfaces of it that are to have them, and no others. Raises OSError."""
    routed = frozenset[int]().union(*(interface.default_routes for interface in interfaces))

    def work() -> None:
        libc.setns(netns, CLONE_NEWNET)
        with Netlink() as inside:
            if 4 not in routed:
                inside.set_default_route("")
            if 6 not in routed and Path("/proc/sys/net/ipv6").exists():
                inside.set_default_route("", socket.AF_INET6)
            for interface in interfaces:
                _set_default_routes(inside, interface)

    _in_thread(work)


def name_service(netns: int) -> tuple[socket.socket, socket.socket]:
    """Sockets (UDP, listening TCP) in a netns to which its queries to the embedded name server come. Raises OSError. Blocks.

    They are on ports of the kernel's choice: a container's own server on port 53 of all addresses would be in their way.
    """
    with contextlib.ExitStack() as undo:
        found = []

        def work() -> None:
            libc.setns(netns, CLONE_NEWNET)
            for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                made = undo.enter_context(socket.socket(socket.AF_INET, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC))
                made.bind((EMBEDDED, 0))
                found.append(made)
            found[1].listen(64)
            ports = [made.getsockname()[1] for made in found]
            nfredirect.redirect_dns(_TABLE, EMBEDDED, {"udp": ports[0], "tcp": ports[1]})

        _in_thread(work)
        undo.pop_all()
        return found[0], found[1]


def packet_sockets(netns: int, interfaces: Sequence[Interface]) -> list[socket.socket]:
    """One in a netns for each interface, that sends whole frames. Raises OSError. Blocks."""
    with contextlib.ExitStack() as undo:
        found = []

        def work() -> None:
            libc.setns(netns, CLONE_NEWNET)
            for interface in interfaces:
                made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0)
                undo.enter_context(made)
                made.bind((interface.name, 0))
                found.append(made)

        _in_thread(work)
        undo.pop_all()
        return found


def take_down(veth: str) -> None:
    """Nothing answers at the interface's address any more. Never raises; delete_link() takes some 20 ms, and nobody waits for it."""
    with contextlib.suppress(OSError), Netlink() as netlink:
        netlink.set_link(socket.if_nametoindex(veth), up=False)


def delete_link(name: str) -> None:
    """Remove an interface of the host, with its other end. Never raises."""
    with contextlib.suppress(OSError), Netlink() as netlink:
        netlink.delete_link(name)
