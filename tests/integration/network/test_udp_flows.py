"""Packets of a client that has sent before follow a published UDP port to wherever it leads now."""

import asyncio
import secrets
import socket
import threading
from collections.abc import Callable

import pytest

from sampan.linux import libc
from sampan.network.bridge import BridgeSettings
from sampan.network.ports import PortRequest
from tests.support.networks import BridgeNetwork, Endpoint

SUBNET = f"10.210.{secrets.randbelow(254) + 1}"

pytestmark = pytest.mark.root


def socket_in(endpoint: Endpoint) -> socket.socket:
    """A UDP server in a container's netns."""
    found: list[socket.socket] = []

    def body() -> None:
        libc.setns(endpoint.netns, 0)
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind(("0.0.0.0", 53))
        made.settimeout(5)
        found.append(made)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join(20)
    return found[0]


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("0.0.0.0", 0))
        number: int = probe.getsockname()[1]
        return number


def test_a_client_that_sent_before() -> None:
    async def scenario() -> None:
        driver = BridgeNetwork(BridgeSettings(bridge=f"svt{secrets.token_hex(3)}", bip=f"{SUBNET}.1/24"))
        await driver.start()
        port = free_port()
        request = [PortRequest(53, "udp", host_first=port, host_last=port)]
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        client.bind(("0.0.0.0", 0))

        def say(word: bytes) -> Callable[[], int]:
            return lambda: client.sendto(word, (f"{SUBNET}.1", port))

        try:
            say(b"nobody")()
            endpoint = await driver.attach("ab" * 32, "one", request)
            with socket_in(endpoint) as server:
                say(b"one")()
                assert await asyncio.to_thread(server.recv, 100) == b"one"
            await driver.detach("ab" * 32)
            await driver.attach("ef" * 32, "other", [])  # it gets the address that was left
            endpoint = await driver.attach("cd" * 32, "two", request)
            with socket_in(endpoint) as server:
                try:
                    say(b"two")()
                except ConnectionError:  # what was heard of the one before
                    say(b"two")()
                assert await asyncio.to_thread(server.recv, 100) == b"two"
        finally:
            client.close()
            await driver.stop(remove=True)

    asyncio.run(scenario())
