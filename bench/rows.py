"""What is measured. A row prepares itself on one engine, and each sample gives seconds (or bytes) by name, its result checked."""

import io
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

from bench.target import Target, log_lines, payload, require

LOG_COPIES = 5
CLI = [sys.executable, "-I", "-c", "from sampan.cli.main import entry; entry()"]


def seconds(call: Callable[..., Any], *args: Any, times: int = 1) -> tuple[float, Any]:
    """Seconds of one of `times` calls, and the last result."""
    begin = time.perf_counter()
    for _ in range(times):
        result = call(*args)
    return (time.perf_counter() - begin) / times, result


class Row:
    """One row or a few that share their work. `goals`: the names, each with the ratio aimed at."""

    goals: ClassVar[dict[str, float]]
    needs_start: ClassVar[bool] = False

    def __init__(self, target: Target) -> None:
        self.target = target
        self.prepare()

    def prepare(self) -> None:
        """What all samples need, not timed."""

    def sample(self) -> dict[str, float]:
        """One sample of each name."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of what prepare() made and the target does not know of."""


class Ping(Row):
    goals: ClassVar[dict[str, float]] = {"ping": 1.0}

    def sample(self) -> dict[str, float]:
        took, answer = seconds(lambda: self.target.call("GET", "/_ping", raw=True), times=200)
        require(answer == b"OK", answer)
        return {"ping": took}


class Inspect(Row):
    goals: ClassVar[dict[str, float]] = {"inspect": 1.0}

    def prepare(self) -> None:
        self.container = self.target.run("sleep", "900")

    def sample(self) -> dict[str, float]:
        took, answer = seconds(self.target.call, "GET", f"/containers/{self.container}/json", times=50)
        require(answer["State"]["Running"], answer["State"])
        return {"inspect": took}


class Ps(Row):
    goals: ClassVar[dict[str, float]] = {"ps_100": 0.5}

    def prepare(self) -> None:
        self.made = {self.target.create("true") for _ in range(100)}

    def sample(self) -> dict[str, float]:
        took, answer = seconds(self.target.call, "GET", "/containers/json?all=1", times=5)
        require(self.made <= {one["Id"] for one in answer}, "containers missing")
        return {"ps_100": took}


class RunNone(Row):
    goals: ClassVar[dict[str, float]] = {"run_none": 0.12}
    network = "none"

    def sample(self) -> dict[str, float]:
        took, code = seconds(self.one_life, times=3)
        require(code == 7, f"exit code {code}")
        return {next(iter(self.goals)): took}

    def one_life(self) -> int:
        container = self.target.run("sh", "-c", "exit 7", network=self.network)
        code = self.target.wait(container)
        self.target.remove(container)
        return code


class RunBridge(RunNone):
    goals: ClassVar[dict[str, float]] = {"run_bridge": 0.12}
    network = "bridge"


class Clients(Row):
    """The docker client as a user waits for it; and ours on the same socket."""

    goals: ClassVar[dict[str, float]] = {"cli_run": 0.2, "cli_exec": 0.4, "cli_ps": 1.0, "sampan_ps": 3.0}

    def prepare(self) -> None:
        self.container = self.target.run("sleep", "900")
        self.docker = shutil.which("docker") or ""
        require(bool(self.docker), "no docker client on PATH")

    def client(self, program: list[str], *args: str) -> tuple[int, str]:
        environment = {**os.environ, "DOCKER_HOST": self.target.url, "DOCKER_CONFIG": "/nonexistent"}
        done = subprocess.run([*program, *args], capture_output=True, text=True, env=environment, check=False, timeout=120)
        return done.returncode, done.stdout

    def sample(self) -> dict[str, float]:
        script = ("sh", "-c", "echo hi; exit 7")
        run, got = seconds(self.client, [self.docker], "run", "--rm", self.target.image, *script)
        require(got == (7, "hi\n"), got)
        execute, got = seconds(self.client, [self.docker], "exec", self.container, *script)
        require(got == (7, "hi\n"), got)
        ps, got = seconds(self.client, [self.docker], "ps", "-q", "--no-trunc")
        require(self.container in got[1], got)
        ours, got = seconds(self.client, CLI, "ps", "-q", "--no-trunc")
        require(self.container in got[1], got)
        return {"cli_run": run, "cli_exec": execute, "cli_ps": ps, "sampan_ps": ours}


