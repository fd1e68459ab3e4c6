"""A supervisor of our own and a busybox root file system, without daemon or keeper."""

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sampan.ids import new_id
from sampan.runtime import cgroups, ocispec, plan, spawning
from sampan.runtime.protocol import Channel, Message

PARENT = f"sampan-test-{os.getpid()}"


class Started:
    """A launched process with our ends of its pipes."""

    def __init__(self, key: str, container: str, reply: Message, fds: dict[str, int], ends: dict[str, int]) -> None:
        self.key, self.container, self.reply, self.fds, self.ends = key, container, reply, fds, ends
        self.pid: int = reply["pid"]


class Supervisor:
    """A blocking client, for tests."""

    def __init__(self, exec_root: str, process: subprocess.Popen[bytes]) -> None:
        self.exec_root, self.process = exec_root, process
        self.events: list[tuple[Message, list[int]]] = []
        self.seq = 0
        self.channel = self.connect()
        self.hello = self.request({"op": "hello", "role": "sampand"})[0]

    def connect(self) -> Channel:
        deadline = time.monotonic() + 10
        while True:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            try:
                sock.connect(f"{self.exec_root}/supervisor.sock")
                return Channel(sock)
            except OSError:
                sock.close()
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise RuntimeError(Path(f"{self.exec_root}/supervisor.log").read_text()) from None
                time.sleep(0.01)

    def receive(self, timeout: float = 15) -> tuple[Message, list[int]]:
        deadline = time.monotonic() + timeout
        while (received := self.channel.recv()) is None:
            if time.monotonic() > deadline:
                raise TimeoutError("no message")
            time.sleep(0.0003)
        return received

    def request(self, message: Message, fds: dict[str, int] | None = None) -> tuple[Message, dict[str, int]]:
        self.seq += 1
        body = {**message, "seq": self.seq}
        if fds:
            body["names"] = list(fds)
        self.channel.send(body, list(fds.values()) if fds else [])
        while True:
            reply, received = self.receive()
            if reply.get("re") == self.seq:
                return reply, dict(zip(reply.get("names", []), received, strict=False))
            self.events.append((reply, received))

    def event(self, name: str, key: str, timeout: float = 15) -> Message:
        for known, _ in self.events:
            if known.get("event") == name and known.get("key") == key:
                return known
        while True:
            message, fds = self.receive(timeout)
            self.events.append((message, fds))
            if message.get("event") == name and message.get("key") == key:
                return message

    def start(
        self, made: dict[str, Any], container: str, target: Message | None = None, stdin: bool = False, more: dict[str, int] | None = None
    ) -> Started:
        """more: further descriptors, closed here."""
        key = f"{container}.1" if target is None else new_id()
        ends: dict[str, int] = {}
        theirs: dict[str, int] = dict(more or {})
        if not made["process"]["tty"]:
            for name in ("stdout", "stderr"):
                ends[name], theirs[name] = os.pipe()
            if stdin:
                theirs["stdin"], ends["stdin"] = os.pipe()
        request = {"op": "launch" if target is None else "exec", "key": key, "container": container, "plan": made, "record": {"test": True}}
        if target is not None:
            request["target"] = target
        reply, fds = self.request(request, theirs)
        for fd in theirs.values():
            os.close(fd)
        if "error" in reply:
            for fd in ends.values():
                os.close(fd)
            return Started(key, container, {"pid": 0, **reply}, fds, {})
        return Started(key, container, reply, fds, ends)

    def finish(self, started: Started, timeout: float = 20) -> tuple[int, str, str]:
        """(exit code, stdout, stderr)"""
        exit_event = self.event("exit", started.key, timeout)
        texts = []
        for name in ("stdout", "stderr"):
            data = b""
            fd = started.ends.get(name)
            if fd is not None:
                while block := os.read(fd, 65536):
                    data += block
            texts.append(data.decode())
        self.request({"op": "forget", "key": started.key})
        return exit_event["code"], texts[0], texts[1]


