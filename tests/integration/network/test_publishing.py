"""Published ports through the API: what is no address, and very many ports at once."""

import threading

import pytest

from tests.support.engine import Engine

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
