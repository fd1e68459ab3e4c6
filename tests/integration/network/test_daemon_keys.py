"""What daemon.json says of containers, and of networks: where ports are published, pools, options, IPv6 on the default network."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.engine import Engine

pytestmark = pytest.mark.root


def ok(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_keys_of_daemon_json(make_engine: Callable[..., Engine]) -> None:
    engine = make_engine()
    number = int(engine.subnet.split(".")[2])
    pools = [{"base": f"10.222.{number}.0/24", "size": 28}, {"base": f"fd54:{number:x}::/48", "size": 64}]
    keys = {
        "ip": "127.0.0.1",
        "default-address-pools": pools,
        "default-ulimits": {"nofile": {"Name": "nofile", "Soft": 300, "Hard": 400}},
        "default-cgroupns-mode": "private",
        "default-ipc-mode": "shareable",
        "default-network-opts": {"bridge": {"com.docker.network.driver.mtu": "1400"}},
    }
    has_ipv6 = Path("/proc/sys/net/ipv6").is_dir()
    if has_ipv6:
        keys |= {"ipv6": True, "fixed-cidr-v6": f"fd55:{number:x}::/64"}
    (engine.root / "daemon.json").write_text(json.dumps(keys))
    engine.start()
    engine.bootstrap()
    assert ok(engine.cli("run", "--rm", "busybox", "sh", "-c", "ulimit -Sn; ulimit -Hn")) == "300\n400"
    assert ok(engine.cli("run", "--rm", "--ulimit", "nofile=50:60", "busybox", "sh", "-c", "ulimit -Sn")) == "50"
    ok(engine.cli("create", "--name", "c0", "busybox"))
    modes = ok(
        engine.cli("inspect", "-f", "{{.HostConfig.IpcMode}} {{.HostConfig.CgroupnsMode}} {{(index .HostConfig.Ulimits 0).Hard}}", "c0")
    )
    assert modes == "shareable private 400"
    ok(engine.cli("run", "-d", "--name", "c1", "-p", "80", "-p", "0.0.0.0::81", "busybox", "sleep", "60"))
    assert ok(engine.cli("port", "c1", "80")).startswith("127.0.0.1:")
    assert ok(engine.cli("port", "c1", "81")).startswith("0.0.0.0:")
    assert "published ports of c1 can be reached from other hosts" in engine.cli("info").stderr
    if has_ipv6:
        shown = json.loads(ok(engine.cli("inspect", "c1")))[0]["NetworkSettings"]
        assert (shown["GlobalIPv6Address"], shown["IPv6Gateway"]) == (f"fd55:{number:x}::2", f"fd55:{number:x}::1")
        assert json.loads(ok(engine.cli("network", "inspect", "bridge")))[0]["EnableIPv6"] is True
    for which, name in enumerate(("one", "two")):
        ok(engine.cli("network", "create", *(["--ipv6"] if has_ipv6 else []), name))
        config = json.loads(ok(engine.cli("network", "inspect", name)))[0]["IPAM"]["Config"]
        assert config[0]["Subnet"] == f"10.222.{number}.{16 * which}/28"
        if has_ipv6:
            assert config[1]["Subnet"] == (f"fd54:{number:x}::/64", f"fd54:{number:x}:0:1::/64")[which]
    ok(engine.cli("run", "-d", "--name", "c2", "--network", "one", "-p", "80", "busybox", "sleep", "60"))
    assert ok(engine.cli("port", "c2", "80")).startswith("127.0.0.1:")
    ok(engine.cli("network", "create", "-o", "com.docker.network.bridge.host_binding_ipv4=0.0.0.0", "open"))
    ok(engine.cli("run", "-d", "--name", "c3", "--network", "open", "-p", "80", "busybox", "sleep", "60"))
    assert ok(engine.cli("port", "c3", "80")).startswith("0.0.0.0:")
    assert "mtu 1400" in ok(engine.cli("run", "--rm", "--network", "one", "busybox", "ip", "link", "show", "eth0"))
