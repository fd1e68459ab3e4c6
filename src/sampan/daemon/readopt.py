"""Keeper and supervisor died at once while sampand lives: give the new ones every running container, from the handles sampand holds."""

import asyncio
import contextlib
import logging
import os

from sampan.engine.registry import Container, Containers
from sampan.engine.runner import Runner
from sampan.errors import EngineError
from sampan.runtime import recovery

log = logging.getLogger(__name__)

SETTLE_SECONDS = 0.3
"""Time for a new keeper to get from a living supervisor what it can: only what is missing after that is ours to give."""


async def readopt(containers: Containers, runner: Runner) -> None:
    """Hand over what keeper or supervisor do not know. Safe to call at any time: what they know is left alone."""
    await asyncio.sleep(SETTLE_SECONDS)
    try:
        hello, _ = await runner.keeper.link.request({"op": "hello", "role": "sampand"})
        streams = {stream["key"] for stream in hello.get("streams", ())}
        procs = {proc["key"] for proc in await runner.supervisor.procs()}
        for container in list(containers):
            if container.is_running and container.live is not None:
                await _hand_over(container, runner, known_stream=container.key in streams, known_proc=container.key in procs)
    except EngineError as error:
        log.warning("containers could not be handed to the new keeper: %s", error.message)


async def _hand_over(container: Container, runner: Runner, *, known_stream: bool, known_proc: bool) -> None:
    live, state = container.live, container.state
    if live is None or (known_stream and known_proc):
        return
    key, tty = live.key, container.config.tty
    settings = runner.log_settings(container)
    pipes = {} if known_stream else recovery.reopen_pipes(state.pid, recovery.Inodes(*state.pipes))
    pipes.pop("stdin", None)
    held = {**pipes, **({"stdin": live.stdin} if live.stdin is not None else {})}
    try:
        if not known_stream:
            await runner.keeper.adopt(key, container.id, tty, settings, held)
        if not known_proc and live.pidfd >= 0:
            facts = {
                "key": key, "container": container.id, "kind": "init", "tty": tty, "pid": state.pid,
                "start_time": state.start_time, "started_at": state.started_at, "exit": None,
            }  # fmt: skip
            fds = {"pidfd": live.pidfd, **held, **({"pty": live.pty} if live.pty is not None else {})}
            await runner.supervisor.custody(facts, {"log": settings, "tty": tty}, fds)
    finally:
        for fd in pipes.values():
            with contextlib.suppress(OSError):
                os.close(fd)