@pytest.fixture(scope="session")
def busybox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root file system of busybox and a few files, read-only by convention."""
    if os.getuid() != 0:
        pytest.skip("needs root")
    program = shutil.which("busybox")
    assert program, "busybox-static is not installed"
    root = tmp_path_factory.mktemp("busybox")
    for name in ("bin", "etc", "tmp", "root", "home/app"):
        (root / name).mkdir(parents=True)
    shutil.copy(program, root / "bin/busybox")
    for applet in subprocess.run([program, "--list"], capture_output=True, text=True, check=True, timeout=10).stdout.split():
        if applet != "busybox":
            (root / "bin" / applet).symlink_to("busybox")
    (root / "tmp").chmod(0o1777)
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\nwheel:x:10:root,app\napp:x:1000:\naudio:x:29:\n")
    return root


@pytest.fixture(scope="session")
def session_supervisor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Supervisor]:
    exec_root = str(tmp_path_factory.mktemp("run"))
    process = spawning.spawn("supervisor", exec_root)
    supervisor = Supervisor(exec_root, process)
    yield supervisor
    supervisor.channel.close()
    process.kill()
    process.wait(10)
    cgroups.remove(cgroups.host_layout(), PARENT)


@pytest.fixture
def supervisor(session_supervisor: Supervisor) -> Iterator[Supervisor]:
    """The shared supervisor; processes left over by a test are killed."""
    yield session_supervisor
    for proc in session_supervisor.request({"op": "list"})[0]["procs"]:
        if proc["exit"] is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(proc["pid"], 9)
            session_supervisor.event("exit", proc["key"])
        session_supervisor.request({"op": "forget", "key": proc["key"]})
    session_supervisor.events.clear()
    layout = cgroups.host_layout()
    for directory in cgroups.directories(layout, PARENT):
        for child in Path(directory).glob("*/"):
            cgroups.remove(layout, f"{PARENT}/{child.name}")


class Box:
    """Runs commands in fresh containers."""

    def __init__(self, supervisor: Supervisor, lower: Path, work: Path, runtime: str = "") -> None:
        """runtime: the program of an OCI runtime, "" for our own."""
        self.supervisor, self.lower, self.work = supervisor, lower, work
        self.runtime = ocispec.Runtime((shutil.which(runtime) or f"/missing/{runtime}",), f"{work}/runtime") if runtime else None
        if runtime:
            os.mkdir(f"{work}/runtime")

    def made(self, spec: plan.LaunchSpec) -> dict[str, Any]:
        return ocispec.launch(spec, self.runtime) if self.runtime else plan.launch_plan(spec)

    def spec(self, *args: str, **options: Any) -> plan.LaunchSpec:
        container = new_id()
        base = self.work / container
        (base / "upper").mkdir(parents=True)
        (base / "work").mkdir()
        options.setdefault("env", ("PATH=/bin", f"HOSTNAME={container[:12]}"))
        options.setdefault("namespaces", plan.Namespaces(net="private"))
        rootfs = plan.Rootfs(
            lowers=(str(self.lower),), upper=f"{base}/upper", work=f"{base}/work", readonly=options.pop("readonly_rootfs", False)
        )
        return plan.LaunchSpec(id=container, args=args, rootfs=rootfs, cgroup=f"{PARENT}/{container}", hostname=container[:12], **options)

    def start(self, *args: str, stdin: bool = False, **options: Any) -> Started:
        spec = self.spec(*args, **options)
        more: dict[str, int] = {}
        if spec.userns is not None:
            reply, more = self.supervisor.request({"op": "userns", "maps": spec.userns.built(), "net": spec.namespaces.net == "fd"})
            assert "error" not in reply, reply
        return self.supervisor.start(self.made(spec), spec.id, stdin=stdin, more=more)

    def run(self, *args: str, **options: Any) -> tuple[int, str, str]:
        started = self.start(*args, **options)
        assert "error" not in started.reply, started.reply
        return self.supervisor.finish(started)

    def sh(self, script: str, **options: Any) -> str:
        """Output of a shell script that must succeed."""
        code, out, err = self.run("sh", "-ec", script, **options)
        assert code == 0, (code, out, err)
        return out

    def exec(self, container: Started, *args: str, **options: Any) -> Started:
        options.setdefault("env", ("PATH=/bin",))
        spec = plan.ExecSpec(id=container.container, args=args, cgroup=f"{PARENT}/{container.container}", **options)
        target = {"pid": container.pid, "start_time": container.reply["start_time"]}
        made = ocispec.execute(spec, container.container, self.runtime) if self.runtime else plan.exec_plan(spec)
        return self.supervisor.start(made, container.container, target=target)


_OURS = frozenset((
    "test_a_bad_command_is_an_error_in_runcs_words", "test_a_container_that_may_ptrace_cannot_write_the_interpreter",
    "test_a_directory_over_a_file_is_an_error", "test_a_joining_process_shows_nothing_of_the_host",
    "test_an_end_before_the_next_version_is_told_of_the_process_keeps_its_exit_code", "test_exec_errors",
    "test_init_reaps_forwards_signals_and_passes_the_code_on", "test_mount_table_is_dockers", "test_mount_targets_cannot_leave_the_root",
    "test_resource_limits", "test_without_ptrace_the_joining_process_is_opaque",
))  # fmt: skip
"""Tests of what is our own: the words of failures, the init, the programs that are joined by; and where crun refuses what runc has."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests in a box are for our own way of starting containers, and for OCI runtimes."""
    if "box" in metafunc.fixturenames:
        # User namespaces are refused with another runtime.
        is_ours = metafunc.function.__name__ in _OURS or Path(str(metafunc.module.__file__)).stem == "test_userns"
        others = [pytest.param(name, marks=pytest.mark.slow) for name in ("runc", "crun") if not is_ours]
        metafunc.parametrize("box", [pytest.param("", id="own"), *others], indirect=True)


@pytest.fixture
def box(request: pytest.FixtureRequest, supervisor: Supervisor, busybox: Path, tmp_path: Path) -> Box:
    return Box(supervisor, busybox, tmp_path, request.param)
