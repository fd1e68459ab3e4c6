"""A container reaches its own published port by the bridge's address."""

import asyncio
import secrets
import socket
import threading

import pytest

from sampan.linux import libc
from sampan.network.bridge import BridgeSettings
from sampan.network.ports import PortRequest
from tests.support.networks import BridgeNetwork

SUBNET = f"10.211.{secrets.randbelow(254) + 1}"

pytestmark = pytest.mark.root


def test_a_container_reaches_its_own_published_port() -> None:
    async def scenario() -> None:
        suffix = secrets.token_hex(3)
        driver = BridgeNetwork(BridgeSettings(bridge=f"svt{suffix}", bip=f"{SUBNET}.1/24"))
        await driver.start()
        try:
            endpoint = await driver.attach("ab" * 32, "web", [PortRequest(80, "tcp")])
            failed: list[BaseException] = []

            def body() -> None:
                try:
                    libc.setns(endpoint.netns, 0)
                    with socket.create_server(("0.0.0.0", 80)), socket.create_connection((f"{SUBNET}.1", endpoint.ports[0].host_port), 5):
                        pass
                except BaseException as error:
                    failed.append(error)

            thread = threading.Thread(target=body)
            thread.start()
            await asyncio.to_thread(thread.join, 20)
            assert not failed
        finally:
            await driver.stop(remove=True)

    asyncio.run(scenario())
