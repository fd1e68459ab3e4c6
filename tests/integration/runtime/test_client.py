"""The asyncio client against a real supervisor: launch, events, errors, loss of the connection."""

import asyncio
import gc
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sampan.errors import Unavailable
from sampan.linux import pidfd
from sampan.runtime import cgroups, client, plan, spawning
from sampan.runtime.protocol import PROTOCOL, Message

pytestmark = pytest.mark.root


@pytest.fixture
def exec_root(tmp_path: Path) -> Iterator[str]:
    process = spawning.spawn("supervisor", str(tmp_path / "run"))
    deadline = time.monotonic() + 10
    while not (tmp_path / "run/supervisor.sock").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    yield str(tmp_path / "run")
    process.kill()
    process.wait(10)


class Events:
    """Events as they came, and a way to await one."""

    def __init__(self) -> None:
        self.seen: list[Message] = []
        self.changed = asyncio.Event()

    def __call__(self, event: Message, fds: dict[str, int]) -> None:
        for fd in fds.values():
            os.close(fd)
        self.seen.append(event)
        self.changed.set()

    async def wait(self, name: str, key: str) -> Message:
        async with asyncio.timeout(15):
            while True:
                for event in self.seen:
                    if event["event"] == name and event["key"] == key:
                        return event
                self.changed.clear()
                await self.changed.wait()


def test_launch_exit_forget_and_custody_after_reconnection(exec_root: str, box: Any) -> None:
    async def scenario() -> None:
        events = Events()
        link = client.Link(f"{exec_root}/supervisor.sock", events)
        await link.open()
        supervisor = client.SupervisorClient(link)
        spec = box.spec("sleep", "1000")
        launched = await supervisor.launch(f"{spec.id}.1", spec.id, plan.launch_plan(spec), {}, {"image": "x"})
        assert (await supervisor.procs())[0]["pid"] == launched.pid
        bad = box.spec("nothere")
        with pytest.raises(client.LaunchError) as caught:
            await supervisor.launch(f"{bad.id}.1", bad.id, plan.launch_plan(bad), {})
        assert caught.value.step == "exec"
        await link.close()

        again = Events()
        link = client.Link(f"{exec_root}/supervisor.sock", again)
        await link.open()
        supervisor = client.SupervisorClient(link)
        custody = await again.wait("custody", f"{spec.id}.1")
        assert (custody["pid"], custody["record"], custody["names"]) == (launched.pid, {"image": "x"}, ["pidfd"])
        with pytest.raises(client.RequestRefused):
            await supervisor.shutdown()
        signal.pidfd_send_signal(launched.pidfd, 9)
        os.close(launched.pidfd)
        assert (await again.wait("exit", f"{spec.id}.1"))["code"] == 137
        await supervisor.forget(f"{spec.id}.1")
        assert await supervisor.procs() == []
        await supervisor.shutdown()
        await link.close()
        cgroups.remove(cgroups.host_layout(), spec.cgroup)

    asyncio.run(scenario())


def test_a_broken_connection_fails_requests_and_is_made_again(exec_root: str) -> None:
    async def scenario() -> None:
        ups: list[Message] = []

        async def up(hello: Message) -> None:
            ups.append(hello)

        async def revive() -> None:
            if all(process.poll() is not None for process in processes):
                processes.append(spawning.spawn("supervisor", exec_root))

        processes: list[Any] = []
        link = client.Link(f"{exec_root}/supervisor.sock", lambda *_: None, up, revive)
        await link.open()
        os.kill(link.pid, 9)

        async def until_broken() -> None:
            async with asyncio.timeout(10):
                while True:
                    await link.request({"op": "list"})

        with pytest.raises(Unavailable):
            await until_broken()
        await link.wait_up()
        assert len(ups) == 2
        assert ups[0]["boot_id"] == ups[1]["boot_id"]
        await link.close()
        for process in processes:
            process.kill()
            process.wait(10)

    asyncio.run(scenario())


