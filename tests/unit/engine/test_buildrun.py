"""The containers of build steps, when the build is ended at a bad moment."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from sampan.engine.buildoptions import BuildOptions
from sampan.engine.buildrun import HOSTNAME, StepContainers, host_config
from sampan.engine.creating import Base
from sampan.engine.runs import Lent
from sampan.spec.docker_api.container import CreateRequest
from sampan.spec.oci_image import ContainerConfig

if TYPE_CHECKING:
    from sampan.engine.buildspool import Workspace


class _Engine:
    """Stands for the container's runner, its control and its output. start() and discard() wait until they may go on."""

    def __init__(self) -> None:
        self.may_go_on = asyncio.Event()
        self.done: list[str] = []

    async def start(self, container: Any, lent: Lent) -> None:
        await self.may_go_on.wait()
        container.is_running = True
        self.done.append("start")

    async def kill(self, container: Any) -> None:
        container.is_running = False
        self.done.append("kill")

    async def discard(self, container: Any) -> None:
        await self.may_go_on.wait()
        self.done.append("discard")

    @asynccontextmanager
    async def output(self, container: Any) -> AsyncIterator[AsyncIterator[bytes]]:
        async def chunks() -> AsyncIterator[bytes]:
            await asyncio.Event().wait()
            yield b""

        yield chunks()


def _container() -> Any:
    settled = asyncio.Event()
    settled.set()
    return SimpleNamespace(id="id", lock=asyncio.Lock(), is_running=False, removing=False, removed=asyncio.Event(), settled=settled)


async def _ended_twice(task: "asyncio.Task[Any]", engine: _Engine) -> None:
    """End a task by a client that is gone, which may be told twice."""
    for _ in range(3):
        await asyncio.sleep(0)
    for _ in range(2):
        task.cancel()
        await asyncio.sleep(0)
    engine.may_go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task


def _steps(engine: _Engine) -> StepContainers:
    return StepContainers(cast("Any", None), cast("Any", None), cast("Any", engine), cast("Any", engine), cast("Any", engine))


async def _say(text: str) -> None:
    del text


def test_a_start_is_not_cut_in_half() -> None:
    async def run() -> None:
        engine, container = _Engine(), _container()
        await _ended_twice(asyncio.create_task(_steps(engine).run(container, _say, Lent())), engine)
        assert engine.done == ["start"]

    asyncio.run(run())


def test_a_removal_goes_on_to_its_end() -> None:
    async def run() -> None:
        engine, container = _Engine(), _container()
        container.is_running = True
        forgotten: list[str] = []
        workspace = cast("Workspace", SimpleNamespace(forget_container=forgotten.append))
        await _ended_twice(asyncio.create_task(_steps(engine).remove(workspace, container)), engine)
        assert engine.done == ["kill", "discard"]
        assert forgotten == ["id"]

    asyncio.run(run())


@pytest.mark.parametrize(("network", "hostname", "ports"), [("bridge", HOSTNAME, {"80/tcp": {}}), ("container:other", "", None)])
def test_a_step_in_anothers_network_has_neither_a_name_nor_ports_of_its_own(network: str, hostname: str, ports: object) -> None:
    asked: list[CreateRequest] = []

    async def create_on(base: Base, name: str, request: CreateRequest, container_id: str) -> None:
        asked.append(request)

    async def run() -> None:
        nobody = cast("Any", None)
        steps = StepContainers(cast("Any", SimpleNamespace(create_on=create_on)), nobody, nobody, nobody, nobody)
        workspace = cast("Workspace", SimpleNamespace(note_container=lambda _: None))
        config = ContainerConfig(exposed_ports={"80/tcp": {}})
        host = host_config(BuildOptions(network=network), "")
        await steps.make(workspace, Base("", None, ContainerConfig()), config, ["true"], host, anonymous=True)

    asyncio.run(run())
    assert [(request.hostname, request.exposed_ports) for request in asked] == [(hostname, ports)]
