"""Name servers of a container with a network namespace of its own."""

from sampan.engine.networks import reachable_servers


def test_servers_on_the_hosts_loopback_and_ipv6_are_left_out() -> None:
    lines = ["search example.com", "nameserver 127.0.0.53", "nameserver 192.0.2.1", "nameserver fd00::1", "options ndots:2"]
    assert reachable_servers(lines) == ["search example.com", "nameserver 192.0.2.1", "options ndots:2"]


def test_public_servers_are_used_when_none_is_left() -> None:
    assert reachable_servers(["nameserver ::1", "search x"]) == ["search x", "nameserver 8.8.8.8", "nameserver 8.8.4.4"]
