"""UDP flows from before a published port came or went: they are forgotten, for only a flow's first packet is held against the rules."""

import ipaddress
import logging
import socket
from collections.abc import Callable, Sequence

from sampan.linux.conntrack import Flow, forget_udp
from sampan.linux.netlink import Netlink
from sampan.network.ports import WILDCARDS, Published

log = logging.getLogger(__name__)


def forget_older(address: str, ports: Sequence[Published]) -> None:
    """Flows to these ports of the host that lead elsewhere than to a container's address. Never raises. Blocks."""

    def matches(own: set[str]) -> Callable[[Flow], bool]:
        return lambda flow: flow.answers != address and any(_is_to(flow, port, own) for port in ports)

    _forget(address, ports, matches)


def forget_former(address: str, ports: Sequence[Published]) -> None:
    """Flows by these ports of the host to a container that has them no more. Never raises. Blocks."""
    known = {(port.host_port, port.port) for port in ports if port.protocol == "udp"}

    def matches(_own: set[str]) -> Callable[[Flow], bool]:
        return lambda flow: flow.answers == address and (flow.asked_port, flow.answers_port) in known

    _forget(address, ports, matches)


def _forget(address: str, ports: Sequence[Published], matches: Callable[[set[str]], Callable[[Flow], bool]]) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with Netlink() as netlink:
            own = netlink.own_addresses(family)
        forget_udp(family, matches(own))
    except OSError as error:
        log.debug("older UDP flows of %s: %s", address, error)


def _is_to(flow: Flow, port: Published, own: set[str]) -> bool:
    """Whether a flow is to a published port: on all addresses, no flow that only passes through this host is."""
    if port.protocol != "udp" or flow.asked_port != port.host_port:
        return False
    if port.host_ip not in WILDCARDS:
        return flow.asked == port.host_ip
    return flow.asked in own or ipaddress.ip_address(flow.asked).is_loopback
