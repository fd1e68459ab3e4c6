"""A container's network namespace: made by a short-lived thread, so the daemon's other threads stay in the host's."""

import contextlib
import ipaddress
import os
import socket
import threading
from pathlib import Path

from sampan.linux import libc
from sampan.linux.namespaces import CLONE_NEWNET
from sampan.linux.netlink import Netlink


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


def make(veth: str, bridge: str, address: ipaddress.IPv4Interface, mac: bytes, gateway: str, mtu: int) -> int:
    """A file descriptor of a new netns with lo and eth0 up, joined to the bridge. Raises OSError, leaving nothing. Blocks for some ms."""
    found: list[int] = []
    failed: list[OSError] = []
    with Netlink() as host:  # made here: it acts in this thread's netns for good
        master = socket.if_nametoindex(bridge)

        def work() -> None:
            try:
                libc.unshare(CLONE_NEWNET)
                found.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))
                host.add_veth(veth, master, "eth0", mac, found[0], mtu)
                _allow_hairpin(veth)
                with Netlink() as inside:
                    index = socket.if_nametoindex("eth0")
                    inside.add_address(index, str(address.ip), address.network.prefixlen, str(address.network.broadcast_address))
                    # IPv4 only, as docker has it on such a network; it also spares the wait for a tentative address.
                    with contextlib.suppress(OSError):
                        Path("/proc/sys/net/ipv6/conf/eth0/disable_ipv6").write_text("1")
                    inside.set_link(socket.if_nametoindex("lo"), up=True)
                    inside.set_link(index, up=True)
                    inside.add_default_route(gateway)
            except OSError as error:
                failed.append(error)

        thread = threading.Thread(target=work, name="netns")
        thread.start()
        thread.join()
    if failed:
        for fd in found:
            os.close(fd)
        raise failed[0]
    return found[0]
