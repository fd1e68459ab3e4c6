"""What a container asks to publish."""

import pytest

from sampan.errors import InvalidArgument
from sampan.network.ports import PortRequest, port_requests
from sampan.spec.docker_api.container import PortBinding


def test_bindings_ranges_and_publish_all() -> None:
    bindings = {"80/tcp": [PortBinding(host_ip="127.0.0.1", host_port="8000-8002")], "53/udp": [PortBinding()], "9/tcp": None}
    assert port_requests(["80/tcp", "443/tcp"], bindings, True) == [
        PortRequest(80, "tcp", "127.0.0.1", 8000, 8002), PortRequest(53, "udp"), PortRequest(443, "tcp"),
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["x", "5-4", "70000"])
def test_bad_host_port_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        port_requests([], {"80/tcp": [PortBinding(host_port=text)]}, False)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [("", ""), ("127.0.0.1", "127.0.0.1"), ("0:0::1", "::1"), ("2001:DB8::9", "2001:db8::9"), ("::ffff:127.0.0.1", "127.0.0.1")],
)
def test_a_host_address_is_canonical(text: str, canonical: str) -> None:
    [found] = port_requests([], {"80/tcp": [PortBinding(host_ip=text)]}, False)
    assert found.host_ip == canonical


@pytest.mark.parametrize(
    "text", ["localhost", "a.example", "127.1", "010.0.0.1", "1.2.3.4\0", "[::1]", "fe80::1%lo", "1.2.3.4/8", " 1.2.3.4"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match=r"^invalid IP address: "):
        port_requests([], {"80/tcp": [PortBinding(host_ip=text)]}, False)
