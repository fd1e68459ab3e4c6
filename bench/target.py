"""An engine under measurement: how it is started, spoken to, and weighed."""

import contextlib
import http.client
import io
import json
import os
import socket
import struct
import subprocess
import tarfile
import threading
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from sampan.daemon.teardown import UnixConnection

API = "/v1.41"
"""The newest version that dockerd 20.10 has."""
LINE = b"%08d a line of a program that has much to say and writes it to its standard output, over and over\n"


class BadResult(Exception):
    """The engine answered in time, but not right: no figure for that row."""


def require(holds: bool, what: object) -> None:
    """Raise BadResult unless it holds."""
    if not holds:
        raise BadResult(str(what)[:300])


@cache
def log_lines() -> bytes:
    """10 MB of numbered lines: the file /bench/lines of the image."""
    count = 10_000_000 // len(LINE % 0)
    return b"".join(LINE % number for number in range(count))


@cache
def image_tar() -> bytes:
    """A root file system with the host's static busybox and the benchmark's data."""
    box = next((path for path in (Path("/bin/busybox"), Path("/usr/bin/busybox")) if path.exists()), None)
    if box is None:
        raise BadResult("busybox-static is not installed")
    applets = subprocess.run([str(box), "--list"], capture_output=True, text=True, check=True).stdout.split()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:

        def add(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "") -> None:
            info = tarfile.TarInfo(name)
            info.type, info.size, info.mode, info.linkname = kind, len(data), 0o755, link
            tar.addfile(info, io.BytesIO(data))

        for directory in ("bin", "etc", "tmp", "proc", "sys", "dev", "bench"):
            add(directory, kind=tarfile.DIRTYPE)
        add("bin/busybox", box.read_bytes())
        for applet in applets:
            if applet != "busybox":
                add(f"bin/{applet}", kind=tarfile.SYMTYPE, link="busybox")
        add("etc/passwd", b"root:x:0:0::/root:/bin/sh\n")
        add("bench/lines", log_lines())
    return buffer.getvalue()


def payload(stream: bytes) -> bytes:
    """What a multiplexed stream carries, without the 8-byte heads."""
    parts, at = [], 0
    while at + 8 <= len(stream):
        (length,) = struct.unpack_from(">I", stream, at + 4)
        parts.append(stream[at + 8 : at + 8 + length])
        at += 8 + length
    require(at == len(stream), "the stream ends within a frame")
    return b"".join(parts)


