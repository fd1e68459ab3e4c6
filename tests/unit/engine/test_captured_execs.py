"""A probe whose start fails, or is still on its way when nobody wants it any more: what it leaves."""

import asyncio
import os
import signal
import subprocess
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
from sampan.errors import SystemFailure
from sampan.events.bus import EventBus
from sampan.runtime.client import Launched, LaunchError
from sampan.spec.docker_api.container import Config, ExecCreateRequest, HostConfig

REQUEST = ExecCreateRequest(cmd=["x"], attach_stdout=True, attach_stderr=True)
LAUNCH_ERROR = LaunchError("exec", 2, "x", 'exec: "x": executable file not found in $PATH')


def lasting(fds: dict[str, int]) -> subprocess.Popen[bytes]:
    """A process that writes `out` and stays."""
    return subprocess.Popen(["sh", "-c", "trap '' PIPE; echo out; exec sleep 1000"], stdout=fds["stdout"], stderr=fds["stderr"])


class Supervisor:
    """Holds a launch back until it may go, then starts a real process or fails."""

    def __init__(self, fault: LaunchError | None = None) -> None:
        self.fault = fault
        self.asked, self.go = asyncio.Event(), asyncio.Event()
        self.process: subprocess.Popen[bytes] | None = None
        self.key = ""
        self.forgotten = asyncio.Event()

    async def exec(self, key: str, *args: Any, probe: bool) -> Launched:
        assert probe
        self.key = key
        self.asked.set()
        await self.go.wait()
        if self.fault is not None:
            raise self.fault
        self.process = lasting(args[-1])
        return Launched(pid=self.process.pid, start_time=1, started_at=1, pidfd=os.pidfd_open(self.process.pid))

    async def forget(self, _key: str) -> None:
        """As ours: the end of what is being started."""
        self.forgotten.set()


def parts(fault: LaunchError | None = None) -> tuple[ExecService, Supervisor, Any, Background]:
    """(service, supervisor, container, background)"""
    container = SimpleNamespace(
        id="c" * 64, name="c", image_name="i", config=Config(), host_config=HostConfig(), is_running=True, exec_ids=set(),
        removed=asyncio.Event(), state=SimpleNamespace(paused=False, pid=1, start_time=1, runtime=(), user_maps=None),
    )  # fmt: skip
    supervisor, background = Supervisor(fault), Background()
    found = cast("Any", SimpleNamespace(find=lambda _ref: container))
    events, paths = ContainerEvents(EventBus(SystemClock())), Paths(Path("/"), Path("/"), "x")
    return (
        ExecService(found, cast("Any", supervisor), events, background, paths, Runtimes(RuntimeSettings(), paths)),
        supervisor,
        container,
        background,
    )


def descriptors() -> set[str]:
    """What this process holds open."""
    return set(os.listdir("/proc/self/fd"))


async def ended_by_us(service: ExecService, supervisor: Supervisor, background: Background) -> None:
    """The process was killed; its end is told, as the supervisor does."""
    await background.settle()
    assert supervisor.process is not None
    assert supervisor.process.wait(10) == -signal.SIGKILL
    service.exit_event(supervisor.key, 137)
    await background.settle()


@pytest.mark.parametrize("launched", [False, True], ids=["while it starts", "while it runs"])
def test_cancelled(*, launched: bool) -> None:
    async def scenario() -> None:
        service, supervisor, container, background = parts()
        before = descriptors()
        task = asyncio.ensure_future(service.capture(container, REQUEST, seconds=1000, limit=10))
        await supervisor.asked.wait()
        if launched:
            supervisor.go.set()
            async with asyncio.timeout(10):
                while not service._find(supervisor.key).running:  # noqa: ASYNC110
                    await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        supervisor.go.set()
        await ended_by_us(service, supervisor, background)
        assert descriptors() == before
        assert (container.exec_ids, service._execs) == (set(), {})

    asyncio.run(scenario())


def test_too_slow() -> None:
    async def scenario() -> None:
        service, supervisor, container, background = parts()
        before = descriptors()
        supervisor.go.set()
        captured = await service.capture(container, REQUEST, seconds=2, limit=2)
        assert (captured.exit_code, captured.output, captured.ended.is_set()) == (None, b"ou", False)
        await ended_by_us(service, supervisor, background)
        assert captured.ended.is_set()
        assert descriptors() == before

    asyncio.run(scenario())


def test_a_start_that_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        monkeypatch.setattr(execs, "START_SECONDS", 0.01)
        service, supervisor, container, background = parts()
        with pytest.raises(SystemFailure, match=f"timed out starting health check for container {container.id}"):
            await service.capture(container, REQUEST, seconds=1000, limit=10)
        supervisor.go.set()
        await ended_by_us(service, supervisor, background)

    asyncio.run(scenario())


def test_a_start_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        monkeypatch.setattr(execs, "START_SECONDS", 0.01)
        service, supervisor, container, background = parts(LAUNCH_ERROR)
        with pytest.raises(SystemFailure, match="timed out"):
            await service.capture(container, REQUEST, seconds=1000, limit=10)
        async with asyncio.timeout(10):
            await supervisor.forgotten.wait()
        supervisor.go.set()
        await background.settle()
        assert (container.exec_ids, service._execs) == (set(), {})

    asyncio.run(scenario())


def test_a_start_that_fails() -> None:
    async def scenario() -> None:
        service, supervisor, container, _ = parts(LAUNCH_ERROR)
        before = descriptors()
        supervisor.go.set()
        with pytest.raises(execs.EngineError, match="executable file not found"):
            await service.capture(container, REQUEST, seconds=1000, limit=10)
        assert descriptors() == before
        assert (container.exec_ids, service._execs) == (set(), {})

    asyncio.run(scenario())
