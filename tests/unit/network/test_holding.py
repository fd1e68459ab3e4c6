"""Ports held on the host, and docker's words when one is taken."""

import socket

import pytest

from sampan.errors import SystemFailure
from sampan.network.ports import PortRequest, Published, hold


def request(first: int, last: int | None = None, host_ip: str = "127.0.0.1") -> PortRequest:
    return PortRequest(80, "tcp", host_ip, first, last or first)


def test_a_port_of_another_container_is_already_allocated_before_its_socket_listens() -> None:
    first = hold(request(0), "0.0.0.0", "a", "1" * 64, "172.17.0.2")
    port = first.published.host_port
    for host_ip in ("127.0.0.1", "0.0.0.0"):
        with pytest.raises(SystemFailure, match=rf"endpoint b \(2+\): Bind for {host_ip}:{port} failed: port is already allocated$"):
            hold(request(port, host_ip=host_ip), "0.0.0.0", "b", "2" * 64, "172.17.0.3", [first.published])
    hold(PortRequest(80, "udp", "127.0.0.1", port, port), "0.0.0.0", "b", "2" * 64, "172.17.0.3", [first.published]).close()
    first.close()


def test_a_port_of_another_program_is_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        words = rf"failed to bind host port for 127\.0\.0\.1:{port}:172\.17\.0\.2:80/tcp: address already in use$"
        with pytest.raises(SystemFailure, match=words):
            hold(request(port), "0.0.0.0", "a", "1" * 64, "172.17.0.2")


def test_an_address_that_is_not_the_hosts() -> None:
    with pytest.raises(SystemFailure, match=r"for 203\.0\.113\.9:8080:172\.17\.0\.2:80/tcp: cannot assign requested address$"):
        hold(request(8080, host_ip="203.0.113.9"), "0.0.0.0", "a", "1" * 64, "172.17.0.2")


def test_a_range_gives_the_first_free_port() -> None:
    taken = [Published(80, "tcp", "127.0.0.1", 20301)]
    held = hold(request(20301, 20303), "0.0.0.0", "a", "1" * 64, "172.17.0.2", taken)
    assert held.published.host_port in (20302, 20303)
    held.close()