class Exec(Row):
    goals: ClassVar[dict[str, float]] = {"exec": 0.15}

    def prepare(self) -> None:
        self.container = self.target.run("sleep", "900")

    def sample(self) -> dict[str, float]:
        took, out = seconds(self.one, times=3)
        require(out == b"hi\n", out)
        return {"exec": took}

    def one(self) -> bytes:
        return self.target.exec(self.container, "echo", "hi")


class Stop(Row):
    goals: ClassVar[dict[str, float]] = {"stop": 0.2}

    def sample(self) -> dict[str, float]:
        made = [self.target.run("sh", "-c", "trap 'exit 9' TERM; echo up; sleep 900 & wait") for _ in range(3)]
        for one in made:
            while b"up" not in self.target.call("GET", f"/containers/{one}/logs?stdout=1", raw=True):
                time.sleep(0.01)
        begin = time.perf_counter()
        for one in made:
            self.target.call("POST", f"/containers/{one}/stop?t=10")
        took = (time.perf_counter() - begin) / len(made)
        for one in made:
            code = self.target.call("GET", f"/containers/{one}/json")["State"]["ExitCode"]
            require(code == 9, f"exit code {code}")
            self.target.remove(one)
        return {"stop": took}


class Burst(Row):
    goals: ClassVar[dict[str, float]] = {"burst_50_start": 0.12, "burst_50_rm": 0.15}

    def sample(self) -> dict[str, float]:
        with ThreadPoolExecutor(16) as pool:
            start, made = seconds(lambda: list(pool.map(lambda _: self.target.run("sleep", "900", network="bridge"), range(50))))
            require(set(made) <= self.target.running(), "not all run")
            remove, _ = seconds(lambda: list(pool.map(self.target.remove, made)))
        return {"burst_50_start": start / 50, "burst_50_rm": remove / 50}


class Logs(Row):
    goals: ClassVar[dict[str, float]] = {"logs_write": 0.1, "logs_read": 0.06, "logs_tail_100": 1.0}

    def sample(self) -> dict[str, float]:
        container = self.target.create("sh", "-c", f"for i in $(seq {LOG_COPIES}); do cat /bench/lines; done")
        begin = time.perf_counter()
        self.target.call("POST", f"/containers/{container}/start")
        code = self.target.wait(container)
        write = time.perf_counter() - begin
        url = f"/containers/{container}/logs?stdout=1"
        read, got = seconds(lambda: self.target.call("GET", url, raw=True, fresh=True))
        require(code == 0 and payload(got) == log_lines() * LOG_COPIES, "the log differs from what was written")
        tail, got = seconds(lambda: self.target.call("GET", url + "&tail=100", raw=True, fresh=True))
        require(payload(got) == b"".join(log_lines().splitlines(keepends=True)[-100:]), "tail differs")
        self.target.remove(container)
        return {"logs_write": write, "logs_read": read, "logs_tail_100": tail}


class AttachIn(Row):
    goals: ClassVar[dict[str, float]] = {"attach_in": 0.8}
    size = 200 << 20

    def sample(self) -> dict[str, float]:
        options: dict[str, Any] = {"OpenStdin": True, "StdinOnce": True, "AttachStdin": True, "AttachStdout": True}
        container = self.target.create("wc", "-c", **options)
        sock, got = self.target.upgrade(f"/containers/{container}/attach?stream=1&stdin=1&stdout=1", b"")
        block = memoryview(bytes(1 << 20))
        with sock:
            self.target.call("POST", f"/containers/{container}/start")
            begin = time.perf_counter()
            for _ in range(self.size >> 20):
                sock.sendall(block)
            sock.shutdown(socket.SHUT_WR)
            while more := sock.recv(65536):
                got += more
            took = time.perf_counter() - begin
        require(payload(got).strip() == str(self.size).encode(), got[:100])
        require(self.target.wait(container) == 0, "exit code")
        self.target.remove(container)
        return {"attach_in": took}


