"""A port is reached from where it was published and from nowhere else; a host that drops forwarded packets, beside another engine.

Everything happens in network namespaces of the test: `host` has the driver's rules, the others are wired to it.
"""

import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from sampan.network.proxy import ipv6_is_usable

pytestmark = pytest.mark.root

RULES = """
import ipaddress, pathlib
from sampan.network import firewall
from sampan.network.ports import Published
rules = firewall.Firewall("sampan_sp0")
rules.create([firewall.Zone(bridge="sp0", subnets=(ipaddress.IPv4Network("10.77.0.0/24"),))])
rules.publish(dict.fromkeys([Published(80, "tcp", "127.0.0.1", 8080), Published(80, "tcp", "0.0.0.0", 8081)], "10.77.0.2"))
pathlib.Path("/proc/sys/net/ipv4/conf/sp0/route_localnet").write_text("1")
"""
CONNECT = "import socket, sys; print(socket.create_connection((sys.argv[1], int(sys.argv[2])), 1.5).recv(99).decode())"
SERVE = """
import socket
s = socket.create_server(('::', 80), family=socket.AF_INET6, dualstack_ipv6=True) if socket.has_dualstack_ipv6() else \
    socket.create_server(('0.0.0.0', 80))
print('up', flush=True)
while True:
    with s.accept()[0] as client: client.sendall(client.getpeername()[0].removeprefix('::ffff:').encode())
"""
OPEN = "from sampan.network import firewall; assert firewall.open_forwarding(['sp0'])"
CLOSE = "from sampan.network import firewall; firewall.close_forwarding('sp0')"

WIRES = """
ip -n {host} link add sp0 type bridge && ip -n {host} link add docker0 type bridge
ip -n {host} addr add 10.77.0.1/24 dev sp0 && ip -n {host} addr add 10.79.0.1/24 dev docker0
ip -n {host} link set sp0 up && ip -n {host} link set docker0 up
ip -n {host} link add v1 type veth peer name eth0 netns {container} && ip -n {host} link set v1 master sp0 up
ip -n {host} link add v2 type veth peer name eth0 netns {docker} && ip -n {host} link set v2 master docker0 up
ip -n {host} link add lan type veth peer name eth0 netns {neighbour}
ip -n {host} addr add 10.78.0.1/24 dev lan && ip -n {host} link set lan up
ip -n {container} addr add 10.77.0.2/24 dev eth0 && ip -n {container} link set eth0 up && ip -n {container} route add default via 10.77.0.1
ip -n {docker} addr add 10.79.0.2/24 dev eth0 && ip -n {docker} link set eth0 up && ip -n {docker} route add default via 10.79.0.1
ip -n {neighbour} addr add 10.78.0.2/24 dev eth0 && ip -n {neighbour} link set eth0 up
ip -n {neighbour} route add 10.77.0.0/24 via 10.78.0.1
ip netns exec {host} sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'
"""
LOOPBACK_TO_THE_WIRE = """
ip -n {neighbour} addr del 127.0.0.1/8 dev lo
ip netns exec {neighbour} sh -c 'echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet'
ip -n {neighbour} route add 127.0.0.0/8 via 10.78.0.1 src 10.78.0.2
"""
FORWARD_DROP = """
ip netns exec {host} iptables -w 5 -P FORWARD DROP
ip netns exec {host} iptables -w 5 -N DOCKER-USER
ip netns exec {host} iptables -w 5 -A DOCKER-USER -j RETURN
ip netns exec {host} iptables -w 5 -A FORWARD -j DOCKER-USER
"""


WIRES6 = """
ip netns exec {host} sh -c 'echo 1 > /proc/sys/net/ipv6/conf/all/forwarding'
ip -n {host} addr add fd00:77::1/64 dev sp0 nodad && ip -n {host} addr add fd00:78::1/64 dev lan nodad
ip -n {container} addr add fd00:77::2/64 dev eth0 nodad && ip -n {container} route add default via fd00:77::1
ip -n {neighbour} addr add fd00:78::2/64 dev eth0 nodad && ip -n {neighbour} route add fd00:77::/64 via fd00:78::1
"""
RULES6 = """
import ipaddress
from sampan.network import firewall
from sampan.network.ports import Published
rules = firewall.Firewall("sampan_sp0", ipv6=True)
subnet = ipaddress.IPv6Network("fd00:77::/64")
rules.create([firewall.Zone(bridge="sp0", subnets=(subnet,), masqueraded=(subnet,))])
rules.publish(dict.fromkeys([Published(80, "tcp", "::", 8081), Published(80, "tcp", "fd00:78::1", 8082)], "fd00:77::2"))
"""


def shell(script: str) -> None:
    subprocess.run(["sh", "-ec", script], check=True, timeout=30, capture_output=True)