class Target:
    """One engine. `command` starts it in the foreground (None: it runs already, and is left running)."""

    builder: Sequence[str] = ("docker", "build")
    """The client's command that its users build with."""

    def __init__(self, name: str, url: str, command: Sequence[str] | None, mark: str, netns: str = "") -> None:
        """`mark`: a text that the command lines of all its processes contain, for its memory. `netns`: its network (ip-netns(8))."""
        self.name, self.url, self.path, self.command, self.mark = name, url, url.removeprefix("unix://"), command, mark
        self.netns = netns
        self.label = f"bench{os.getpid()}"
        self.image = f"{self.label}:latest"
        self.process: subprocess.Popen[bytes] | None = None
        self.local = threading.local()
        self.containers: set[str] = set()
        self.networks: set[str] = set()
        self.log = Path(f"/var/tmp/{self.label}-{name}.log")

    # -- life

    def boot(self) -> float:
        """Start it; seconds until it answers its first ping."""
        self.local = threading.local()
        begin = time.perf_counter()
        if self.command:
            with self.log.open("ab") as log:
                self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self.call("GET", "/_ping", raw=True) == b"OK":
                    return time.perf_counter() - begin
            require(time.perf_counter() - begin < 120, f"{self.name} does not start: {self.log}")
            require(self.process is None or self.process.poll() is None, f"{self.name} ended at its start: {self.log}")
            time.sleep(0.002)

    def halt(self) -> None:
        """SIGTERM, and wait for its end."""
        if self.process:
            self.process.terminate()
            self.process.wait(120)

    # -- requests

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        ok: Sequence[int] = (200, 201, 204),
        raw: bool = False,
        fresh: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """One request on this thread's kept connection. Raises BadResult on a status not in `ok`."""
        sent = dict(headers or {})
        if isinstance(body, Mapping):
            body, sent["Content-Type"] = json.dumps(body).encode(), "application/json"
        elif body is not None:
            sent["Content-Type"] = "application/x-tar"
        connection: UnixConnection | None = None if fresh else getattr(self.local, "connection", None)
        connection = connection or UnixConnection(self.path, 300)
        try:
            connection.request(method, API + path, body, sent)
            response = connection.getresponse()
            data = response.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            self.local.connection = None
            raise
        self.local.connection = None if fresh or response.will_close else connection
        require(response.status in ok, f"{method} {path}: {response.status} {data[:200]!r}")
        return data if raw or not data else json.loads(data)

    def upgrade(self, path: str, body: bytes = b"{}") -> tuple[socket.socket, bytes]:
        """POST with `Upgrade: tcp`: the raw connection, and what came right behind the head."""
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(300)
        sock.connect(self.path)
        head = f"POST {API}{path} HTTP/1.1\r\nHost: bench\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: application/json\r\n"
        sock.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        got = b""
        while b"\r\n\r\n" not in got:
            more = sock.recv(65536)
            require(bool(more), f"no answer to {path}")
            got += more
        answer, _, rest = got.partition(b"\r\n\r\n")
        require(answer.split()[1] in (b"101", b"200"), answer)
        return sock, rest

    # -- containers

    def load_image(self) -> None:
        """Import the benchmark's image under this run's name."""
        self.call("POST", f"/images/create?fromSrc=-&repo={self.label}&tag=latest", image_tar(), raw=True)

    def create(self, *command: str, network: str = "none", host: Mapping[str, Any] | None = None, **config: Any) -> str:
        """Create a container; its ID."""
        body = {"Image": self.image, "Cmd": list(command), "HostConfig": {"NetworkMode": network, **(host or {})}, **config}
        made: str = self.call("POST", "/containers/create", body)["Id"]
        self.containers.add(made)
        return made

    def run(self, *command: str, network: str = "none", host: Mapping[str, Any] | None = None, **config: Any) -> str:
        """Create and start a container; its ID."""
        made = self.create(*command, network=network, host=host, **config)
        self.call("POST", f"/containers/{made}/start")
        return made

    def exec(self, container: str, *command: str) -> bytes:
        """Run a command in a running container; what it prints. Raises BadResult when it fails."""
        body = {"Cmd": list(command), "AttachStdout": True, "AttachStderr": True}
        made = self.call("POST", f"/containers/{container}/exec", body)["Id"]
        sock, got = self.upgrade(f"/exec/{made}/start", b'{"Detach":false,"Tty":false}')
        with sock:
            while more := sock.recv(65536):
                got += more
        require(self.call("GET", f"/exec/{made}/json")["ExitCode"] == 0, "exit code")
        return payload(got)

    def wait(self, container: str) -> int:
        """Its exit code."""
        code: int = self.call("POST", f"/containers/{container}/wait")["StatusCode"]
        return code

    def remove(self, container: str) -> None:
        """Kill and remove it."""
        self.call("DELETE", f"/containers/{container}?force=1&v=1")
        self.containers.discard(container)

    def running(self) -> set[str]:
        """IDs of running containers."""
        return {one["Id"] for one in self.call("GET", "/containers/json")}

    def clean(self) -> None:
        """Remove what a row left."""
        for container in list(self.containers):
            self.call("DELETE", f"/containers/{container}?force=1&v=1", ok=(200, 204, 404))
        self.containers.clear()
        for name in self.networks:
            self.call("DELETE", f"/networks/{name}", ok=(204, 404))
        self.networks.clear()

    def network(self, name: str, subnet: str = "") -> str:
        """Make a network; clean() removes it. Its name."""
        self.networks.add(f"{self.label}{name}")
        ipam = {"Config": [{"Subnet": subnet}]} if subnet else {}
        self.call("POST", "/networks/create", {"Name": f"{self.label}{name}", "IPAM": ipam})
        return f"{self.label}{name}"

    # -- memory

    def pss(self) -> int:
        """Bytes of memory (proportional set size) of all its processes, those of containers left out."""
        parents: dict[int, int] = {}
        chosen: set[int] = set()
        ours = os.readlink("/proc/self/ns/pid")
        for entry in filter(str.isdecimal, os.listdir("/proc")):
            pid = int(entry)
            try:
                if os.readlink(f"/proc/{pid}/ns/pid") != ours:
                    continue
                parents[pid] = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
                if self.mark in Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"):
                    chosen.add(pid)
            except OSError:
                continue
        if self.process:
            chosen.add(self.process.pid)
        chosen.discard(os.getpid())
        while more := {pid for pid, parent in parents.items() if parent in chosen} - chosen:
            chosen |= more
        total = 0
        for pid in chosen:
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                    if line.startswith("Pss:"):
                        total += int(line.split()[1]) * 1024
        require(total > 0, "none of its processes is visible")
        return total
