"""The addresses of -H, and which of them are too open."""

import pytest

from sampan.daemon.hosts import problem_of_host, tcp_address


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tcp://", ("127.0.0.1", 2375)),
        ("tcp://:80", ("127.0.0.1", 80)),
        ("tcp://0.0.0.0:0", ("0.0.0.0", 0)),
        ("tcp://[::1]", ("::1", 2375)),
        ("tcp://[::]:2400", ("::", 2400)),
        ("tcp://localhost", ("localhost", 2375)),
    ],
)
def test_addresses(text: str, expected: tuple[str, int]) -> None:
    assert tcp_address(text, tls=False) == expected


def test_tls_has_a_port_of_its_own() -> None:
    assert tcp_address("tcp://10.0.0.1", tls=True).port == 2376


@pytest.mark.parametrize("host", ["tcp://x:y", "tcp://[::1", "tcp://[x]:1", "tcp://1.2.3.4:65536", "tcp://1.2.3.4:²"])
def test_no_addresses(host: str) -> None:
    assert "invalid port or address" in problem_of_host(host, tls=True)


@pytest.mark.parametrize("host", ["tcp://0.0.0.0:2375", "tcp://[::]:2375", "tcp://10.1.2.3", "tcp://no-such-host.invalid:2375"])
def test_open_to_the_network_only_if_that_was_said(host: str) -> None:
    assert "--tls=false" in problem_of_host(host, tls=None)
    assert problem_of_host(host, tls=False) == problem_of_host(host, tls=True) == ""


@pytest.mark.parametrize(
    "host", ["tcp://127.0.0.1:2375", "tcp://localhost:1", "tcp://[::1]:2375", "tcp://:2375", "unix:///s", "fd://", "fd://4"]
)
def test_this_machine_alone_may_be_in_the_clear(host: str) -> None:
    assert problem_of_host(host, tls=None) == ""


def test_descriptors_are_numbers() -> None:
    assert problem_of_host("fd://x", tls=None) == "failed to parse systemd fd address: should be a number: x"
