"""Networks and their containers changed by many at once, killed in the middle, and damaged by others: what is left fits together."""

import os
import random
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from sampan.linux import libc
from sampan.linux.netlink import Netlink
from sampan.network import sandbox
from sampan.network.bridge import VETH_PREFIX, owned
from tests.integration.network.support import parent_interface
from tests.support.engine import Engine
from tests.support.strays import complaints, wait_for_none

pytestmark = pytest.mark.root

SECONDS = 5.0
EXPECTED = {200, 201, 204, 304, 400, 403, 404, 409}
"""Statuses of what is done, was done already, or somebody else made impossible."""
EXCUSED = re.compile(r"is not running|Cannot restart container c\d: .*(is marked for removal|network \w+ not found)")
"""The same by its words: a restart that fails is a 500, whatever has failed, as in docker."""


@pytest.fixture
def own(crashing: Engine) -> Iterator[Engine]:
    yield crashing
    crashing.remove_containers()
    for network in crashing.request("GET", '/networks?filters={"type":["custom"]}')[1]:
        crashing.request("DELETE", f"/networks/{network['Id']}")


def subnet(engine: Engine, number: int) -> str:
    return f"10.{220 + number}.{engine.subnet.split('.')[2]}.0/24"


class Busy:
    """Clients that create, remove, connect, disconnect, start and stop the same three networks and four containers."""

    def __init__(self, engine: Engine, seed: int, clients: int = 6) -> None:
        self.engine = engine
        self.wrong: list[str] = []
        self.done = 0
        self.ends = threading.Event()
        self.threads = [threading.Thread(target=self.work, args=(random.Random(seed + number),)) for number in range(clients)]
        for thread in self.threads:
            thread.start()

    def work(self, chance: random.Random) -> None:
        while not self.ends.is_set():
            try:
                status, body = self.step(chance)
            except OSError:  # killed
                return
            self.done += 1
            if status not in EXPECTED and not EXCUSED.search(str(body)):
                self.wrong.append(f"{status} {body}")

    def step(self, chance: random.Random) -> tuple[int, object]:
        which = chance.randrange(3)
        network, container = f"n{which}", f"c{chance.randrange(4)}"
        ask = self.engine.request
        match chance.randrange(10):
            case 0 | 1:
                ipam = {"Config": [{"Subnet": subnet(self.engine, which)}]}
                return ask("POST", "/networks/create", {"Name": network, "IPAM": ipam})
            case 2:
                return ask("DELETE", f"/networks/{network}")
            case 3 | 4:
                return ask("POST", f"/networks/{network}/connect", {"Container": container})
            case 5:
                return ask("POST", f"/networks/{network}/disconnect", {"Container": container})
            case 6:
                body = {"Image": "busybox", "Cmd": ["sleep", "60"], "HostConfig": {"NetworkMode": network}}
                return ask("POST", f"/containers/create?name={container}", body)
            case 7 | 8:
                return ask("POST", f"/containers/{container}/start")
            case _:
                verb = chance.choice([("POST", "/kill"), ("DELETE", "?force=1"), ("POST", "/restart?t=0")])
                return ask(verb[0], f"/containers/{container}{verb[1]}")

    def stop(self) -> None:
        self.ends.set()
        for thread in self.threads:
            thread.join(30)


def check(engine: Engine) -> None:
    """Rows, bridges and interfaces fit together, and each running container has an interface for each network it is said to be on."""
    assert engine.findings() == []
    for item in engine.request("GET", "/containers/json")[1]:
        shown = engine.request("GET", f"/containers/{item['Id']}/json")[1]
        joined = [one for one in shown["NetworkSettings"]["Networks"].values() if one["IPAddress"]]
        done = engine.cli("exec", item["Id"], "ls", "/sys/class/net")
        assert len(done.stdout.split()) == len(joined) + 1, (done, joined)


def end(engine: Engine) -> None:
    engine.remove_containers()
    for network in engine.request("GET", '/networks?filters={"type":["custom"]}')[1]:
        status, body = engine.request("DELETE", f"/networks/{network['Id']}")
        assert status == 204, body
    wait_for_none(engine)
    assert owned(str(engine.exec_root)) == [engine.bridge]
    assert complaints(engine) == []


def test_all_at_once(own: Engine) -> None:
    clients = Busy(own, seed=1)
    time.sleep(SECONDS)
    clients.stop()
    assert not clients.wrong, clients.wrong[:3]
    assert clients.done > 100
    check(own)
    end(own)


@pytest.mark.parametrize("seed", [10, 20])
def test_killed_in_the_middle(own: Engine, seed: int) -> None:
    chance = random.Random(seed)
    for number in range(3):
        clients = Busy(own, seed * 100 + number)
        time.sleep(chance.uniform(0.3, 1.2))
        own.stop(signal.SIGKILL)
        clients.stop()
        assert not clients.wrong, clients.wrong[:3]
        own.start()
        check(own)
    end(own)


