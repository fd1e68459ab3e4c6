"""What a container must not be able to do to the processes that start and join it, and what outlives them."""

import contextlib
import os
import resource
import select
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from sampan.linux import capabilities, pidfd
from sampan.runtime import plan, spawning
from sampan.runtime.protocol import Channel

from .conftest import Supervisor

pytestmark = pytest.mark.root

_EVERY = tuple(name for name in capabilities.NUMBERS if capabilities.bounding_set() >> capabilities.NUMBERS[name] & 1)


def test_a_container_that_may_ptrace_cannot_write_the_interpreter(box: Any) -> None:
    """CVE-2019-5736: PID 1 with --init is our own program, reachable by /proc/1/exe for all its life."""
    # The write itself is "Text file busy" while anybody runs the same interpreter; chmod tells whether the mount is read-only.
    script = "readlink /proc/1/exe; chmod 755 /proc/1/exe; echo x >> /proc/1/exe"
    code, out, err = box.run("sh", "-c", script, init=True, capabilities=_EVERY, seccomp="unconfined")
    assert code != 0
    assert out == "/\n"  # a detached mount of one file has no other path
    assert "Read-only file system" in err


HOLD = """
while :; do for p in /proc/[0-9]*; do case $(readlink $p/exe) in *python*|/) {
  case $(readlink /proc/self/fd/3) in *python*|/)
    echo held; read go; chmod 755 /proc/self/fd/3; echo x >>/proc/self/fd/3 && echo written; exit;;
  esac; } 3<$p/exe;;
esac; done; done
"""
"""Keeps the program of a process that joins open, and writes it once it runs nowhere any more: while it runs, it is `Text file busy`."""


@pytest.mark.parametrize("sealed", [True, False])
def test_a_joining_process_cannot_be_written_later_either(
    tmp_path: Path, box: Any, monkeypatch: pytest.MonkeyPatch, *, sealed: bool
) -> None:
    """CVE-2019-5736 by docker exec: CAP_SYS_PTRACE, in the PID namespace shared with what joins. Unsealed, the same attack works."""
    interpreter = tmp_path / "python3"  # one of its own, that nobody else runs
    shutil.copy(os.path.realpath(sys.executable), interpreter)
    before = interpreter.read_bytes()
    exec_root = str(tmp_path / "run")
    monkeypatch.setattr(spawning.sys, "executable", str(interpreter))
    popen = subprocess.Popen
    if not sealed:
        limits = ":".join(str(number) for number in resource.getrlimit(resource.RLIMIT_NOFILE))
        added = {"SAMPAN_SEALED": "1", "SAMPAN_NOFILE": limits}
        monkeypatch.setattr(spawning.subprocess, "Popen", lambda *args, env, **more: popen(*args, env={**env, **added}, **more))
    process = spawning.spawn("supervisor", exec_root)
    supervisor = Supervisor(exec_root, process)
    attacked = type(box)(supervisor, box.lower, box.work)
    started = attacked.start("sh", "-c", HOLD, stdin=True, capabilities=_EVERY, seccomp="unconfined")
    assert "error" not in started.reply, started.reply
    os.set_blocking(started.ends["stdout"], False)
    said = b""
    for _ in range(500):
        supervisor.finish(attacked.exec(started, "true"))
        with contextlib.suppress(BlockingIOError):
            said += os.read(started.ends["stdout"], 4096)
        if said:
            break
    assert said == b"held\n", "the attack never saw a joining process"
    supervisor.channel.close()
    process.kill()
    process.wait(10)
    os.write(started.ends["stdin"], b"go\n")
    os.set_blocking(started.ends["stdout"], True)
    out = os.read(started.ends["stdout"], 4096)
    err = os.read(started.ends["stderr"], 4096).decode()
    if sealed:
        assert (out, err.count("Read-only file system")) == (b"", 2), err
        assert interpreter.read_bytes() == before
    else:
        assert out == b"written\n", err
        assert interpreter.read_bytes() == before + b"x\n"
    for fd in [*started.ends.values(), *started.fds.values()]:
        os.close(fd)


def test_without_ptrace_the_joining_process_is_opaque(box: Any) -> None:
    code, _, err = box.run("sh", "-c", "cat /proc/1/environ", init=True)
    assert code != 0
    assert "Permission denied" in err


