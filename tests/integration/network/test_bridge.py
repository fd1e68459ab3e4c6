"""The bridge driver against the real kernel: netns, published ports, the guard of the host's loopback, restart."""

import asyncio
import os
import secrets
import socket
import subprocess
import threading
from collections.abc import Callable

import pytest

from sampan.errors import SystemFailure
from sampan.linux import libc
from sampan.linux.nftables import NftablesError
from sampan.network import firewall
from sampan.network.bridge import BridgeSettings
from sampan.network.ports import PortRequest
from sampan.network.proxy import ipv6_is_usable
from tests.support.networks import BridgeNetwork

pytestmark = pytest.mark.root

ID = "ab" * 32

SUBNET = f"10.212.{secrets.randbelow(254) + 1}"
"""Of this run: others may test on this machine too."""

ROUTE_LOOPBACK_OUT = f"""
echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet
ip addr del 127.0.0.1/8 dev lo
ip route add 127.0.0.0/8 via {SUBNET}.1
"""
"""What a container with CAP_NET_ADMIN can do to reach for the host's loopback services."""


def network(suffix: str) -> BridgeNetwork:
    return BridgeNetwork(BridgeSettings(bridge=f"svt{suffix}", bip=f"{SUBNET}.1/24"))


def inside(netns: int, work: Callable[[], None]) -> None:
    """Run in a thread of another netns; a failure is raised here."""
    failed: list[BaseException] = []

    def body() -> None:
        try:
            libc.setns(netns, 0)
            work()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join(20)
    if failed:
        raise failed[0]


def test_published_port_reaches_the_container_until_detach() -> None:
    async def scenario() -> None:
        suffix = secrets.token_hex(3)
        driver = network(suffix)
        await driver.start()
        try:
            endpoint = await driver.attach(ID, "web", [PortRequest(80, "tcp")])
            assert endpoint.ip == f"{SUBNET}.2"
            served: list[socket.socket] = []
            inside(endpoint.netns, lambda: served.append(socket.create_server(("0.0.0.0", 80))))
            port = endpoint.ports[0].host_port
            for address in ("127.0.0.1", f"{SUBNET}.1"):
                with socket.create_connection((address, port), 5):
                    served[0].accept()[0].close()
            with socket.create_server(("127.0.0.1", 0)) as secret:
                number = secret.getsockname()[1]

                def loopback_of_the_host() -> None:
                    subprocess.run(["sh", "-ec", ROUTE_LOOPBACK_OUT], check=True, timeout=10)
                    with pytest.raises(OSError, match="timed out"):
                        socket.create_connection(("127.0.0.1", number), 1)

                inside(endpoint.netns, loopback_of_the_host)
            with pytest.raises(SystemFailure, match=rf"Bind for 0\.0\.0\.0:{port} failed: port is already allocated$"):
                await driver.attach("cd" * 32, "other", [PortRequest(80, "tcp", "", port, port)])
            await driver.stop(remove=False)
            again = network(suffix)
            await again.start()
            await again.reconcile({ID: endpoint})
            with pytest.raises(SystemFailure, match="already allocated"):
                await again.attach("cd" * 32, "other", [PortRequest(80, "tcp", "", port, port)])
            await again.detach(ID)
            with pytest.raises(OSError, match="refused"):
                socket.create_connection(("127.0.0.1", port), 5)
            served[0].close()
            driver = again
        finally:
            await driver.stop(remove=True)
        assert not os.path.exists(f"/sys/class/net/svt{suffix}")

    asyncio.run(scenario())


@pytest.mark.skipif(not ipv6_is_usable(), reason="this host has no IPv6")
def test_a_port_is_published_on_ipv6_too() -> None:
    async def scenario() -> None:
        suffix = secrets.token_hex(3)
        driver = network(suffix)
        await driver.start()
        try:
            endpoint = await driver.attach(ID, "web", [PortRequest(80, "tcp"), PortRequest(81, "tcp", "127.0.0.1")])
            shown = [(item.host_ip, item.port) for item in endpoint.ports]
            assert shown == [("0.0.0.0", 80), ("::", 80), ("127.0.0.1", 81)]
            assert endpoint.ports[0].host_port == endpoint.ports[1].host_port
            served: list[socket.socket] = []
            inside(endpoint.netns, lambda: served.extend(socket.create_server(("0.0.0.0", port)) for port in (80, 81)))
            port = endpoint.ports[0].host_port
            await asyncio.to_thread(greet, served[0], port)
            with pytest.raises(OSError, match="refused"):
                socket.create_connection(("::1", endpoint.ports[2].host_port), 5)
            # sampand goes and comes back
            await driver.stop(remove=False)
            driver = network(suffix)
            await driver.start()
            await driver.reconcile({ID: endpoint})
            await asyncio.to_thread(greet, served[0], port)
            await driver.detach(ID)
            with pytest.raises(OSError, match="refused"):
                socket.create_connection(("::1", port), 5)
            for server in served:
                server.close()
        finally:
            await driver.stop(remove=True)

    def greet(server: socket.socket, port: int) -> None:
        with socket.create_connection(("::1", port), 20) as client:
            peer, _ = server.accept()
            with peer:
                peer.sendall(b"hello")
                assert client.recv(5) == b"hello"

    asyncio.run(scenario())


def test_without_nftables_containers_have_a_network_but_publish_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_table: str, *, ipv6: bool) -> None:
        raise NftablesError("libnftables.so.1 cannot be loaded")

    monkeypatch.setattr(firewall, "Firewall", missing)

    async def scenario() -> None:
        driver = network(secrets.token_hex(3))
        await driver.start()
        try:
            assert driver.rules.warning
            assert (await driver.attach(ID, "web", [])).ip == f"{SUBNET}.2"
            with pytest.raises(SystemFailure, match="cannot publish ports of other"):
                await driver.attach("cd" * 32, "other", [PortRequest(80, "tcp")])
        finally:
            await driver.stop(remove=True)

    asyncio.run(scenario())


def test_reconcile_removes_veths_of_no_container() -> None:
    async def scenario() -> None:
        suffix = secrets.token_hex(3)
        driver = network(suffix)
        await driver.start()
        try:
            kept = await driver.attach(ID, "kept", [])
            stray = await driver.attach("cd" * 32, "stray", [])
            again = network(suffix)
            await again.start()
            await again.reconcile({ID: kept})
            names = os.listdir("/sys/class/net")
            assert kept.place.veth in names
            assert stray.place.veth not in names
            assert (await again.attach("ef" * 32, "next", [])).ip == stray.ip
            await again.stop(remove=False)
        finally:
            await driver.stop(remove=True)

    asyncio.run(scenario())
