"""IPv6 on networks of users' own, through the real docker client: addresses, names, ways in and out, and what must not be reached."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.network.support import Docker, ok, serve
from tests.support.engine import Engine

pytestmark = [
    pytest.mark.root,
    pytest.mark.usefixtures("own_networks"),
    pytest.mark.skipif(not Path("/proc/sys/net/ipv6").is_dir(), reason="this host has no IPv6"),
]


@pytest.fixture
def prefix(engine: Engine) -> str:
    """Of subnets that no other test run on this machine has."""
    return f"fd53:{int(engine.subnet.split('.')[2]) + 256:x}"  # no 0, which would be left out of addresses


def fetch(url: str) -> str:
    return subprocess.run(["curl", "-gsm2", url], capture_output=True, text=True, timeout=10, check=False).stdout.strip()


def place(docker: Docker, container: str, network: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(ok(docker("inspect", "-f", f"{{{{json .NetworkSettings.Networks.{network}}}}}", container)))
    return found


def test_both_families(docker: Docker, engine: Engine, prefix: str) -> None:
    number = engine.subnet.split(".")[2]
    ok(docker("network", "create", "--ipv6", "--subnet", f"{prefix}::/64", "--subnet", f"10.221.{number}.0/24", "both"))
    serve(docker, "web", "--network", "both", "--ip6", f"{prefix}::99", "-p", "80")
    shown = place(docker, "web", "both")
    assert (shown["GlobalIPv6Address"], shown["GlobalIPv6PrefixLen"], shown["IPv6Gateway"]) == (f"{prefix}::99", 64, f"{prefix}::1")
    assert shown["IPAddress"] == f"10.221.{number}.2"
    asked = ok(docker("run", "--rm", "--network", "both", "busybox", "sh", "-c", "nslookup web; ping6 -c1 -W2 web; ip -6 route"))
    assert f"Address: {prefix}::99" in asked
    assert f"Address: 10.221.{number}.2" in asked
    assert "1 packets received" in asked
    assert f"default via {prefix}::1" in asked
    assert f"{prefix}::99\t" in ok(docker("exec", "web", "cat", "/etc/hosts"))
    port = ok(docker("port", "web", "80")).splitlines()[0].rpartition(":")[2]
    for host in ("127.0.0.1", "[::1]", f"[{prefix}::1]"):
        assert fetch(f"http://{host}:{port}/") == "web", host
    taken = docker("run", "--rm", "--network", "both", "--ip6", f"{prefix}::99", "busybox", "true")
    assert "failed to set up container networking: Address already in use" in taken.stderr
    joined = json.loads(ok(docker("network", "inspect", "-f", "{{json .Containers}}", "both")))
    assert [item["IPv6Address"] for item in joined.values()] == [f"{prefix}::99/64"]
    engine.stop(9)
    engine.start()
    assert fetch(f"http://[{prefix}::1]:{port}/") == "web"
    assert engine.findings() == []


def test_without_ipv4(docker: Docker, prefix: str) -> None:
    ok(docker("network", "create", "--ipv6", "--ipv4=false", "--subnet", f"{prefix}:6::/64", "six"))
    serve(docker, "web", "--network", "six", "-p", "80")
    assert ok(docker("port", "web", "80")).startswith("[::]:")
    port = ok(docker("port", "web", "80")).rpartition(":")[2]
    assert fetch(f"http://[::1]:{port}/") == "web"
    assert ok(docker("exec", "web", "ip", "route")) == ""
    assert fetch(f"http://127.0.0.1:{port}/") == ""


def test_without_ipv4_loopback_is_loopback(docker: Docker, prefix: str) -> None:
    own = ("-o", "com.docker.network.bridge.host_binding_ipv4=127.0.0.1")
    ok(docker("network", "create", "--ipv6", "--ipv4=false", "--subnet", f"{prefix}:7::/64", *own, "six"))
    serve(docker, "web", "--network", "six", "-p", "80")
    shown = ok(docker("port", "web", "80"))
    assert shown.startswith("[::1]:")
    assert fetch(f"http://{shown.strip()}/") == "web"


def test_ports_that_cannot_follow_stay_where_they_were(make_engine: Callable[..., Engine], docker_path: str) -> None:
    """Without the userland proxy no container without IPv6 is published on an IPv6 address."""
    engine = make_engine()
    (engine.root / "daemon.json").write_text(json.dumps({"userland-proxy": False}))
    engine.start()
    engine.bootstrap()
    number = int(engine.subnet.split(".")[2]) + 256

    def docker(*words: str) -> subprocess.CompletedProcess[str]:
        return engine.run_client([docker_path], *words)

    ok(docker("network", "create", "--ipv6", "--ipv4=false", "--subnet", f"fd53:{number:x}:8::/64", "six"))
    ok(docker("network", "create", "--subnet", f"10.221.{number - 256}.0/24", "four"))
    serve(docker, "web", "--network", "six", "-p", "80")
    port = ok(docker("port", "web", "80")).rpartition(":")[2]
    url = f"http://[fd53:{number:x}:8::1]:{port}/"
    assert fetch(url) == "web"
    failed = docker("network", "connect", "four", "web")
    assert "publishing on :: needs IPv6 and the userland proxy" in failed.stderr
    assert fetch(url) == "web"
    assert ok(docker("port", "web", "80")).rpartition(":")[2] == port
    assert engine.findings() == []


def test_networks_of_ipv6_do_not_reach_each_other(docker: Docker, prefix: str) -> None:
    ok(docker("network", "create", "--ipv6", "--subnet", f"{prefix}:1::/64", "one"))
    ok(docker("network", "create", "--ipv6", "--internal", "--subnet", f"{prefix}:2::/64", "two"))
    serve(docker, "web", "--network", "one")
    serve(docker, "inner", "--network", "two", "--cap-add", "NET_ADMIN")
    ping = "ping6 -c1 -W1 "
    assert docker("exec", "inner", "sh", "-c", f"ip -6 route add default via {prefix}:2::1; {ping}{prefix}:1::2").returncode == 1
    assert docker("exec", "web", "sh", "-c", f"{ping}{prefix}:2::2").returncode == 1
    assert "default" not in ok(docker("run", "--rm", "--network", "two", "busybox", "ip", "-6", "route"))
    ok(docker("network", "connect", "two", "web"))
    assert docker("exec", "web", "sh", "-c", f"{ping}inner").returncode == 0
    ok(docker("network", "disconnect", "one", "web"))
    assert "default" not in ok(docker("exec", "web", "ip", "-6", "route"))


def test_subnets_of_nobodys_choice(docker: Docker) -> None:
    for name in ("one", "two"):
        ok(docker("network", "create", "--ipv6", name))
    found = [json.loads(ok(docker("network", "inspect", "-f", "{{json .IPAM.Config}}", name))) for name in ("one", "two")]
    first, second = (config[1]["Subnet"] for config in found)
    assert first[:2] == "fd"
    assert first.endswith("::/64")
    assert first != second
    refused = docker("run", "--rm", "--network", "one", "--ip6", first.replace("/64", "9"), "busybox", "true")
    assert "invalid config for network one: invalid endpoint settings:\nuser specified IP address is supported only" in refused.stderr
    assert "IPv4 or IPv6 must be enabled" in docker("network", "create", "--ipv4=false", "none6").stderr
