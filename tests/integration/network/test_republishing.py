"""`sampan update --publish-add, --publish-rm`: ports of containers that are there."""

import http.client
import signal
import socket
import subprocess
from collections.abc import Callable

import pytest

from sampan.engine.limits import host_limits
from sampan.network.proxy import ipv6_is_usable
from tests.integration.network.support import Docker, ok, serve
from tests.support.engine import Engine
from tests.support.ports import free_ports

pytestmark = pytest.mark.root


def word(port: int, host: str = "127.0.0.1") -> str:
    """What an HTTP server at a port of the host says; "" when there is none."""
    connection = http.client.HTTPConnection(host, port, timeout=10)
    try:
        connection.request("GET", "/")
        return connection.getresponse().read().decode().strip()
    except ConnectionError:
        return ""
    finally:
        connection.close()


def is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def ports(engine: Engine, name: str) -> dict[str, list[str]]:
    """What inspect shows as published of a running container, by its own ports."""
    shown = engine.request("GET", f"/containers/{name}/json")[1]["NetworkSettings"]["Ports"]
    return {port: [item["HostPort"] for item in items] for port, items in shown.items() if items}


def test_ports_of_what_runs_come_and_go_at_once(engine: Engine, docker: Docker) -> None:
    first = free_ports(4)
    serve(docker, "web", "-p", f"127.0.0.1:{first}:80")
    ok(engine.cli("update", "--publish-add", f"127.0.0.1:{first + 1}:80", "--publish-add", f"127.0.0.1:{first + 2}:53/udp", "web"))
    assert [word(first), word(first + 1)] == ["web", "web"]
    assert ports(engine, "web") == {"80/tcp": [str(first), str(first + 1)], "53/udp": [str(first + 2)]}
    assert f"127.0.0.1:{first + 1}->80/tcp" in ok(docker("ps", "--format", "{{.Ports}}"))
    assert ok(docker("port", "web", "53/udp")) == f"127.0.0.1:{first + 2}"
    ok(docker("restart", "-t", "0", "web"))
    ok(docker("exec", "web", "sh", "-c", "until wget -qO /dev/null http://127.0.0.1/; do usleep 20000; done"))
    assert [word(first), word(first + 1)] == ["web", "web"]
    engine.stop(signal.SIGKILL)
    engine.start()
    ok(engine.cli("update", "--publish-rm", "53/udp", "--publish-rm", "80", "--publish-add", f"127.0.0.1:{first}:80", "web"))
    assert [word(first), is_free(first + 1)] == ["web", True]
    assert ports(engine, "web") == {"80/tcp": [str(first)]}
    engine.stop(signal.SIGKILL)
    engine.start()
    assert word(first) == "web"
    ok(engine.cli("update", "--publish-rm", "80", "web"))
    assert is_free(first)
    ok(engine.cli("update", "--publish-add", f"127.0.0.1:{first + 3}:80", "web"))
    assert word(first + 3) == "web"
    ok(docker("rm", "-f", "web"))
    assert is_free(first + 3)


def test_a_port_that_is_taken_leaves_all_as_it_was(engine: Engine, docker: Docker) -> None:
    first = free_ports(3)
    serve(docker, "one", "-p", f"127.0.0.1:{first}:80")
    with socket.create_server(("127.0.0.1", first + 1)):
        done = engine.cli(
            "update", "--memory", "64m", "--publish-rm", "80", "--publish-add", f"127.0.0.1:{first + 2}:80",
            "--publish-add", f"127.0.0.1:{first + 1}:81", "one",
        )  # fmt: skip
    assert done.returncode == 1
    assert f"failed to bind host port for 127.0.0.1:{first + 1}:" in done.stderr
    assert "address already in use" in done.stderr
    assert [word(first), is_free(first + 2)] == ["one", True]
    assert ports(engine, "one") == {"80/tcp": [str(first)]}
    shown = engine.request("GET", "/containers/one/json")[1]["HostConfig"]
    assert (shown["Memory"], list(shown["PortBindings"])) == (0, ["80/tcp"])
    ok(docker("run", "-d", "--name", "two", "busybox", "sleep", "600"))
    taken = engine.cli("update", "--publish-add", f"127.0.0.1:{first}:80", "two")
    assert f"Bind for 127.0.0.1:{first} failed: port is already allocated" in taken.stderr
    assert ports(engine, "two") == {}