@pytest.fixture
def hosts() -> Iterator[dict[str, str]]:
    names = {name: f"sp{secrets.token_hex(4)}" for name in ("host", "container", "docker", "neighbour")}
    servers = []
    try:
        for name in names.values():
            shell(f"ip netns add {name} && ip -n {name} link set lo up")
        shell(WIRES.format(**names))
        run(names, "host", RULES)
        for name in ("container", "docker", "neighbour"):
            server = subprocess.Popen(["ip", "netns", "exec", names[name], sys.executable, "-c", SERVE], stdout=subprocess.PIPE)
            servers.append(server)
            assert server.stdout is not None
            assert server.stdout.readline() == b"up\n"
        yield names
    finally:
        for server in servers:
            server.kill()
            server.communicate(timeout=10)
        for name in names.values():
            subprocess.run(["ip", "netns", "del", name], check=False, timeout=10)


def run(names: dict[str, str], where: str, script: str, *arguments: str) -> None:
    subprocess.run(["ip", "netns", "exec", names[where], sys.executable, "-c", script, *arguments], check=True, timeout=30)


@pytest.fixture
def reaches(hosts: dict[str, str]) -> Callable[[str, str, int], bool]:
    def ask(where: str, address: str, port: int) -> bool:
        command = ["ip", "netns", "exec", hosts[where], sys.executable, "-c", CONNECT, address, str(port)]
        return subprocess.run(command, check=False, timeout=30, capture_output=True).returncode == 0

    return ask


def test_only_what_is_published_is_reached(hosts: dict[str, str], reaches: Callable[[str, str, int], bool]) -> None:
    assert reaches("host", "127.0.0.1", 8080)
    assert reaches("host", "127.0.0.1", 8081)
    assert reaches("neighbour", "10.78.0.1", 8081)
    assert not reaches("neighbour", "10.78.0.1", 8080)
    assert not reaches("neighbour", "10.77.0.2", 80)
    shell(LOOPBACK_TO_THE_WIRE.format(**hosts))
    assert not reaches("neighbour", "127.0.0.1", 8080)


OPENED = """
import sys
from sampan.network import firewall
from sampan.network.ports import Published
firewall.Firewall("sampan_sp0").open({"10.77.0.2": [Published(int(sys.argv[2]), "tcp", "0.0.0.0", 0)]}, verb=sys.argv[1])
"""
UNPROTECTED = """
import ipaddress
from sampan.network import firewall
firewall.Firewall("sampan_sp0").create([firewall.Zone(bridge="sp0", subnets=(ipaddress.IPv4Network("10.77.0.0/24"),), unprotected=(4,))])
"""


def test_who_has_a_route_reaches_what_is_opened(hosts: dict[str, str], reaches: Callable[[str, str, int], bool]) -> None:
    """gateway_mode routed opens published ports at the container's own address, nat-unprotected all of them."""
    run(hosts, "host", OPENED, "add", "80")
    assert reaches("neighbour", "10.77.0.2", 80)
    run(hosts, "host", OPENED, "delete", "80")
    assert not reaches("neighbour", "10.77.0.2", 80)
    run(hosts, "host", UNPROTECTED)
    assert reaches("neighbour", "10.77.0.2", 80)


def test_the_container_sees_who_connects(hosts: dict[str, str]) -> None:
    for where, address, port, seen in (("neighbour", "10.78.0.1", "8081", "10.78.0.2"), ("host", "127.0.0.1", "8080", "10.77.0.1")):
        command = ["ip", "netns", "exec", hosts[where], sys.executable, "-c", CONNECT, address, port]
        assert subprocess.run(command, check=True, timeout=30, capture_output=True, text=True).stdout == f"{seen}\n"


@pytest.mark.skipif(not ipv6_is_usable(), reason="this host has no IPv6")
def test_the_container_sees_who_connects_by_ipv6(hosts: dict[str, str], reaches: Callable[[str, str, int], bool]) -> None:
    """Translated by the kernel: no proxy is in between. What is not published is not reached."""
    shell(WIRES6.format(**hosts))
    run(hosts, "host", RULES6)
    for port in ("8081", "8082"):
        command = ["ip", "netns", "exec", hosts["neighbour"], sys.executable, "-c", CONNECT, "fd00:78::1", port]
        deadline = time.monotonic() + 30
        while (found := subprocess.run(command, check=False, timeout=30, capture_output=True, text=True)).returncode:
            assert time.monotonic() < deadline, found.stderr  # until neighbours are found on links just made
        assert found.stdout == "fd00:78::2\n"
    assert not reaches("neighbour", "fd00:77::2", 80)


def test_a_host_that_drops_forwarded_packets(hosts: dict[str, str], reaches: Callable[[str, str, int], bool]) -> None:
    shell(FORWARD_DROP.format(**hosts))
    assert not reaches("neighbour", "10.78.0.1", 8081)
    for _twice in range(2):
        run(hosts, "host", OPEN)
    assert reaches("neighbour", "10.78.0.1", 8081)
    assert reaches("container", "10.78.0.2", 80)
    assert not reaches("container", "10.79.0.2", 80), "another engine's unpublished port"
    assert not reaches("docker", "10.77.0.2", 80)
    run(hosts, "host", CLOSE)
    assert not reaches("container", "10.78.0.2", 80)
    rules = subprocess.run(["ip", "netns", "exec", hosts["host"], "iptables", "-S"], check=True, capture_output=True, text=True).stdout
    assert "SAMPAN" not in rules
