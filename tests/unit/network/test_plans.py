"""What is asked of kernels that have SCTP, VLANs, dummies and ipvlan: compared with tests/golden/network, for many have none.

With SAMPAN_RECORD=1 the files are written anew.
"""

import asyncio
import os
import socket
from collections.abc import Sequence
from pathlib import Path

import pytest

from sampan.engine import networkoptions
from sampan.engine.networks import segment
from sampan.errors import EngineError, Forbidden, SystemFailure
from sampan.network import firewall, sandbox
from sampan.network.bridge import Bridge, BridgeSettings
from sampan.network.exposure import Exposure, Target
from sampan.network.firewall import Firewall
from sampan.network.ports import HeldPort, PortRequest, Published, PublishedPorts, hold
from sampan.network.proxy import ipv6_is_usable
from sampan.network.rules import Rules
from sampan.network.starting import start_all
from sampan.network.sublinks import Sublinks
from sampan.state.networks import NetworkRow, Subnet
from tests.support.netplans import Recorder, recorded

GOLDEN = Path(__file__).parents[2] / "golden" / "network"
ONE = (Subnet("192.0.2.0/24", "192.0.2.1"),)
TWO_FAMILIES = (*ONE, Subnet("2001:db8::/64", "2001:db8::1"))
SEVERAL = (
    Subnet("192.0.2.0/30", "192.0.2.1"), Subnet("198.51.100.0/24", "198.51.100.254", "198.51.100.128/25", {"router": "198.51.100.128"}),
    Subnet("2001:db8::/64", "2001:db8::1"), Subnet("2001:db8:1::/64", "2001:db8:1::1"),
)  # fmt: skip
CASES: dict[str, tuple[str, dict[str, str], tuple[Subnet, ...]]] = {
    "macvlan": ("macvlan", {"parent": "eth0"}, ONE),
    "macvlan_vlan": ("macvlan", {"parent": "eth0.10", "macvlan_mode": "private"}, ONE),
    "macvlan_dummy": ("macvlan", {}, TWO_FAMILIES),
    "macvlan_subnets": ("macvlan", {"parent": "eth0"}, SEVERAL),
    "ipvlan": ("ipvlan", {"parent": "eth0"}, TWO_FAMILIES),
    "ipvlan_vlan": ("ipvlan", {"parent": "eth0.4094", "ipvlan_flag": "vepa"}, ONE),
    "ipvlan_dummy": ("ipvlan", {"ipvlan_mode": "l2"}, ONE),
    "ipvlan_l3": ("ipvlan", {"parent": "eth0", "ipvlan_mode": "l3", "ipvlan_flag": "private"}, TWO_FAMILIES),
    "ipvlan_l3s": ("ipvlan", {"parent": "eth0", "ipvlan_mode": "l3s"}, ONE),
}


def network(driver: str, options: dict[str, str], subnets: Sequence[Subnet]) -> Sublinks:
    row = NetworkRow(
        id="0123456789abcdef" * 4, name="n", created=0, driver=driver, subnets=tuple(subnets), options=options,
        enable_ipv6=any(subnet.version == 6 for subnet in subnets),
    )  # fmt: skip
    made = segment(row, Rules("sampan_test"), "/run/sampan", "0.0.0.0")
    assert isinstance(made, Sublinks)
    return made


