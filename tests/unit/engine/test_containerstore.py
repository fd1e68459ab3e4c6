"""What has happened is taken over whether or not it can be stored, and stored once it can."""

import asyncio
from typing import cast

import msgspec
import pytest

from sampan.engine import containerstore
from sampan.engine.containerstore import Container, Containers
from sampan.ids import ContainerId
from sampan.spec.docker_api.container import Config, HostConfig
from sampan.spec.docker_api.network import NetworkingConfig
from sampan.state.containers import ContainerRepository, ContainerRow, ContainerState
from sampan.state.database import Unwritable


class Disk:
    """A table on a disk that may be full."""

    def __init__(self) -> None:
        self.full = False
        self.stored: dict[str, ContainerState] = {}

    def insert(self, row: ContainerRow, _volumes: object) -> None:
        self.stored[row.id] = row.state

    def set_state(self, container: ContainerId, state: ContainerState) -> None:
        if self.full:
            raise Unwritable("the disk is full")
        self.stored[container] = state


def container_of(letter: str) -> Container:
    row = ContainerRow(ContainerId(letter * 64), letter, 1, "", "", None, b"", b"", b"", None, ContainerState(status="running"))
    return Container(row, Config(), HostConfig(), NetworkingConfig())


def test_what_has_happened_is_stored_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containerstore, "STORE_SECONDS", 0.01)

    async def scenario() -> None:
        disk = Disk()
        containers = Containers(cast("ContainerRepository", disk))
        one, two = container_of("1"), container_of("2")
        containers.add(one)
        containers.add(two)
        disk.full = True
        for container in (one, two):
            containers.note_state(container, msgspec.structs.replace(container.state, status="exited"))
            assert container.state.status == "exited"
        with pytest.raises(Unwritable):
            containers.set_state(one, ContainerState(status="running"))
        assert one.state.status == "exited"
        await asyncio.sleep(0.03)
        assert {state.status for state in disk.stored.values()} == {"running"}
        disk.full = False
        async with asyncio.timeout(10):
            while {state.status for state in disk.stored.values()} != {"exited"}:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    asyncio.run(scenario())