def test_the_supervisor_survives_garbage(box: Any) -> None:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.connect(f"{box.supervisor.exec_root}/supervisor.sock")
    sock.send(b"not json")
    sock.close()
    bad: tuple[dict[str, Any], ...] = (
        {"op": "launch"},
        {"op": "nothing"},
        {"op": "exec", "target": 3},
        {"op": "hello", "role": "x"},
        {"op": "list2", "names": 7},
    )
    for message in bad:
        assert "error" in box.supervisor.request(message)[0]
    assert box.sh("echo on") == "on\n"


def test_processes_outlive_the_supervisor_and_are_adopted_from_the_keepers_hands(tmp_path: Path, box: Any) -> None:
    """Kill -9 of the supervisor; a new one gets the descriptors by `custody` and still learns the exit code."""
    exec_root = str(tmp_path / "run")
    first = spawning.spawn("supervisor", exec_root)
    old = Supervisor(exec_root, first)
    spec = box.spec("sh", "-c", "read x; exit 9")
    stdin_read, stdin_write = os.pipe()
    _, fds = old.request(
        {"op": "launch", "key": f"{spec.id}.1", "container": spec.id, "plan": plan.launch_plan(spec), "record": {"n": 1}},
        {"stdin": stdin_read, "custody:stdin": stdin_write},
    )
    os.close(stdin_read)
    os.close(stdin_write)
    # A second connection plays the keeper and gets everything in custody.
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.connect(f"{exec_root}/supervisor.sock")
    keeper = Channel(sock)
    keeper.send({"op": "hello", "role": "keeper", "seq": 1})
    held: dict[str, int] = {}
    custody: dict[str, Any] = {}
    deadline = time.monotonic() + 5
    while not custody and time.monotonic() < deadline:
        received = keeper.recv()
        if received and received[0].get("event") == "custody":
            custody, held = received[0], dict(zip(received[0]["names"], received[1], strict=True))
    assert set(held) == {"pidfd", "stdin"}
    first.kill()
    first.wait(10)
    keeper.close()
    old.channel.close()

    second = spawning.spawn("supervisor", exec_root)
    new = Supervisor(exec_root, second)
    facts = {key: value for key, value in custody.items() if key not in ("event", "names")}
    assert new.request({"op": "custody", **facts}, held)[0] == {"re": new.seq}
    os.write(held["stdin"], b"\n")
    event = new.event("exit", f"{spec.id}.1")
    assert event["code"] == 9
    new.request({"op": "forget", "key": f"{spec.id}.1"})
    for fd in [*held.values(), *fds.values()]:
        os.close(fd)
    new.channel.close()
    second.kill()
    second.wait(10)


def test_an_end_before_the_next_version_is_told_of_the_process_keeps_its_exit_code(tmp_path: Path, box: Any) -> None:
    """It has children then that it knows nothing of: they are not reaped as orphans that came to it."""
    exec_root = str(tmp_path / "run")
    with contextlib.ExitStack() as undo:
        process = undo.enter_context(spawning.spawn("supervisor", exec_root))
        undo.callback(process.kill)
        old = Supervisor(exec_root, process)
        undo.callback(old.channel.close)
        spec = box.spec("sh", "-c", "read x; exit 9")
        stdin_read, stdin_write = os.pipe()
        request = {"op": "launch", "key": f"{spec.id}.1", "container": spec.id, "plan": plan.launch_plan(spec), "record": {}}
        _, fds = old.request(request, {"stdin": stdin_read})
        undo.callback(os.close, fds["pidfd"])
        os.close(stdin_read)
        (facts,) = old.request({"op": "list"})[0]["procs"]
        path = Path(exec_root, "supervisor.sock")
        former, deadline = path.stat().st_ctime_ns, time.monotonic() + 30
        old.channel.send({"op": "renew", "command": spawning.command("supervisor", exec_root), "seq": 99}, [])
        while not path.exists() or path.stat().st_ctime_ns == former:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        new = Supervisor(exec_root, process)
        undo.callback(new.channel.close)
        assert new.hello["procs"] == []
        os.write(stdin_write, b"\n")
        os.close(stdin_write)
        assert select.select([fds["pidfd"]], [], [], 10)[0]
        for _ in range(2):  # it has looked after its children by then
            new.request({"op": "list"})
        assert pidfd.zombie_status(facts["pid"], facts["start_time"]) is not None
        new.request({"op": "custody", **facts}, {"pidfd": fds["pidfd"]})
        assert new.event("exit", f"{spec.id}.1")["code"] == 9
