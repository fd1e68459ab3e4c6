"""An engine on a disk of its own, a registry beside it, and the hands that do what the plan says."""

import contextlib
import http.client
import io
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from chaos.plan import SLOTS, Action, Slot, Step, Trouble
from tests.support import dockercli
from tests.support.disks import full
from tests.support.engine import Engine
from tests.support.kills import kill
from tests.support.memory import own_memory
from tests.support.registryprogram import RegistryProgram
from tests.support.strays import complaints, pid_of, strays

ROOT = Path(__file__).resolve().parent.parent
ROLES = ("sampand", "keeper", "supervisor")
WRITER = "trap 'exit 7' TERM; i=0; while :; do echo line $i; i=$((i+1)); sleep 0.1; done"
CLIENT_SECONDS = 90.0
"""A client that takes longer hangs."""
STATE_SECONDS = 30.0
DESCRIPTORS_MORE = 12
MEGABYTES_MORE = 24.0
LINE = re.compile(r"line (\d+)")


class Fault(Exception):
    """What must not be."""


def require(holds: object, what: object) -> None:
    """Raise Fault unless it holds."""
    if not holds:
        raise Fault(str(what))


class World:
    """Everything there is. place: a directory on the engine's own disk."""

    def __init__(self, place: Path, number: int, registry: RegistryProgram) -> None:
        self.place, self.registry = place, registry
        self.engine = Engine(place / "engine", number)
        self.engine.log = registry.root.parent / "sampand.log"  # not on the disk that is going to be full
        self.clock = place / "clock"
        self.clock.write_text("0")
        program = (
            "import sys; sys.path.insert(0, sys.argv.pop(1)); from chaos.clock import bend; bend();"
            "from sampan.daemon.main import entry; entry()"
        )
        self.engine.program = [sys.executable, "-I", "-c", program, str(ROOT)]
        self.docker_path = dockercli.find()
        self.pids: dict[str, int] = {}
        """Of the containers that must run, since it was last seen to begin."""
        self.pool = ThreadPoolExecutor(8)
        os.environ["CHAOS_CLOCK"] = str(self.clock)

    # clients

    def docker(self, *words: str, stdin: bytes | None = None, codes: tuple[int, ...] = (0,)) -> str:
        """One run of the docker client; what it says on stdout. Raises Fault."""
        try:
            done = self.engine.run_client([self.docker_path], *words, stdin=stdin, timeout=CLIENT_SECONDS)
        except subprocess.TimeoutExpired:
            raise Fault(f"docker {' '.join(words)} hangs") from None
        require(done.returncode in codes, f"docker {' '.join(words)}: {done.returncode}\n{done.stdout[-300:]}{done.stderr[-700:]}")
        return done.stdout

    def state(self, name: str) -> Mapping[str, Any]:
        """Of a container; empty: there is none. Raises Fault."""
        try:
            status, found = self.engine.request("GET", f"/containers/{name}/json")
        except (OSError, http.client.HTTPException) as error:
            raise Fault(f"inspect {name}: {error}") from None
        return found["State"] if status == 200 else {}

    # the beginning and the end

    def begin(self) -> None:
        """An engine with images, a network and a registry's image."""
        self.engine.start()
        self.engine.bootstrap()
        self.docker("network", "create", "chaos")
        self.docker("network", "create", "chaos2")
        for tag in ("one", "two"):
            name = f"{self.registry.host}/pulled:{tag}"
            self.docker("build", "-q", "-t", name, "-", stdin=_context(f"FROM busybox\nRUN head -c 2000000 /dev/urandom > /{tag}\n"))
            self.docker("push", "-q", name)
            self.docker("rmi", name)

    def end(self) -> None:
        """Remove all that was made, and find nothing left. Raises Fault."""
        for name in SLOTS:
            self.docker("rm", "-f", "-v", name)
        self.docker("container", "prune", "-f")
        self.docker("volume", "prune", "-a", "-f")
        self.docker("network", "prune", "-f")
        self.docker("image", "prune", "-a", "-f")
        self.docker("builder", "prune", "-a", "-f")
        deadline = time.monotonic() + STATE_SECONDS
        while found := strays(self.engine):
            require(time.monotonic() < deadline, found)
            time.sleep(0.2)

    def close(self) -> None:
        """Nothing of it stays."""
        self.pool.shutdown()
        self.engine.teardown()

    def weight(self) -> dict[str, tuple[int, float]]:
        """Descriptors and megabytes of each of our processes."""
        found = {}
        for role in ROLES:
            pid = pid_of(self.engine, role)
            require(pid is not None, f"no {role}")
            found[role] = (len(os.listdir(f"/proc/{pid}/fd")), round(own_memory(pid or 0) / 2**20, 1))
        return found

    def compare(self, before: Mapping[str, tuple[int, float]]) -> None:
        """Raises Fault: a process has grown."""
        deadline = time.monotonic() + STATE_SECONDS
        while True:
            after = self.weight()
            grown = [
                f"{role}: {before[role]} -> {after[role]} (descriptors, MB)"
                for role in ROLES
                if after[role][0] > before[role][0] + DESCRIPTORS_MORE or after[role][1] > before[role][1] + MEGABYTES_MORE
            ]
            if not grown:
                return
            require(time.monotonic() < deadline, grown)
            time.sleep(0.5)

    # a step

    def do(self, step: Step, slots: Mapping[str, Slot]) -> None:
        """Do it, and see that all is as it must be. Raises Fault."""
        excused = step.trouble is not None and step.trouble.excuses
        fills = step.trouble is not None and step.trouble.kind == "full"
        with full(self.place) if fills else contextlib.nullcontext():
            work = [(action, self.pool.submit(getattr(self, f"_do_{action.kind}"), action)) for action in step.actions]
            if step.trouble is not None:
                self._happen(step.trouble)
            faults = []
            for action, future in work:
                try:
                    future.result()
                except Fault as error:
                    if not excused or "hangs" in str(error):
                        faults.append(f"{action.kind} {action.name}: {error}")
        require(not faults, "\n".join(faults))
        self.check(slots)
        found = complaints(self.engine)
        require(not found, found)

    def _happen(self, trouble: Trouble) -> None:
        if trouble.kind == "clock":
            self.clock.write_text(str(int(self.clock.read_text()) + int(trouble.seconds * 1e9)))
        elif trouble.roles:
            time.sleep(trouble.after / 2)
            try:
                kill(self.engine, *trouble.roles, frozen=trouble.frozen, seconds=trouble.after / 2)
            except AssertionError as error:
                raise Fault(f"after {trouble}: {error}") from None
        elif trouble.kind == "stop":
            time.sleep(trouble.after)
            self.engine.stop()
            self.engine.start()

    def check(self, slots: Mapping[str, Slot]) -> None:
        """Every container is what it must be, and those that ran are the same processes. Raises Fault."""
        for name, slot in slots.items():
            if slot.state == "doubtful":
                self.pids.pop(name, None)
                continue
            deadline = time.monotonic() + STATE_SECONDS
            while (found := self.state(name)).get("Status", "absent") != slot.state:
                require(time.monotonic() < deadline, f"{name} is {found}, not {slot.state}")
                time.sleep(0.05)
            if slot.state not in ("running", "paused"):
                self.pids.pop(name, None)
                continue
            pid = int(found["Pid"])
            former = self.pids.setdefault(name, pid)
            require(pid == former, f"{name} was process {former} and is {pid}")
            require(Path(f"/proc/{pid}").exists(), f"{name}: process {pid} is gone")
            self.check_log(name, slot)

    def check_log(self, name: str, slot: Slot) -> None:
        """Runs of line 0, line 1, ... without a gap. Raises Fault."""
        expected = 0
        for line in self.docker("logs", name).splitlines():
            match = LINE.fullmatch(line.strip())
            require(match or slot.gaps, f"{name} has logged {line!r}")
            number = int(match[1]) if match else expected
            require(slot.gaps or number in (expected, 0), f"{name} has logged line {number} for {expected}")
            expected = number + 1

    # actions: each raises Fault

    def _do_run(self, action: Action) -> None:
        self.pids.pop(action.name, None)
        self.docker("run", "-d", "--name", action.name, *action.options, "busybox", "sh", "-c", WRITER)

    def _do_create(self, action: Action) -> None:
        self.docker("create", "--name", action.name, *action.options, "busybox", "sh", "-c", WRITER)

    def _do_start(self, action: Action) -> None:
        self.docker("start", action.name)

    def _do_exec(self, action: Action) -> None:
        said = self.docker("exec", "-i", action.name, "sh", "-c", "cat; exit 3", stdin=b"x" * 100_000, codes=(3,))
        require(len(said) == 100_000, f"exec has said {len(said)} bytes of 100000")

    def _do_logs(self, action: Action) -> None:
        self.docker("logs", "--tail=5", "-t", action.name)

    def _do_copy(self, action: Action) -> None:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            info = tarfile.TarInfo("copied")
            info.size = 50_000
            tar.addfile(info, io.BytesIO(bytes(50_000)))
        self.docker("cp", "-", f"{action.name}:/", stdin=buffer.getvalue())
        require("copied" in self.docker("diff", action.name), "diff does not know what was copied")

    def _do_commit(self, action: Action) -> None:
        image = f"committed:{action.name}"  # without a name a prune beside it would take it
        self.docker("commit", action.name, image)
        self.docker("rmi", image)

    def _do_top(self, action: Action) -> None:
        require("sh -c" in self.docker("top", action.name), "top shows no shell")
        self.docker("stats", "--no-stream", action.name)

    def _do_update(self, action: Action) -> None:
        self.docker("update", "--cpu-shares=512", "--pids-limit=100", action.name)

    def _do_connect(self, action: Action) -> None:
        mode = self.docker("inspect", "-f", "{{.HostConfig.NetworkMode}}", action.name).strip()
        if mode not in ("host", "none"):
            self.docker("network", "connect", "chaos2", action.name)
            self.docker("network", "disconnect", "chaos2", action.name)

    def _do_restart(self, action: Action) -> None:
        self.pids.pop(action.name, None)
        self.docker("restart", "-t", "5", action.name)

    def _do_pause(self, action: Action) -> None:
        self.docker("pause", action.name)

    def _do_unpause(self, action: Action) -> None:
        self.docker("unpause", action.name)

    def _do_stop(self, action: Action) -> None:
        self.docker("stop", "-t", "20", action.name)
        code = self.state(action.name).get("ExitCode")
        require(code == 7, f"{action.name} was stopped and has exit code {code}")

    def _do_kill(self, action: Action) -> None:
        self.docker("kill", action.name)
        require(self.docker("wait", action.name).strip() == "137", f"{action.name} was killed and has another exit code")

    def _do_die(self, action: Action) -> None:
        """Somebody kills the process behind our back."""
        pid = self.state(action.name).get("Pid", 0)
        self.pids.pop(action.name, None)
        require(pid, f"{action.name} does not run")
        os.kill(pid, signal.SIGKILL)
        if action.always:
            deadline = time.monotonic() + STATE_SECONDS
            while self.state(action.name).get("Pid") in (pid, 0):
                require(time.monotonic() < deadline, f"{action.name} is not started again")
                time.sleep(0.02)
        else:
            require(self.docker("wait", action.name).strip() == "137", f"{action.name} was killed and has another exit code")

    def _do_rm(self, action: Action) -> None:
        self.docker("rm", "-v", action.name)

    def _do_remove(self, action: Action) -> None:
        self.docker("rm", "-f", "-v", action.name)

    def _do_once(self, action: Action) -> None:
        said = self.docker("run", "--rm", "-i", "busybox", "sh", "-c", "cat; echo end", stdin=b"begin\n")
        require(said == "begin\nend\n", f"run --rm has said {said!r}")

    def _do_pull(self, action: Action) -> None:
        name = f"{self.registry.host}/pulled:{'one' if int(action.name[1:]) % 2 else 'two'}"
        self.docker("pull", "-q", name)
        self.docker("rmi", name)

    def _do_build(self, action: Action) -> None:
        text = f"FROM busybox\nRUN echo {action.name} > /said && head -c 1000000 /dev/urandom > /noise\nCMD cat /said\n"
        self.docker("build", "-q", "-t", action.name, "-", stdin=_context(text))
        require(self.docker("run", "--rm", action.name).strip() == action.name, "what was built says something else")
        self.docker("rmi", action.name)

    def _do_network(self, action: Action) -> None:
        self.docker("network", "create", action.name)
        self.docker("run", "--rm", "--network", action.name, "busybox", "true")
        self.docker("network", "rm", action.name)

    def _do_volume(self, action: Action) -> None:
        self.docker("volume", "create", action.name)
        self.docker("run", "--rm", "-v", f"{action.name}:/v", "busybox", "sh", "-c", "echo kept > /v/x")
        require(self.docker("run", "--rm", "-v", f"{action.name}:/v", "busybox", "cat", "/v/x") == "kept\n", "a volume keeps nothing")
        self.docker("volume", "rm", action.name)

    def _do_look(self, action: Action) -> None:
        for words in (("ps", "-a", "-s"), ("images", "-a"), ("system", "df", "-v"), ("info",), ("network", "inspect", "chaos")):
            self.docker(*words)

    def _do_prune(self, action: Action) -> None:
        self.docker("image", "prune", "-f")


def _context(dockerfile: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo("Dockerfile")
        info.size = len(dockerfile)
        tar.addfile(info, io.BytesIO(dockerfile.encode()))
    return buffer.getvalue()