def tar_of(files: Mapping[str, bytes]) -> bytes:
    """A tar archive of plain files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1_000_000_000
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


class Copy(Row):
    """The archive calls behind docker cp, on a running container: one large file, many small ones."""

    goals: ClassVar[dict[str, float]] = {"cp_in_200MB": 0.8, "cp_out_200MB": 0.7, "cp_in_5000": 0.3, "cp_out_5000": 1.0}

    def prepare(self) -> None:
        self.container = self.target.run("sleep", "900")
        self.samples = 0
        block = os.urandom(1 << 20)
        self.large = tar_of({"large": block * 200})
        self.many = tar_of({f"d{number // 100}/f{number}": block[number : number + 2000] for number in range(5000)})

    def sample(self) -> dict[str, float]:
        # Nothing is removed in between: ext4 looks long for an inode while the last ones were freed within the minute, whoever asks.
        self.samples += 1
        place = f"/tmp/{self.samples}"
        self.target.exec(self.container, "mkdir", place, f"{place}/many")
        return self.both("200MB", self.large, place, f"{place}/large", 1) | self.both(
            "5000", self.many, f"{place}/many", f"{place}/many", 5051
        )

    def both(self, name: str, archive: bytes, into: str, out_of: str, count: int) -> dict[str, float]:
        """An archive in and out again."""
        url = f"/containers/{self.container}/archive?path="
        there, _ = seconds(lambda: self.target.call("PUT", url + into, archive, raw=True, fresh=True))
        back, got = seconds(lambda: self.target.call("GET", url + out_of, raw=True, fresh=True))
        with tarfile.open(fileobj=io.BytesIO(got)) as tar:
            members = tar.getmembers()
            require(len(members) == count, f"{len(members)} entries")
            last = tar.extractfile(members[-1])
            require(last is not None and last.read() in archive, "the content differs")
        return {f"cp_in_{name}": there, f"cp_out_{name}": back}


class Commit(Row):
    goals: ClassVar[dict[str, float]] = {"commit_20MB": 0.4}

    def sample(self) -> dict[str, float]:
        container = self.target.create("true")
        block = os.urandom(1 << 20)
        archive = tar_of({f"f{number}": block for number in range(20)})
        self.target.call("PUT", f"/containers/{container}/archive?path=/tmp", archive, raw=True)
        took, made = seconds(self.target.call, "POST", f"/commit?container={container}", {})
        size = self.target.call("GET", f"/images/{made['Id']}/history")[0]["Size"]
        require(size == 20 << 20, f"a layer of {size} bytes")
        self.target.call("DELETE", f"/images/{made['Id']}?force=1")
        self.target.remove(container)
        return {"commit_20MB": took}


class Memory(Row):
    goals: ClassVar[dict[str, float]] = {"mem_idle": 0.4, "mem_container": 0.1}

    def sample(self) -> dict[str, float]:
        if self.target.command:  # a heap that the rows before have grown would hide what containers add
            self.target.halt()
            self.target.boot()
        time.sleep(3)  # both engines settle
        idle = self.target.pss()
        made = [self.target.run("sleep", "900", network="bridge") for _ in range(20)]
        time.sleep(3)
        full = self.target.pss()
        for one in made:
            self.target.remove(one)
        return {"mem_idle": float(idle), "mem_container": (full - idle) / 20}


class Restart(Row):
    """Each engine in its own way: dockerd starts the containers again by their policy, Sampan finds them running."""

    goals: ClassVar[dict[str, float]] = {"daemon_start": 0.6, "recovery_20": 0.05}
    needs_start = True

    def sample(self) -> dict[str, float]:
        self.target.halt()
        start = self.target.boot()
        policy = {} if self.target.name == "sampan" else {"RestartPolicy": {"Name": "always"}}
        made = {self.target.run("sleep", "900", network="bridge", host=policy) for _ in range(20)}
        self.target.halt()
        begin = time.perf_counter()
        self.target.boot()
        while not made <= self.target.running():
            require(time.perf_counter() - begin < 120, "containers do not come back")
            time.sleep(0.005)
        recovery = time.perf_counter() - begin
        for one in made:
            self.target.remove(one)
        return {"daemon_start": start, "recovery_20": recovery}


ROWS: tuple[type[Row], ...] = (
    Ping,
    Inspect,
    Ps,
    RunNone,
    RunBridge,
    Clients,
    Exec,
    Stop,
    Burst,
    Logs,
    AttachIn,
    Copy,
    Commit,
    Memory,
    Restart,
)
