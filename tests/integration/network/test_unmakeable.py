"""A stored network that means nothing any more keeps neither the engine nor other networks from starting; nor does a host without IPv6."""

import json
import os
import secrets
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.network.support import ok
from tests.support.engine import Engine

pytestmark = pytest.mark.root


def spoil(engine: Engine, name: str) -> None:
    """Have a network stored with an option's value that no version took."""
    with sqlite3.connect(next(engine.data_root.rglob("*.db"))) as database:
        [(document,)] = database.execute("SELECT document FROM networks WHERE name = ?", (name,)).fetchall()
        row = json.loads(document)
        row["options"] = {"com.docker.network.bridge.gateway_mode_ipv4": "nonsense"}
        database.execute("UPDATE networks SET document = ? WHERE name = ?", (json.dumps(row).encode(), name))


def test_a_network_of_nonsense(make_engine: Callable[..., Engine]) -> None:
    engine = make_engine()
    engine.start()
    engine.bootstrap()
    number = engine.subnet.split(".")[2]
    for name, part in (("good", 218), ("bad", 219), ("late", 220)):
        ok(engine.cli("network", "create", "--subnet", f"10.{part}.{number}.0/24", name))
    engine.stop(signal.SIGKILL)
    spoil(engine, "bad")
    engine.start()
    assert ok(engine.cli("run", "--rm", "--network", "good", "busybox", "hostname", "-i")).startswith("10.218.")
    assert ok(engine.cli("run", "--rm", "--network", "late", "busybox", "hostname", "-i")).startswith("10.220.")
    words = "network bad cannot be made of what is stored: failed to parse com.docker.network.bridge.gateway_mode_ipv4 value: nonsense"
    assert words in engine.cli("run", "--rm", "--network", "bad", "busybox", "true").stderr
    assert any(words in warning for warning in engine.request("GET", "/info")[1]["Warnings"])
    assert words in engine.log.read_text()
    assert json.loads(ok(engine.cli("network", "inspect", "bad")))[0]["IPAM"]["Config"][0]["Subnet"] == f"10.219.{number}.0/24"
    overlapping = engine.cli("network", "create", "--subnet", f"10.219.{number}.0/24", "again")
    assert "Pool overlaps" in overlapping.stderr
    ok(engine.cli("network", "rm", "bad"))
    ok(engine.cli("network", "create", "--subnet", f"10.219.{number}.0/24", "again"))


@pytest.fixture
def netns() -> Iterator[str]:
    name = f"sp{secrets.token_hex(4)}"
    subprocess.run(["ip", "netns", "add", name], check=True, timeout=30)
    try:
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True, timeout=30)
        yield name
    finally:
        subprocess.run(["ip", "netns", "del", name], check=False, timeout=30)


IPV6_OFF = "sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1"
# As with ipv6.disable=1 there is no such directory: an empty one is in the place of all that the network has there but IPv4's.
IPV6_MISSING = (
    "mount --make-rprivate / && mount -t tmpfs none {0} && mkdir {0}/ipv4 && "
    "mount --rbind /proc/sys/net/ipv4 {0}/ipv4 && mount --rbind {0} /proc/sys/net"
)


@pytest.mark.parametrize("how", [IPV6_OFF, IPV6_MISSING], ids=["disabled", "missing"])
def test_a_host_without_ipv6(make_engine: Callable[..., Engine], netns: str, how: str, tmp_path: Path) -> None:
    engine = make_engine()
    script = how.format(tmp_path) + ' && exec "$@"'
    engine.prefix = ["nsenter", f"--net=/run/netns/{netns}", "unshare", "-m", "--propagation", "unchanged", "sh", "-c", script, "sh"]
    engine.start()
    engine.bootstrap()
    assert os.readlink(f"/proc/{engine.pid}/ns/net") != os.readlink("/proc/self/ns/net")
    ok(engine.cli("network", "create", "--subnet", "10.218.1.0/24", "front"))
    ok(engine.cli("run", "-d", "--name", "web", "--network", "front", "-p", "8080:80", "busybox", "sleep", "60"))
    assert ok(engine.cli("exec", "web", "hostname", "-i")) == "10.218.1.2"
    assert ok(engine.cli("port", "web")).splitlines()[0] == "80/tcp -> 0.0.0.0:8080"
    assert ok(engine.cli("exec", "web", "nslookup", "web", "127.0.0.11"))
    if how == IPV6_MISSING:
        refused = engine.cli("network", "create", "--ipv6", "six")
        assert (refused.returncode, "this host has no IPv6" in refused.stderr) == (1, True)
    ok(engine.cli("rm", "-f", "web"))
    ok(engine.cli("network", "rm", "front"))