def compare(name: str, text: str) -> None:
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("SAMPAN_RECORD"):
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize("name", CASES)
def test_interfaces(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The network, two containers on it with the default routes, one of them gone and come again."""
    made = network(*CASES[name])
    with recorded(monkeypatch, "lo", "eth0") as recorder:
        asyncio.run(made.start())
        for _ in range(2):
            place = made.take(mac="02:00:00:00:00:01")
            recorder.lines.append(
                f"# {place.ip}/{place.prefix_len} by {place.gateway or '-'}, {place.ip6 or '-'} by {place.gateway6 or '-'}"
            )
            interface = made.interface(place, "eth1", default_routes=(4, 6))
            with sandbox.Netlink() as netlink:
                sandbox._add(netlink, 9, interface, recorder.index(made.settings.bridge))
                sandbox._set_up(netlink, interface)
            assert made.take_again(place) is False
            recorder.interfaces.remove("eth1")
        monkeypatch.setattr("sampan.network.sublinks.owned", lambda owner: [made.settings.bridge] if "alias" in recorder.text else [])
        asyncio.run(made.remove())
    compare(name, recorder.text)


@pytest.mark.parametrize(
    ("name", "versions", "expected"),
    [
        ("ipvlan_l3", (4, 6), ["default inet by interface 3 scope 253", "default inet6 by interface 3 scope 0"]),
        ("ipvlan", (4, 6), ["default inet by 192.0.2.1 scope 0", "default inet6 by 2001:db8::1 scope 0"]),
        ("ipvlan_l3", (6,), ["default inet scope 255", "default inet6 by interface 3 scope 0"]),
        ("ipvlan_l3s", (), ["default inet scope 255", "default inet6 scope 255"]),
    ],
)
def test_default_routes_that_move(name: str, versions: tuple[int, ...], expected: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """To what is left when a container leaves the network that had them; an ipvlan that routes has no gateway."""
    made = network(*CASES[name])
    with recorded(monkeypatch, "lo", "eth0", "eth1") as recorder:
        asyncio.run(made.start())
        interface = made.interface(made.take(), "eth1", default_routes=versions)
        before = len(recorder.lines)
        sandbox.route(9, [interface])
    assert [line.split(" ", 2)[2] for line in recorder.lines[before:]] == expected


@pytest.mark.parametrize(
    ("parent", "words"),
    [
        ("nope", "invalid subinterface vlan name nope, example formatting is eth0.10"),
        ("eth0.1.2", "required interface name format is: name.vlan_id, ex. eth0.10 for vlan 10, instead received eth0.1.2"),
        ("eth0.x", "unable to parse a valid vlan id from: x (ex. eth0.10 for vlan 10)"),
        ("eth0.0", "vlan id must be between 1-4094, received: 0"),
        ("eth0.4095", "vlan id must be between 1-4094, received: 4095"),
        ("eth9.10", "-o parent interface was not found on the host: eth9"),
    ],
)
def test_parents_that_cannot_be(parent: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with recorded(monkeypatch, "lo", "eth0"), pytest.raises(EngineError) as raised:
        asyncio.run(network("macvlan", {"parent": parent}, ONE).start())
    assert raised.value.message == words


def test_an_address_that_is_asked_for_is_of_any_of_the_subnets() -> None:
    made = network("macvlan", {"parent": "eth0"}, SEVERAL)
    made._is_up = True
    place = made.take("198.51.100.7", asked6="2001:db8:1::7")
    assert (place.ip, place.prefix_len, place.gateway) == ("198.51.100.7", 24, "198.51.100.254")
    assert (place.ip6, place.gateway6) == ("2001:db8:1::7", "2001:db8:1::1")
    with pytest.raises(Forbidden):
        made.take("198.51.100.128")


def test_no_such_flag() -> None:
    with pytest.raises(EngineError, match="requested ipvlan flag 'x' is not valid, 'bridge' is the ipvlan driver default"):
        networkoptions.check("n", "ipvlan", {"parent": "eth0", "ipvlan_flag": "x"}, internal=False)


def test_many_networks_come_by_one_transaction(monkeypatch: pytest.MonkeyPatch) -> None:
    """And by one look at the host's own rules, which drop here."""
    ran: list[tuple[str, ...]] = []

    def run(*words: str, text: str | None = None) -> tuple[int, str]:
        ran.append(words)
        return 0, "-P FORWARD DROP\n" if text is None else ""

    async def start() -> int:
        rules = Rules("sampan_test", forward=False)
        bridges = [Bridge(BridgeSettings(bridge=f"sp{number}", bip=f"10.9.{number}.1/24"), rules) for number in range(200)]
        failed = await start_all(bridges, rules, filtered=True)
        await rules.stop(remove=False)
        return len(failed)

    monkeypatch.setattr(firewall, "_run", run)
    monkeypatch.setattr("sampan.network.bridge.sysctl", lambda _name, _value: None)
    with recorded(monkeypatch, "lo") as recorder:
        assert asyncio.run(start()) == 0
    rules = [line for line in recorder.lines if "sampan_test" in line]
    assert (len(rules), rules[0].count("10.9.199.0/24")) == (1, 4 - 2)
    assert [words for words in ran if words[0].startswith("iptables")][:2] == [("iptables", "-S"), ("iptables-restore", "--noflush")]
    assert len(ran) <= 4


def test_a_network_that_the_kernel_refuses_keeps_no_other_from_starting(monkeypatch: pytest.MonkeyPatch) -> None:
    async def start() -> list[str]:
        rules = Rules("sampan_test", forward=False)
        bridges = [Bridge(BridgeSettings(bridge=name, name=name, bip="10.9.1.1/24"), rules) for name in ("sp0", "eth0", "sp2")]
        failed = await start_all(bridges, rules, filtered=False)
        return [bridge.settings.name for bridge in failed]

    with recorded(monkeypatch, "lo", "eth0"):
        assert asyncio.run(start()) == ["eth0"]


@pytest.mark.parametrize("refused", [False, True])
def test_ports_of_many_containers_come_by_one_transaction(refused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the engine's start; if it is refused, each port has one of its own, so that the others are there."""
    held: list[str] = []

    class Port(HeldPort):
        def listen(self) -> None:
            held.append(str(self.published.host_port))

    def hold_plainly(request: PortRequest, host_ips: Sequence[str], *_rest: object) -> list[HeldPort]:
        return [Port(Published(request.port, request.protocol, host_ip, request.host_first), socket.socket()) for host_ip in host_ips]

    async def start(recorder: Recorder) -> list[str]:
        rules = Rules("sampan_test", forward=False)
        await rules.start()
        exposure = Exposure(rules, None)
        before = len(recorder.lines)
        running = {
            f"{number:064}": (Target(f"10.9.1.{number}"), [Published(80, "tcp", "0.0.0.0", 8000 + number)]) for number in range(2, 102)
        }
        await exposure.reopen({**running, "r" * 64: (Target("10.9.2.2"), [Published(80, "tcp", "0.0.0.0", 0)])})
        lines = recorder.lines[before:]
        await exposure.stop()
        await rules.stop(remove=False)
        return [line for line in lines if line.startswith("add element")]

    monkeypatch.setattr("sampan.network.exposure.hold", hold_plainly)
    with recorded(monkeypatch, "lo") as recorder:
        recorder.refused = "8007 : 10.9.1.7 " if refused else ""
        ran = asyncio.run(start(recorder))
    assert held == [str(8000 + number) for number in range(2, 102) if not (refused and number == 7)]
    assert len(ran) == (100 if refused else 2)
    assert "opened { 10.9.2.2 . tcp . 80 }" in ran[-1]
    assert refused or ran[0].count("on_any") == 100


# SCTP


def test_rules_of_sctp_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    ports = [Published(2905, "sctp", "0.0.0.0", 2905), Published(2905, "sctp", "192.0.2.1", 2906), Published(2905, "tcp", "0.0.0.0", 2905)]
    with recorded(monkeypatch) as recorder:
        rules = Firewall("sampan_test", ipv6=True)
        rules.create()
        rules.publish(dict.fromkeys(ports, "172.18.0.2"))
        rules.publish({Published(2905, "sctp", "::", 2905): "fd00::2"})
        rules.open({"172.18.0.2": ports[:1]})
        rules.withdraw(ports)
    compare("sctp", recorder.text)


def test_an_sctp_port_is_held_by_an_sctp_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = []
    real = socket.socket

    def make(family: int, kind: int, protocol: int = 0) -> socket.socket:
        kinds.append((family, kind & ~socket.SOCK_CLOEXEC, protocol))
        return real(family, kind, 0)  # TCP's, for the kernel may have no SCTP

    monkeypatch.setattr(socket, "socket", make)
    for address in ("127.0.0.1", "::1") if ipv6_is_usable() else ("127.0.0.1",):
        kinds.clear()
        [held] = hold(PortRequest(2905, "sctp"), [address], "web", "1" * 64, "172.18.0.2", PublishedPorts())
        held.close()
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        assert kinds == [(family, socket.SOCK_STREAM, socket.IPPROTO_SCTP)]


def test_a_kernel_without_sctp_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object) -> socket.socket:
        raise OSError(93, "Protocol not supported")

    monkeypatch.setattr(socket, "socket", refuse)
    words = "failed to bind host port for 0.0.0.0:2905:172.18.0.2:80/sctp: protocol not supported"
    with pytest.raises(SystemFailure, match=words):
        hold(PortRequest(80, "sctp", host_first=2905, host_last=2905), ["0.0.0.0"], "web", "1" * 64, "172.18.0.2", PublishedPorts())


def test_no_proxy_serves_sctp(monkeypatch: pytest.MonkeyPatch) -> None:
    """So it is published on IPv6 addresses only where the container has one."""
    held: list[Sequence[str]] = []

    def note(_request: PortRequest, host_ips: Sequence[str], *_rest: object) -> list[object]:
        held.append(tuple(host_ips))
        return []

    monkeypatch.setattr("sampan.network.exposure.hold", note)
    monkeypatch.setattr(Rules, "usable", True)
    exposure = Exposure(Rules("sampan_test"), object())  # type: ignore[arg-type]
    for name, target in (("a", Target("172.18.0.2")), ("b", Target("172.18.0.2", "fd00::2"))):
        asyncio.run(exposure.hold(name, name, target, [PortRequest(80, "sctp", "", 80, 80)], "0.0.0.0"))
    assert held == [("0.0.0.0",), ("0.0.0.0", "::")]