@pytest.mark.skipif(not host_limits().real_time, reason="needs a limit that the kernel refuses: cgroup v1 with CONFIG_RT_GROUP_SCHED")
def test_a_limit_that_the_kernel_refuses_takes_the_ports_back(engine: Engine, docker: Docker) -> None:
    first = free_ports(2)
    serve(docker, "web", "-p", f"127.0.0.1:{first}:80")
    done = engine.cli("update", "--cpu-rt-runtime", "900000", "--publish-rm", "80", "--publish-add", f"127.0.0.1:{first + 1}:80", "web")
    assert (done.returncode, "cannot set cpu.rt_runtime_us" in done.stderr) == (1, True)
    assert [word(first), is_free(first + 1)] == ["web", True]
    assert ports(engine, "web") == {"80/tcp": [str(first)]}


def test_ports_of_what_does_not_run_are_there_when_it_starts(engine: Engine, docker: Docker) -> None:
    first = free_ports(2)
    ok(docker("create", "--name", "later", "-p", f"127.0.0.1:{first}:81", "busybox", "sleep", "600"))
    ok(engine.cli("update", "--publish-add", f"127.0.0.1:{first + 1}:80", "--publish-rm", "81/tcp", "later"))
    refused = engine.cli("update", "--publish-rm", "81", "later")
    assert (refused.returncode, "port 81/tcp is not published" in refused.stderr) == (1, True)
    ok(docker("start", "later"))
    assert ports(engine, "later") == {"80/tcp": [str(first + 1)]}


def test_on_every_address_of_both_families_also_after_a_kill(engine: Engine, docker: Docker) -> None:
    first = free_ports(2)
    serve(docker, "wide", "-p", f"127.0.0.1:{first}:80")
    ok(engine.cli("update", "--publish-add", f"{first + 1}:80", "wide"))
    hosts = ["127.0.0.1", "::1"] if ipv6_is_usable() else ["127.0.0.1"]
    assert [word(first + 1, host) for host in hosts] == ["wide"] * len(hosts)
    engine.stop(signal.SIGKILL)
    engine.start()
    assert [word(first + 1, host) for host in hosts] == ["wide"] * len(hosts)
    ok(engine.cli("update", "--publish-rm", "80", "--publish-add", f"127.0.0.1:{first}:80", "wide"))
    assert [word(first + 1, host) for host in hosts] == [""] * len(hosts)
    assert word(first) == "wide"


@pytest.mark.usefixtures("own_networks")
def test_on_a_routed_network_ports_are_opened_and_shut(engine: Engine, docker: Docker, subnets: Callable[[int], str]) -> None:
    ok(docker("network", "create", "--subnet", subnets(0), "-o", "com.docker.network.bridge.gateway_mode_ipv4=routed", "routed"))
    ok(docker("run", "-d", "--name", "r1", "--network", "routed", "-p", "80", "busybox", "sleep", "60"))
    address = subnets(0).replace("0/24", "2")

    def opened() -> list[bool]:
        table = subprocess.run(["nft", "list", "table", "ip", f"sampan_{engine.bridge}"], capture_output=True, text=True, check=True).stdout
        return [f"{address} . tcp . {port}" in table for port in (80, 81)]

    assert opened() == [True, False]
    ok(engine.cli("update", "--publish-add", "81", "r1"))
    assert opened() == [True, True]
    ok(engine.cli("update", "--publish-add", "127.0.0.1::81", "r1"))
    ok(engine.cli("update", "--publish-rm", "80", "r1"))
    assert opened() == [False, True]
    ok(engine.cli("update", "--publish-rm", "81", "r1"))
    assert opened() == [False, False]
