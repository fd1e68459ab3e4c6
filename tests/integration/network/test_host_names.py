"""The host by name: host.docker.internal without being asked for, and --add-host NAME:host-gateway, on every kind of network."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.network.support import Docker, ok
from tests.support.engine import Engine

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("own_networks")]

HOST = "host.docker.internal"


def first(subnet: str) -> str:
    """The gateway's address."""
    return subnet.replace("0/24", "1")


def test_on_the_default_network(docker: Docker, engine: Engine) -> None:
    gateway = engine.subnet.partition("/")[0]
    hosts = ok(docker("run", "--rm", "--add-host", "me:host-gateway", "busybox", "cat", "/etc/hosts"))
    assert f"{gateway}\tme\n" in hosts
    assert f"{gateway}\t{HOST}\n" in hosts
    own = ok(docker("run", "--rm", "--add-host", f"{HOST}:10.9.9.9", "busybox", "cat", "/etc/hosts"))
    assert [line for line in own.splitlines() if HOST in line] == [f"10.9.9.9\t{HOST}"]
    for mode in ("none", "host"):
        assert HOST not in ok(docker("run", "--rm", "--network", mode, "busybox", "cat", "/etc/hosts"))


def test_on_networks_of_ones_own(docker: Docker, subnets: Callable[[int], str]) -> None:
    ok(docker("network", "create", "--subnet", subnets(0), "front"))
    ok(docker("network", "create", "--internal", "--subnet", subnets(1), "inside"))
    for number, network in enumerate(("front", "inside")):
        script = f"ping -c1 -w5 me && ping -c1 -w5 {HOST} && cat /etc/hosts"
        shown = ok(docker("run", "--rm", "--network", network, "--add-host", "me:host-gateway", "busybox", "sh", "-c", script))
        gateway = first(subnets(number))
        assert f"{gateway}\tme\n" in shown
        assert f"PING {HOST} ({gateway})" in shown


def test_with_ipv6(docker: Docker, engine: Engine, subnets: Callable[[int], str]) -> None:
    if not Path("/proc/sys/net/ipv6").is_dir():
        pytest.skip("this host has no IPv6")
    prefix = f"fd58:{int(engine.subnet.split('.')[2]):x}:"
    ok(docker("network", "create", "--ipv6", "--subnet", subnets(0), "--subnet", f"{prefix}:/64", "--gateway", f"{prefix}:1", "both"))
    script = f"cat /etc/hosts; nslookup -type=aaaa {HOST}"
    shown = ok(docker("run", "--rm", "--network", "both", "--add-host", "me:host-gateway", "busybox", "sh", "-c", script))
    assert f"{first(subnets(0))}\tme\n{prefix}:1\tme\n" in shown
    assert f"Address: {prefix}:1" in shown


def test_addresses_of_daemon_json(make_engine: Callable[..., Engine]) -> None:
    engine = make_engine()
    (engine.root / "daemon.json").write_text(json.dumps({"host-gateway-ips": ["10.1.2.3", "fd00::3"]}))
    engine.start()
    engine.bootstrap()
    ok(engine.cli("network", "create", "--subnet", f"10.220.{engine.subnet.split('.')[2]}.0/24", "front"))
    for network in ("bridge", "front"):
        command = ("cat", "/etc/hosts") if network == "bridge" else ("nslookup", HOST)
        shown = ok(engine.cli("run", "--rm", "--network", network, "--add-host", "me:host-gateway", "busybox", *command))
        assert ("10.1.2.3\tme\nfd00::3\tme\n" in shown and f"10.1.2.3\t{HOST}\nfd00::3\t{HOST}\n" in shown) or "Address: 10.1.2.3" in shown


def test_what_is_no_host(engine: Engine) -> None:
    for item, words in {
        "x": 'bad format for add-host: "x"',
        ":1.1.1.1": 'bad format for add-host: ":1.1.1.1"',
        "x:nowhere": 'invalid IP address in add-host: "nowhere"',
        "x:[::1]": 'invalid IP address in add-host: "[::1]"',
    }.items():
        body = {"Image": "busybox", "Cmd": ["true"], "HostConfig": {"ExtraHosts": [item]}}
        assert engine.request("POST", "/containers/create", body) == (400, {"message": words})
