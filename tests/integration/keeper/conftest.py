"""A keeper and its supervisor as programs of their own, driven by a blocking client; the writers are plain processes of the test."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sampan.linux import pidfd
from sampan.runtime import spawning
from sampan.runtime.protocol import Channel, ChannelClosed, Message

Fds = dict[str, int]


class Wire:
    """A blocking connection to keeper or supervisor."""

    def __init__(self, path: str) -> None:
        self.seq, self.events = 0, []  # type: ignore[var-annotated]
        deadline = time.monotonic() + 10
        while True:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            try:
                sock.connect(path)
                self.channel = Channel(sock)
                self.hello = self.request({"op": "hello", "role": "sampand"})
                return
            except (OSError, ChannelClosed):
                sock.close()
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.005)

    def receive(self, timeout: float = 20) -> Message:
        deadline = time.monotonic() + timeout
        while (received := self.channel.recv()) is None:
            if time.monotonic() > deadline:
                raise TimeoutError
            time.sleep(0.0003)
        for fd in received[1]:
            os.close(fd)
        return received[0]

    def request(self, message: Message, fds: Fds | None = None) -> Message:
        self.seq += 1
        self.channel.send({**message, "seq": self.seq, "names": list(fds or {})}, list((fds or {}).values()))
        while True:
            reply = self.receive()
            if reply.get("re") == self.seq:
                assert "error" not in reply, reply
                return reply
            self.events.append(reply)

    def event(self, name: str, key: str, timeout: float = 60) -> Message:
        while True:
            for known in self.events:
                if known.get("event") == name and known.get("key") == key:
                    return known  # type: ignore[no-any-return]
            self.events.append(self.receive(timeout))

    def drained(self, key: str, timeout: float = 60) -> None:
        """Wait until all output is in the log: a new keeper may have said so before we were there to hear it."""
        streams = self.request({"op": "hello", "role": "sampand"})["streams"]
        if not any(stream["key"] == key and stream["drained"] for stream in streams):
            self.event("drained", key, timeout)


class Rig:
    """Keeper, supervisor and the writers of a test."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.exec_root = str(root / "run")
        self.started: list[subprocess.Popen[bytes]] = []
        self.supervisors: set[int] = set()
        self.start_keeper()

    def start_keeper(self) -> None:
        self.keeper_process = spawning.spawn_keeper(self.exec_root)
        self.started.append(self.keeper_process)
        self.keeper = Wire(f"{self.exec_root}/keeper.sock")
        self.supervisor = Wire(f"{self.exec_root}/supervisor.sock")
        self.supervisors.add(self.supervisor.hello["pid"])
        self.settle()

    def settle(self) -> None:
        """Wait until both hold everything: there is no third holder here."""
        deadline = time.monotonic() + 30
        while not self.keeper.request({"op": "hello", "role": "sampand"})["settled"]:
            assert time.monotonic() < deadline
            time.sleep(0.002)

    def kill_keeper(self) -> None:
        os.kill(self.keeper.hello["pid"], 9)
        self.keeper_process.wait(10)
        self.keeper.channel.close()
        self.supervisor.channel.close()

    def kill_supervisor(self) -> None:
        os.kill(self.supervisor.hello["pid"], 9)
        self.supervisor.channel.close()
        deadline = time.monotonic() + 10
        while True:
            self.supervisor = Wire(f"{self.exec_root}/supervisor.sock")
            if self.supervisor.hello["pid"] not in self.supervisors or time.monotonic() > deadline:
                break
            time.sleep(0.01)
        self.supervisors.add(self.supervisor.hello["pid"])
        self.settle()

    def write(self, key: str, script: str, log: dict[str, Any], container: str = "") -> subprocess.Popen[bytes]:
        """Run a Python script whose output the keeper logs and the supervisor holds too."""
        container = container or key
        os.makedirs(log["dir"], exist_ok=True)
        out, out_write = os.pipe()
        err, err_write = os.pipe()
        adopt = {"op": "adopt", "key": key, "container": container, "tty": False, "log": log}
        self.keeper.request(adopt, {"stdout": out, "stderr": err})
        process = subprocess.Popen([sys.executable, "-S", "-c", script], stdout=out_write, stderr=err_write, stdin=subprocess.DEVNULL)
        self.started.append(process)
        self.hold(key, container, process.pid, log, {"stdout": out, "stderr": err})
        for fd in (out, out_write, err, err_write):
            os.close(fd)
        return process

    def hold(self, key: str, container: str, pid: int, log: dict[str, Any], fds: Fds) -> None:
        facts = {"key": key, "container": container, "kind": "init", "tty": False, "pid": pid, "start_time": pidfd.start_time(pid)}
        handle = os.pidfd_open(pid)
        message = {"op": "custody", **facts, "started_at": time.time_ns(), "exit": None, "record": {"log": log}}
        self.supervisor.request(message, {"pidfd": handle, **fds})
        os.close(handle)

    def log(self, name: str, **settings: Any) -> dict[str, Any]:
        base = {"driver": "local", "dir": str(self.root / name), "max_size": 20 << 20, "max_file": 5}
        return {**base, "path": str(self.root / f"{name}.json"), **settings}

    def close(self) -> None:
        for wire in (self.keeper, self.supervisor):
            with contextlib.suppress(ChannelClosed, OSError):
                wire.channel.close()
        for process in self.started:
            process.kill()
            process.wait(10)
        for pid in self.supervisors:
            with contextlib.suppress(OSError):
                if b"supervisor" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, 9)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    if os.getuid() != 0:
        pytest.skip("needs root")
    made = Rig(tmp_path)
    yield made
    made.close()