def test_a_request_that_cannot_be_sent_leaves_no_failure_that_nobody_hears_of(exec_root: str) -> None:
    async def scenario() -> None:
        unheard: list[str] = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: unheard.append(context["message"]))
        link = client.Link(f"{exec_root}/supervisor.sock", lambda *_: None)
        await link.open()
        handle = os.pidfd_open(link.pid)
        os.kill(link.pid, 9)
        select.select([handle], [], [])
        os.close(handle)
        with pytest.raises(Unavailable):
            await link.request({"op": "list"})  # before the loop has noticed
        gc.collect()
        await link.close()
        assert unheard == []

    asyncio.run(scenario())


def test_a_process_of_another_protocol_is_ended_unless_it_holds_containers(exec_root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An upgrade beside lean processes of an older version: replaced while they are idle, refused with a clear line when not."""

    async def scenario() -> None:
        link = client.Link(f"{exec_root}/supervisor.sock", lambda *_: None)
        await link.open()
        old = os.pidfd_open(link.pid)
        sleeper = subprocess.Popen(["sleep", "60"])  # noqa: ASYNC220
        handle = os.pidfd_open(sleeper.pid)
        facts = {"key": "k.1", "container": "k", "kind": "init", "tty": False, "pid": sleeper.pid,
                 "start_time": pidfd.start_time(sleeper.pid), "started_at": 1, "exit": None}  # fmt: skip
        supervisor = client.SupervisorClient(link)
        await supervisor.custody(facts, {}, {"pidfd": handle})
        monkeypatch.setattr(client, "PROTOCOL", PROTOCOL + 1)
        newer = client.Link(f"{exec_root}/supervisor.sock", lambda *_: None)
        with pytest.raises(Unavailable, match=r"another version of Sampan .* still holds containers"):
            await newer.open()
        await newer.close()
        assert [proc["key"] for proc in await supervisor.procs()] == ["k.1"]
        sleeper.kill()
        sleeper.wait(10)
        async with asyncio.timeout(10):
            while not (await supervisor.procs())[0]["exit"]:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await supervisor.forget("k.1")
        link.retire()
        newest = client.Link(f"{exec_root}/supervisor.sock", lambda *_: None)
        with pytest.raises(Unavailable, match="nobody answers"):  # nor does anybody start another one here
            await newest.open(timeout=2)
        assert select.select([old], [], [], 10)[0]
        for one in (newest, link):
            await one.close()
        for fd in (handle, old):
            os.close(fd)

    asyncio.run(scenario())


def test_nobody_there_is_unavailable(tmp_path: Path) -> None:
    async def scenario() -> None:
        link = client.Link(f"{tmp_path}/no.sock", lambda *_: None)
        with pytest.raises(Unavailable):
            await link.open(timeout=0.1)
        await link.close()

    asyncio.run(scenario())


def test_a_second_supervisor_on_the_same_root_gives_up(exec_root: str) -> None:
    second = spawning.spawn("supervisor", exec_root)
    assert second.wait(10) == 3
    assert f"another supervisor serves {exec_root}" in Path(f"{exec_root}/supervisor.log").read_text()


@pytest.mark.parametrize("waiting", [False, True], ids=["after", "before"])
def test_a_request_does_not_wait_for_a_link_that_is_closed(exec_root: str, waiting: bool) -> None:
    """Whatever sampand undoes at its end asks processes that it has taken leave of."""

    async def scenario() -> None:
        link = client.Link(f"{exec_root}/{'nobody' if waiting else 'supervisor'}.sock", Events())
        supervisor = client.SupervisorClient(link)
        if waiting:
            opening = asyncio.create_task(link.open())
            asked = asyncio.create_task(supervisor.forget("x"))
            await asyncio.sleep(0)
        else:
            await link.open()
        await link.close()
        async with asyncio.timeout(10):
            for task in (opening, asked) if waiting else ():
                with pytest.raises(Unavailable):
                    await task
            with pytest.raises(Unavailable):
                await supervisor.forget("x")
        assert not link.is_up

    asyncio.run(scenario())