def test_killed_while_a_default_route_moves(own: Engine) -> None:
    """Between the change of the routes and its end there is an interface of nobody: it goes, and the routes come back."""
    assert own.request("POST", "/networks/create", {"Name": "n0", "IPAM": {"Config": [{"Subnet": subnet(own, 0)}]}})[0] == 201
    assert own.cli("run", "-d", "--name", "c0", "--network", "n0", "busybox", "sleep", "60").returncode == 0
    routes = own.cli("exec", "c0", "ip", "route").stdout
    assert routes.startswith("default via")
    shown = own.request("GET", "/containers/c0/json")[1]
    bridge = f"br-{own.request('GET', '/networks/n0')[1]['Id'][:12]}"
    netns = os.open(f"/proc/{shown['State']['Pid']}/ns/net", os.O_RDONLY)
    own.stop(signal.SIGKILL)
    with Netlink() as netlink:
        netlink.add_veth(f"{VETH_PREFIX}stray", socket.if_nametoindex(bridge), "eth1", bytes.fromhex("024200000002"), netns, 1500)
    sandbox.route(netns, [])
    os.close(netns)
    own.start()
    assert own.cli("exec", "c0", "ip", "route").stdout == routes
    check(own)
    end(own)


def test_killed_while_a_container_joins_a_macvlan(own: Engine) -> None:
    """Its interface has no end on the host, by which it could be known as nobody's; one that the container made itself stays."""
    with parent_interface(own) as parent:
        body = {"Name": "n0", "Driver": "macvlan", "IPAM": {"Config": [{"Subnet": subnet(own, 0)}]}, "Options": {"parent": parent}}
        assert own.request("POST", "/networks/create", body)[0] == 201
        for name in ("c0", "c1"):
            assert own.cli("run", "-d", "--name", name, "--cap-add=NET_ADMIN", "busybox", "sleep", "60").returncode == 0
        assert own.cli("network", "connect", "n0", "c1").returncode == 0
        netns = {}
        for name in ("c0", "c1"):
            pid = own.request("GET", f"/containers/{name}/json")[1]["State"]["Pid"]
            netns[name] = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
        _inside(netns["c0"], lambda: _add_macvlan("its-own", "eth0"))
        looks = [("exec", name, "sh", "-c", "ip route; ls /sys/class/net") for name in ("c0", "c1")]
        before = [own.cli(*look).stdout for look in looks]
        assert "its-own" in before[0]
        own.stop(signal.SIGKILL)
        with Netlink() as netlink:
            netlink.add_sub("eth1", socket.if_nametoindex(parent), "macvlan", "bridge", bytes.fromhex("024200000003"), netns["c0"])
        sandbox.route(netns["c0"], [])
        for fd in netns.values():
            os.close(fd)
        own.start()
        assert [own.cli(*look).stdout for look in looks] == before
        assert own.findings() == []
        end(own)


def _add_macvlan(name: str, parent: str) -> None:
    with Netlink() as netlink:
        netlink.add_sub(name, socket.if_nametoindex(parent), "macvlan", "bridge", bytes.fromhex("024200000004"))


def _inside(netns: int, work: Callable[[], None]) -> None:
    def body() -> None:
        libc.setns(netns, 0)
        work()

    thread = threading.Thread(target=body)
    thread.start()
    thread.join(20)


def test_what_others_break_is_found_and_mended(own: Engine) -> None:
    for number in range(2):
        ipam = {"Config": [{"Subnet": subnet(own, number)}]}
        assert own.request("POST", "/networks/create", {"Name": f"n{number}", "IPAM": ipam})[0] == 201
    for number in range(2):
        assert own.cli("run", "-d", "--name", f"c{number}", "--network", "n0", "busybox", "sleep", "60").returncode == 0
    network_id = own.request("GET", "/networks/n0")[1]["Id"]
    bridge = f"br-{network_id[:12]}"
    with Netlink() as netlink:
        netlink.delete_link(bridge)
        netlink.add_bridge("sampanstray", bytes.fromhex("024200000001"), 1500)
        netlink.set_link(socket.if_nametoindex("sampanstray"), alias=f"sampan {own.exec_root}")
    found = own.findings()
    assert "network n0 has no bridge" in found
    assert "bridge sampanstray is of no network" in found
    assert own.cli("exec", "c0", "ping", "-c1", "-W1", "c1").returncode == 1
    report = own.request("POST", "/system/check", timeout=60)[1]
    assert all(finding["Repaired"] for finding in report["Findings"]), report
    assert own.findings() == []
    assert own.cli("exec", "c0", "sh", "-c", "for _ in 1 2 3 4 5; do ping -c1 -W1 c1 && exit 0; done; exit 1").returncode == 0
    assert own.cli("exec", "c0", "ip", "route").stdout.startswith("default via")


def test_a_network_whose_bridge_cannot_be_made(own: Engine) -> None:
    """Somebody else has its name at the start of the engine: all else works, and the network does once the name is free."""
    body = {"Name": "n0", "IPAM": {"Config": [{"Subnet": subnet(own, 0)}]}, "Options": {"com.docker.network.bridge.name": "sampantaken"}}
    assert own.request("POST", "/networks/create", body)[0] == 201
    own.stop()
    _delete("sampantaken")
    with Netlink() as netlink:
        netlink.add_veth("sampantaken", 0, "sampantaken2", bytes.fromhex("024200000002"), os.open("/proc/self/ns/net", os.O_RDONLY), 1500)
    try:
        own.start()
        assert own.request("GET", "/networks/n0")[0] == 200
        assert own.request("POST", "/networks/create", {"Name": "n1", "IPAM": {"Config": [{"Subnet": subnet(own, 1)}]}})[0] == 201
        refused = own.cli("run", "--rm", "--network", "n0", "busybox", "true")
        assert "failed to create the n0 network sampantaken" in refused.stderr
    finally:
        _delete("sampantaken")
    assert own.cli("run", "--rm", "--network", "n0", "busybox", "true").returncode == 0


def _delete(name: str) -> None:
    with Netlink() as netlink:
        netlink.delete_link(name)
