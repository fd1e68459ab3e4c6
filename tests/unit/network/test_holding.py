"""Ports held on the host, and docker's words when one is taken."""

import socket
from collections.abc import Sequence

import pytest

from sampan.errors import SystemFailure
from sampan.network.ports import HeldPort, PortRequest, Published, PublishedPorts, addresses, hold

CONTAINER = ("b", "2" * 64, "172.17.0.3")


def hold_one(first: int, last: int | None = None, host_ip: str = "127.0.0.1", protocol: str = "tcp",
             taken: Sequence[Published] = ()) -> HeldPort:  # fmt: skip
    [held] = hold(PortRequest(80, protocol, host_ip, first, last or first), [host_ip], *CONTAINER, PublishedPorts(taken))
    return held


def test_a_port_of_another_container_is_already_allocated_before_its_socket_listens() -> None:
    first = hold_one(0)
    port = first.published.host_port
    for host_ip in ("127.0.0.1", "0.0.0.0"):
        with pytest.raises(SystemFailure, match=rf"endpoint b \(2+\): Bind for 127.0.0.1:{port} failed: port is already allocated$"):
            hold_one(port, host_ip=host_ip, taken=[first.published])
    hold_one(port, protocol="udp", taken=[first.published]).close()
    hold_one(port, host_ip="::1", taken=[first.published]).close()
    first.close()


def test_a_port_of_another_program_is_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        words = rf"failed to bind host port for 127\.0\.0\.1:{port}:172\.17\.0\.3:80/tcp: address already in use$"
        with pytest.raises(SystemFailure, match=words):
            hold_one(port)


@pytest.mark.parametrize(("host_ip", "shown"), [("203.0.113.9", r"203\.0\.113\.9"), ("2001:db8::9", r"\[2001:db8::9\]")])
def test_an_address_that_is_not_the_hosts(host_ip: str, shown: str) -> None:
    with pytest.raises(SystemFailure, match=rf"for {shown}:8080:172\.17\.0\.3:80/tcp: cannot assign requested address$"):
        hold_one(8080, host_ip=host_ip)


def test_a_range_gives_the_first_free_port() -> None:
    held = hold_one(20301, 20303, taken=[Published(80, "tcp", "127.0.0.1", 20301)])
    assert held.published.host_port in (20302, 20303)
    held.close()


def test_without_an_address_a_port_is_published_on_both_families() -> None:
    assert addresses(PortRequest(80, "tcp"), "0.0.0.0", ipv6=True) == ("0.0.0.0", "::")
    assert addresses(PortRequest(80, "tcp"), "0.0.0.0", ipv6=False) == ("0.0.0.0",)
    assert addresses(PortRequest(80, "tcp"), "192.0.2.1", ipv6=True) == ("192.0.2.1",)
    assert addresses(PortRequest(80, "tcp", "0.0.0.0"), "0.0.0.0", ipv6=True) == ("0.0.0.0",)
    held = hold(PortRequest(80, "tcp"), ("127.0.0.1", "::1"), *CONTAINER, PublishedPorts())
    ports = {port.published.host_port for port in held}
    assert len(ports) == 1
    assert [port.is_ipv6 for port in held] == [False, True]
    for port in held:
        port.close()


def test_a_port_that_is_free_on_one_family_only_is_left_alone() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as other:
        port = other.getsockname()[1]
        with pytest.raises(SystemFailure, match=rf"for \[::1\]:{port}:172\.17\.0\.3:80/tcp: address already in use$"):
            hold(PortRequest(80, "tcp", "", port, port), ("127.0.0.1", "::1"), *CONTAINER, PublishedPorts())
        socket.create_server(("127.0.0.1", port)).close()


def test_who_has_a_port_is_found_without_looking_at_the_others() -> None:
    class Counted(str):
        """An address that counts how often it is looked at."""

        looks = 0

        def __eq__(self, other: object) -> bool:
            Counted.looks += 1
            return str.__eq__(self, other)

        __hash__ = str.__hash__

    published = PublishedPorts(Published(80, "tcp", Counted("127.0.0.1"), number) for number in range(1, 3001))
    assert len(published) == 3000
    Counted.looks = 0
    for number in range(3001, 6001):
        assert published.holder("tcp", "127.0.0.1", number) is None
    assert Counted.looks == 0
    first = published.holder("tcp", "0.0.0.0", 1)
    assert first is not None
    published.remove(first)
    assert published.holder("tcp", "127.0.0.1", 1) is None
    assert len(published) == 2999


def test_more_sockets_than_half_of_our_descriptors_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = [Published(80, "tcp", "127.0.0.1", number) for number in range(1, 5)]
    monkeypatch.setattr("resource.getrlimit", lambda _which: (10, 10))
    hold_one(0, taken=taken).close()
    with pytest.raises(SystemFailure, match=r"too many published ports: 5 sockets at most, half of this process's limit of open files$"):
        hold_one(0, taken=[*taken, Published(80, "tcp", "127.0.0.1", 5)])
