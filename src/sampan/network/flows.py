"""UDP flows from before a published port came or went: they are forgotten, for only a flow's first packet is held against the rules."""

import ipaddress
import logging
import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial

from sampan.linux.conntrack import Flow, forget_udp
from sampan.linux.netlink import Netlink
from sampan.network.ports import WILDCARDS, Published

log = logging.getLogger(__name__)


def forget_older(forwarded: Mapping[Published, str]) -> None:
    """Flows to these ports of the host that lead elsewhere than to the containers' addresses they now lead to. Never raises. Blocks."""
    for family in (socket.AF_INET, socket.AF_INET6):
        udp = _udp(forwarded, family)
        if udp:
            _forget(family, udp, partial(_leads_elsewhere, udp))


def forget_former(address: str, ports: Sequence[Published]) -> None:
    """Flows by these ports of the host to a container that has them no more. Never raises. Blocks."""
    known = {(port.host_port, port.port) for port in ports if port.protocol == "udp"}
    numbers = {number for number, _ in known}
    if known:
        _forget(_family_of(address), numbers, lambda flow, _own: flow.answers == address and (flow.asked_port, flow.answers_port) in known)


def _udp(forwarded: Mapping[Published, str], family: int) -> dict[int, list[tuple[Published, str]]]:
    """Those of UDP and of a family, by their number on the host."""
    found: dict[int, list[tuple[Published, str]]] = {}
    for port, address in forwarded.items():
        if port.protocol == "udp" and _family_of(address) == family:
            found.setdefault(port.host_port, []).append((port, address))
    return found


def _leads_elsewhere(udp: Mapping[int, Sequence[tuple[Published, str]]], flow: Flow, own: set[str]) -> bool:
    return any(flow.answers != address and _is_to(flow, port, own) for port, address in udp[flow.asked_port])


def _family_of(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _forget(family: int, numbers: Collection[int], matches: Callable[[Flow, set[str]], bool]) -> None:
    """numbers: of the ports that are sent to. matches: told the host's addresses, too."""
    try:
        with Netlink() as netlink:
            own = netlink.own_addresses(family)
        forget_udp(family, numbers, lambda flow: matches(flow, own))
    except OSError as error:
        log.debug("older UDP flows: %s", error)


def _is_to(flow: Flow, port: Published, own: set[str]) -> bool:
    """Whether a flow to a published port's number is to it: on all addresses, no flow that only passes through this host is."""
    if port.host_ip not in WILDCARDS:
        return flow.asked == port.host_ip
    return flow.asked in own or ipaddress.ip_address(flow.asked).is_loopback
