"""Keeper and supervisor die at once; what sampand recorded is enough to find container, output and exit code again."""

import os
from pathlib import Path
from typing import Any

import pytest

from sampan.runtime import plan, recovery, spawning

from .conftest import Supervisor

pytestmark = pytest.mark.root


def test_pipes_and_process_are_found_again(tmp_path: Path, box: Any) -> None:
    exec_root = str(tmp_path / "run")
    first = spawning.spawn("supervisor", exec_root)
    old = Supervisor(exec_root, first)
    spec = box.spec("sh", "-c", "read a; echo got $a; echo more >&2; read b; exit 11")
    started = old.start(plan.launch_plan(spec), spec.id, stdin=True)
    recorded = recovery.Inodes(**{name: recovery.inode(fd) for name, fd in started.ends.items()})
    for fd in [*started.ends.values(), *started.fds.values()]:
        os.close(fd)
    old.channel.close()
    first.kill()
    first.wait(10)

    start_time = started.reply["start_time"]
    assert recovery.open_process(started.pid, start_time + 1) is None
    process = recovery.open_process(started.pid, start_time)
    assert process is not None
    assert recovery.reopen_pipes(started.pid, recovery.Inodes(1, 2, 3)) == {}
    # stdin's only writer was ours: the container has read its end by now, unless another holder kept it (sampand does).
    pipes = recovery.reopen_pipes(started.pid, recorded)
    assert set(pipes) <= {"stdin", "stdout", "stderr"}
    for fd in pipes.values():
        # A stdin that was found again would keep the process waiting.
        os.close(fd)
    second = spawning.spawn("supervisor", exec_root)
    new = Supervisor(exec_root, second)
    facts = {"key": started.key, "container": spec.id, "kind": "init", "tty": False, "pid": started.pid,
             "start_time": start_time, "started_at": started.reply["started_at"], "exit": None}  # fmt: skip
    assert "error" not in new.request({"op": "custody", **facts, "record": {}}, {"pidfd": process})[0]
    assert new.event("exit", started.key)["code"] == 11
    os.close(process)
    new.channel.close()
    second.kill()
    second.wait(10)
