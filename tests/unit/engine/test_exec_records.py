"""What an exec holds when its start fails, and how long its record is kept. The supervisor is one that fails as it is told."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sampan.clock import SystemClock
from sampan.engine import exec as execs
from sampan.engine.background import Background
from sampan.engine.containerevents import ContainerEvents
from sampan.engine.exec import ExecService
from sampan.engine.paths import Paths
from sampan.engine.runtimes import Runtimes, RuntimeSettings
from sampan.errors import Conflict, NotFound, Unavailable
from sampan.events.bus import EventBus
from sampan.runtime.client import Launched, LaunchError
from sampan.spec.docker_api.container import Config, ExecCreateRequest, ExecStartRequest, HostConfig
from sampan.streams import Duplex
from sampan.testing.duplex import duplex_pair

CONTAINER = "c" * 64


class Supervisor:
    """Fails with an exception, or starts nothing and says what it is told to."""

    def __init__(self, outcome: BaseException | Callable[[], Launched]) -> None:
        self.outcome = outcome
        self.forgotten: list[str] = []

    async def exec(self, *_args: object, **_options: object) -> Launched:
        await asyncio.sleep(0)
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome()

    async def forget(self, key: str) -> None:
        self.forgotten.append(key)


def service_with(outcome: BaseException | Callable[[], Launched]) -> tuple[ExecService, Any, Any]:
    """(service, supervisor, container)"""
    container = SimpleNamespace(
        id=CONTAINER, name="c", image_name="i", config=Config(), host_config=HostConfig(), is_running=True, exec_ids=set(),
        removed=asyncio.Event(), state=SimpleNamespace(paused=False, pid=1, start_time=1, runtime=(), user_maps=None),
    )  # fmt: skip
    supervisor, events = Supervisor(outcome), ContainerEvents(EventBus(SystemClock()))
    found = cast("Any", SimpleNamespace(find=lambda _ref: container))
    paths = Paths(Path("/"), Path("/"), "x")
    service = ExecService(found, cast("Any", supervisor), events, Background(), paths, Runtimes(RuntimeSettings(), paths))
    return service, supervisor, container


def descriptors() -> set[str]:
    """What this process holds open."""
    return set(os.listdir("/proc/self/fd"))


LAUNCH_ERROR = LaunchError("exec", 2, "x", 'exec: "x": executable file not found in $PATH')
FAULTS = [LAUNCH_ERROR, Unavailable("gone"), OSError(24, "Too many open files"), asyncio.CancelledError(), RuntimeError("odd")]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
@pytest.mark.parametrize("tty", [False, True])
def test_a_failed_start_leaves_no_descriptor_and_no_record_in_the_container(fault: BaseException, *, tty: bool) -> None:
    async def scenario() -> None:
        service, _, container = service_with(fault)
        wanted = ExecCreateRequest(cmd=["x"], attach_stdin=True, attach_stdout=True, attach_stderr=True, tty=tty)
        for detach in (False, True):
            exec_id = await service.create("c", wanted)
            ours, theirs = duplex_pair()

            async def open_stream(_framed: bool, stream: Duplex = ours) -> Duplex:
                return stream

            before = descriptors()
            try:
                await service.start(exec_id, ExecStartRequest(detach=detach), open_stream)
            except BaseException as error:
                assert isinstance(error, (type(fault), execs.EngineError))  # noqa: PT017
            assert descriptors() == before
            theirs.close()
            shown = await service.inspect(exec_id)
            assert (shown.running, shown.exit_code) == (False, 127 if fault is LAUNCH_ERROR else 126)
            assert container.exec_ids == set()
            with pytest.raises(Conflict, match=f"exec command {exec_id} has already run"):
                await service.start(exec_id, ExecStartRequest(detach=True), open_stream)

    asyncio.run(scenario())


def test_a_client_that_is_gone_before_its_stream_opens() -> None:
    async def scenario() -> None:
        service, _, container = service_with(LAUNCH_ERROR)
        exec_id = await service.create("c", ExecCreateRequest(cmd=["x"], attach_stdout=True))

        async def open_stream(_framed: bool) -> Duplex:
            raise ConnectionResetError

        before = descriptors()
        with pytest.raises(ConnectionResetError):
            await service.start(exec_id, ExecStartRequest(), open_stream)
        assert descriptors() == before
        assert ((await service.inspect(exec_id)).exit_code, container.exec_ids) == (126, set())

    asyncio.run(scenario())


def test_the_end_is_told_before_the_start() -> None:
    """Both messages in one reading of the socket: the exit's event is handled before the reply's waiter runs."""

    async def scenario() -> None:
        opened: list[int] = []

        def outcome() -> Launched:
            opened.extend((os.open("/dev/zero", os.O_RDWR), os.open("/dev/zero", os.O_RDONLY)))
            service.exit_event(exec_id, 7)
            return Launched(pid=4711, start_time=1, started_at=1, pidfd=opened[0], pty=opened[1])

        service, supervisor, container = service_with(outcome)
        exec_id = await service.create("c", ExecCreateRequest(cmd=["x"], tty=True))
        before = descriptors()
        await service.start(exec_id, ExecStartRequest(detach=True), cast("Any", None))
        assert descriptors() == before
        shown = await service.inspect(exec_id)
        assert (shown.running, shown.exit_code, container.exec_ids) == (False, 7, set())
        await asyncio.sleep(0)
        assert supervisor.forgotten == [exec_id]

    asyncio.run(scenario())


def test_what_was_never_started_goes_with_the_run() -> None:
    async def scenario() -> None:
        service, _, container = service_with(LAUNCH_ERROR)
        never = await service.create("c", ExecCreateRequest(cmd=["x"]))
        failed = await service.create("c", ExecCreateRequest(cmd=["x"]))
        with pytest.raises(execs.EngineError):
            await service.start(failed, ExecStartRequest(detach=True), cast("Any", None))
        service.container_ended(container)
        with pytest.raises(NotFound, match=f"No such exec instance: {never}"):
            await service.inspect(never)
        assert (await service.inspect(failed)).exit_code == 127
        container.removed.set()
        with pytest.raises(NotFound):
            await service.inspect(failed)

    asyncio.run(scenario())


def test_records_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        service, _, container = service_with(LAUNCH_ERROR)
        monkeypatch.setattr(execs, "MAX_KEPT", 20)
        running = await service.create("c", ExecCreateRequest(cmd=["x"]))
        service._find(running).started = True
        made = [await service.create("c", ExecCreateRequest(cmd=["x"])) for _ in range(50)]
        assert container.exec_ids == {running, *made[-19:]}
        monkeypatch.setattr(execs, "MAX_KEPT_BYTES", 10 << 20)
        made += [await service.create("c", ExecCreateRequest(cmd=["x"], env=["x" * (3 << 20)])) for _ in range(8)]
        assert container.exec_ids == {running, *made[-3:]}
        assert service._kept_bytes == sum(service._find(name).size for name in container.exec_ids)

    asyncio.run(scenario())


def test_an_ended_exec_is_forgotten_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        service, _, _ = service_with(LAUNCH_ERROR)
        monkeypatch.setattr(execs, "KEPT_SECONDS", 0.01)
        exec_id = await service.create("c", ExecCreateRequest(cmd=["x"]))
        with pytest.raises(execs.EngineError):
            await service.start(exec_id, ExecStartRequest(detach=True), cast("Any", None))
        later = asyncio.Event()
        asyncio.get_running_loop().call_later(0.02, later.set)  # timers fire in their order, however slow the machine is
        await later.wait()
        assert (service._kept_bytes, exec_id in service._execs) == (0, False)

    asyncio.run(scenario())
