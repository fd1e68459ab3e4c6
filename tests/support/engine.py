"""A real sampand for tests: on roots, a bridge and a subnet of its own, so that another engine on the machine does not mind."""

import contextlib
import fcntl
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sampan.daemon import teardown
from sampan.daemon.config import known, parse_command_line
from sampan.daemon.teardown import UnixConnection, cgroup_directories
from sampan.network.bridge import owned

START = [sys.executable, "-I", "-c", "from sampan.daemon.main import entry; entry()"]
CLI = [sys.executable, "-I", "-c", "from sampan.cli.main import entry; entry()"]
TEARDOWN = [sys.executable, "-I", "-c", "from sampan.daemon.teardown import entry; entry()"]


def own_number(locks: contextlib.ExitStack, purpose: str = "") -> int:
    """A number of 0..255 that no other process of tests on this machine has for this purpose; it is ours until locks is closed.

    Without a purpose: of a bridge and a subnet.
    """
    first = os.getpid()
    for number in (found % 256 for found in range(first, first + 256)):
        lock = os.open(f"/run/lock/sampan-test-{purpose}{number}", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if purpose or not Path(f"/sys/class/net/sampant{number}").exists():
                locks.callback(os.close, lock)
                return number
        os.close(lock)
    raise AssertionError(f"no free number for a test's {purpose or 'engine'}")


class Engine:
    """One sampand and all that belongs to it. `flags` are added to the command line."""

    def __init__(self, root: Path, number: int, flags: Sequence[str] = ()) -> None:
        """`root`: an empty directory for everything; `number` (0..255) picks the bridge's name and subnet."""
        self.root = root
        self.data_root, self.exec_root = root / "data", root / "run"
        self.socket = str(self.exec_root / "sampan.sock")
        self.url = f"unix://{self.socket}"
        self.bridge, self.subnet = f"sampant{number}", f"10.213.{number}.1/24"
        self.flags = [
            f"--data-root={self.data_root}",
            f"--exec-root={self.exec_root}",
            f"--bridge={self.bridge}",
            f"--bip={self.subnet}",
            f"--config-file={root}/daemon.json",
            *flags,
        ]
        self.program: Sequence[str] = START
        """What starts sampand: that of another version, if need be."""
        self.prefix: list[str] = []
        """A program that starts sampand, in surroundings of its own."""
        root.mkdir(parents=True, exist_ok=True)
        (root / "daemon.json").touch()
        self.log = root / "sampand.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.network_before = self.network_state()

    # -- life

    def start(self, timeout: float = 30) -> None:
        """Start sampand and wait until it answers."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.prefix, *self.program, *self.flags],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                cwd="/",
            )
        deadline = time.monotonic() + timeout
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self.request("GET", "/_ping")[0] == 200:
                    return
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"sampand does not start:\n{self.log.read_text()[-4000:]}")
            time.sleep(0.01)

    @property
    def pid(self) -> int:
        """The daemon's process ID."""
        assert self.process is not None
        return self.process.pid

    def stop(self, number: int = signal.SIGTERM, timeout: float = 60) -> int:
        """Signal sampand and wait for its end; containers go on (live-restore). Returns its status as subprocess does."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout)

    def teardown(self) -> None:
        """End everything of this engine, as `quickstart --uninstall` does, but without programs to start or a grace for containers."""
        if self.process is not None and self.process.poll() is None:
            with contextlib.suppress(OSError, http.client.HTTPException):
                self.remove_containers()
            self.stop()  # sampand is our child: without a wait it stays a zombie
        teardown.run("purge", known(self.flags).config)

    # -- clients

    def request(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None, timeout: float = 60
    ) -> tuple[int, Any]:
        """One API request: status and body, decoded where it is JSON. A dict or list is sent as JSON, bytes as they are."""
        connection = UnixConnection(self.socket, timeout)
        sent = dict(headers or {})
        if body is not None and not isinstance(body, bytes):
            body, sent["Content-Type"] = json.dumps(body).encode(), "application/json"
        try:
            connection.request(method, path, body, sent)
            response = connection.getresponse()
            data = response.read()
            if response.getheader("Content-Type", "").startswith("application/json") and data:
                with contextlib.suppress(ValueError):  # a stream of several objects
                    return response.status, json.loads(data)
            return response.status, data
        finally:
            connection.close()

    def environment(self) -> dict[str, str]:
        """The environment of a client that is to talk to this engine."""
        return {**os.environ, "DOCKER_HOST": self.url, "DOCKER_CONFIG": str(self.root / "docker-config")}

    def run_client(
        self, command: Sequence[str], *args: str, stdin: bytes | None = None, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run a client program against this engine; output is text."""
        result = subprocess.run(
            [*command, *args], input=stdin or b"", capture_output=True, timeout=timeout, env=self.environment(), check=False
        )
        return subprocess.CompletedProcess(
            result.args, result.returncode, result.stdout.decode(errors="replace"), result.stderr.decode(errors="replace")
        )

    def cli(self, *args: str, stdin: bytes | None = None, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run `sampan ARGS...` against this engine."""
        return self.run_client(CLI, *args, stdin=stdin, timeout=timeout)

    def bootstrap(self, name: str = "busybox") -> None:
        """Make the base image."""
        result = self.cli("image", "bootstrap", name, timeout=120)
        assert result.returncode == 0, result.stderr

    def remove_containers(self) -> None:
        """Remove every container, whatever its state."""
        for container in self.request("GET", "/containers/json?all=1")[1]:
            self.request("DELETE", f"/containers/{container['Id']}?force=1&v=1")

    # -- leaks

    def findings(self) -> list[str]:
        """What `system check` finds."""
        status, report = self.request("GET", "/system/check", timeout=120)
        assert status == 200, report
        return [f"{one['Kind']} {one['Subject']} {one['Problem']}" for one in report["Findings"]]

    def cgroups(self) -> list[str]:
        """This engine's cgroup directories."""
        config = parse_command_line(self.flags)
        return cgroup_directories(config)

    def leftovers(self) -> dict[str, list[str]]:
        """What of this engine is on the machine: each kind with the names; all lists are empty once it is gone."""
        place = str(self.root)
        return {
            "mounts": [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if place in line],
            "processes": processes_of(place),
            "cgroups": self.cgroups(),
            "network": sorted(self.network_state() - self.network_before),
        }

    def network_state(self) -> set[str]:
        """Bridge, its ports and firewall lines that name it; the bridges of users' own networks."""
        found = {f"link {name}" for name in owned(str(self.exec_root))}
        if os.path.isdir(f"/sys/class/net/{self.bridge}"):
            found.add(f"link {self.bridge}")
            found.update(f"port {name}" for name in os.listdir(f"/sys/class/net/{self.bridge}/brif"))
        for words in (["nft", "list", "ruleset"], ["iptables-save"]):
            if shutil.which(words[0]):
                text = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False).stdout
                found.update(f"{words[0]}: {line.strip()}" for line in text.splitlines() if self.bridge in line.replace('"', " ").split())
        return found


def processes_of(place: str) -> list[str]:
    """Command lines of processes, but this one and its parents, that name a directory."""
    found, mine = [], {os.getpid(), os.getppid()}
    for entry in os.listdir("/proc"):
        if entry.isdecimal() and int(entry) not in mine:
            try:
                command = Path(f"/proc/{entry}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if place in command and "pytest" not in command:
                found.append(f"{entry} {command}")
    return found
