"""Published ports through the API: what is no address, and very many ports at once."""

import pytest

from tests.support.engine import Engine

pytestmark = pytest.mark.root


@pytest.mark.parametrize("text", ["localhost", "a.slow-zone.example", "1.2.3.4\0"])
def test_a_host_ip_that_is_no_address_is_refused_at_create(engine: Engine, text: str) -> None:
    body = {"Image": "busybox", "HostConfig": {"PortBindings": {"80/tcp": [{"HostIp": text, "HostPort": "8080"}]}}}
    assert engine.request("POST", "/containers/create", body) == (400, {"message": f"invalid IP address: {text}"})
    assert engine.request("GET", "/containers/json?all=1")[1] == []
