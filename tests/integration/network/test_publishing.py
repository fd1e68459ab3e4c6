"""Published ports through the API: what is no address, and very many ports at once."""

import os
import signal
import socket
import threading
from collections.abc import Callable

import pytest

from tests.integration.network.support import Docker, ok
from tests.support.engine import Engine
from tests.support.ports import free_ports

pytestmark = pytest.mark.root


@pytest.mark.parametrize("text", ["localhost", "a.slow-zone.example", "1.2.3"])
def test_a_host_ip_that_is_no_address_is_refused_at_create(engine: Engine, text: str) -> None:
    body = {"Image": "busybox", "HostConfig": {"PortBindings": {"80/tcp": [{"HostIp": text, "HostPort": "8080"}]}}}
    assert engine.request("POST", "/containers/create", body) == (400, {"message": f"invalid IP address: {text}"})
    assert engine.request("GET", "/containers/json?all=1")[1] == []


def test_others_are_answered_while_very_many_ports_are_published(engine: Engine) -> None:
    bindings = {f"{port}/tcp": [{"HostIp": "", "HostPort": ""}] for port in range(1, 2001)}
    body = {"Image": "busybox", "Cmd": ["sleep", "1000"], "HostConfig": {"PortBindings": bindings}}
    status, created = engine.request("POST", "/containers/create", body)
    assert status == 201, created
    answers: list[tuple[int, object]] = []
    starting = threading.Thread(target=lambda: answers.append(engine.request("POST", f"/containers/{created['Id']}/start")))
    starting.start()
    answered = 0
    while starting.is_alive():
        assert engine.request("GET", "/_ping")[0] == 200
        answered += 1
    starting.join()
    assert answers == [(204, b"")]
    assert answered > 10, "the event loop stood still"
    ports = engine.request("GET", f"/containers/{created['Id']}/json")[1]["NetworkSettings"]["Ports"]
    assert sum(len(found) for found in ports.values()) in (2000, 4000)  # with IPv6 each has two
    assert engine.request("DELETE", f"/containers/{created['Id']}?force=1")[0] == 204


@pytest.mark.usefixtures("own_networks")
def test_ranges_protocols_addresses_and_conflicts(docker: Docker) -> None:
    first = free_ports(6)
    sleep = ("busybox", "sleep", "600")
    ok(docker("run", "-d", "--name", "many", "-p", f"127.0.0.1:{first}-{first + 1}:80-81", "-p", f"127.0.0.1:{first}:53/udp", *sleep))
    shown = ok(docker("port", "many")).splitlines()
    assert shown == [f"53/udp -> 127.0.0.1:{first}", f"80/tcp -> 127.0.0.1:{first}", f"81/tcp -> 127.0.0.1:{first + 1}"]
    span = f"127.0.0.1:{first}-{first + 2}:80"
    ok(docker("run", "-d", "--name", "next", "-p", span, *sleep))
    assert ok(docker("port", "next")) == f"80/tcp -> 127.0.0.1:{first + 2}"
    full = docker("run", "-d", "--name", "full", "-p", span, *sleep)
    assert full.returncode == 125
    assert f"Bind for 127.0.0.1:{first + 2} failed: port is already allocated" in full.stderr
    wide = docker("run", "-d", "--name", "wide", "-p", f"{first}:80", *sleep)
    assert f"Bind for 127.0.0.1:{first} failed: port is already allocated" in wide.stderr
    ok(docker("run", "-d", "--name", "six", "-p", f"[::1]:{first + 3}:80", *sleep))
    assert ok(docker("port", "six")) == f"80/tcp -> [::1]:{first + 3}"
    ok(docker("run", "-d", "--name", "all", "-P", "--expose", "80", "--expose", "53/udp", *sleep))
    ports = ok(docker("port", "all")).splitlines()
    assert {line.partition(" ")[0] for line in ports} == {"80/tcp", "53/udp"}
    ok(docker("stop", "-t", "0", "many", "six"))
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        port = first if family == socket.AF_INET else first + 3
        socket.create_server((host, port), family=family).close()
    ok(docker("start", "many"))


def test_ports_are_held_over_a_kill_and_freed_with_their_container(make_engine: Callable[..., Engine]) -> None:
    engine = make_engine()
    engine.start()
    engine.bootstrap()
    first = free_ports(2)
    for number, name in enumerate(("stays", "ends")):
        ok(engine.cli("run", "-d", "--name", name, "-p", f"127.0.0.1:{first + number}:80", "busybox", "sleep", "600"))
    pid = engine.request("GET", "/containers/ends/json")[1]["State"]["Pid"]
    engine.stop(signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    engine.start()
    ok(engine.cli("wait", "ends"))
    with pytest.raises(OSError, match="in use"):
        socket.create_server(("127.0.0.1", first))
    socket.create_server(("127.0.0.1", first + 1)).close()
    taken = engine.cli("run", "--rm", "-p", f"127.0.0.1:{first}:80", "busybox", "true")
    assert f"Bind for 127.0.0.1:{first} failed: port is already allocated" in taken.stderr
    ok(engine.cli("run", "--rm", "-p", f"127.0.0.1:{first + 1}:80", "busybox", "true"))
