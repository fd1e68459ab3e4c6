"""The name servers of daemon.json in containers."""

from collections.abc import Callable

import pytest

from sampan.quoting import go_quote
from tests.support.engine import Engine

pytestmark = pytest.mark.root


def settings(text: str) -> list[str]:
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_dns_of_the_daemon_is_for_containers_without_their_own(make_engine: Callable[..., Engine], docker_path: str) -> None:
    engine = make_engine("--dns=192.0.2.7", "--dns-search=corp.example", "--dns-opt=timeout:3")
    engine.start()
    engine.bootstrap()

    def inside(*flags: str) -> list[str]:
        done = engine.run_client([docker_path], "run", "--rm", *flags, "busybox", "cat", "/etc/resolv.conf", timeout=60)
        assert done.returncode == 0, done.stderr
        return settings(done.stdout)

    expected = ["nameserver 192.0.2.7", "search corp.example", "options timeout:3"]
    assert inside() == expected
    assert inside("--network=host") == expected
    assert inside("--dns=192.0.2.8") == ["nameserver 192.0.2.8", *expected[1:]]
    assert inside("--dns-search=.")[:1] == expected[:1]
    assert "search corp.example" not in inside("--dns-search=.")


@pytest.mark.usefixtures("own_networks")
@pytest.mark.parametrize("server", ["a.slow-zone.example", "192.0.2.7\nnameserver 192.0.2.8", ""])
def test_a_name_server_that_is_no_address(engine: Engine, front: str, server: str) -> None:
    """It would be looked up, by the host's own servers, for each query; docker's client refuses it, dockerd at the start."""
    for network in ("bridge", "host", front):
        body = {"Image": "busybox", "Cmd": ["true"], "HostConfig": {"NetworkMode": network, "Dns": [server]}}
        status, created = engine.request("POST", "/containers/create", body)
        assert status == 201, created
        words = f"bad nameserver address {server}: ParseAddr({go_quote(server)}): unable to parse IP"
        assert engine.request("POST", f"/containers/{created['Id']}/start") == (500, {"message": words})
        state = engine.request("GET", f"/containers/{created['Id']}/json")[1]["State"]
        assert (state["ExitCode"], state["Error"], state["Status"]) == (128, words, "created")


def test_an_added_host_with_a_zone(engine: Engine) -> None:
    body = {"Image": "busybox", "HostConfig": {"ExtraHosts": ["a:fe80::1%x"]}}
    words = 'invalid IP address in add-host: "fe80::1%x"'
    assert engine.request("POST", "/containers/create", body) == (400, {"message": words})
