"""Starting the lean processes. Imports little: sampand does it before it has loaded the rest of itself."""

import errno
import os
import select
import socket
import subprocess
import sys
import time
import zlib
from contextlib import suppress

from sampan.runtime.protocol import Channel, ChannelClosed, is_served

PAUSE_SECONDS = 0.02


def answers(path: str) -> bool:
    """Whether somebody listens on a lean process's socket."""
    if not is_served(path):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        return probe.connect_ex(path) == 0


def build_of_program() -> str:
    """What the files that the lean program may load, and its interpreter, come to: another one is another version of it."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    names = [f"{place}/{name}" for place in ("linux", "runtime", "runtime/supervisor") for name in sorted(os.listdir(f"{root}/{place}"))]
    found = zlib.crc32(sys.version.encode())
    for name in ("errors.py", *names):
        if name.endswith(".py"):
            with open(f"{root}/{name}", "rb") as file:
                found = zlib.crc32(file.read(), found)
    return f"{found:08x}"


def command(role: str, exec_root: str, cgroup: str = "") -> list[str]:
    """The words that start a lean process. -I -S: neither our environment nor site-packages get into it."""
    program = os.path.join(os.path.dirname(os.path.abspath(__file__)), "supervisor", "main.py")
    own = ("--exec-root", exec_root, *(("--cgroup", cgroup) if cgroup else ()), "--build", build_of_program())
    return [sys.executable, "-I", "-S", program, role, *own]


def spawn(role: str, exec_root: str, cgroup: str = "") -> subprocess.Popen[bytes]:
    """Start a keeper (or, in tests, a bare supervisor) in a session of its own, its output to <exec_root>/<role>.log. Raises OSError."""
    os.makedirs(exec_root, 0o711, exist_ok=True)
    words = command(role, exec_root, cgroup)
    with open(f"{exec_root}/{role}.log", "ab") as log:
        return subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/", env={"LC_ALL": "C.UTF-8"}
        )


def spawn_keeper(exec_root: str, cgroup: str = "") -> subprocess.Popen[bytes]:
    """Start the keeper, which starts the supervisor. Raises OSError."""
    return spawn("keeper", exec_root, cgroup)


def end_keeper(keeper: subprocess.Popen[bytes], exec_root: str, timeout: float = 10.0) -> None:
    """End the keeper that was started in vain, and its supervisor; waits up to `timeout` seconds. One that holds containers stays."""
    deadline = time.monotonic() + timeout
    while (keeper.poll() is None or answers(f"{exec_root}/supervisor.sock")) and time.monotonic() < deadline:
        with suppress(OSError, ChannelClosed), socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.connect(f"{exec_root}/keeper.sock")
            channel = Channel(sock)
            channel.send({"op": "shutdown", "seq": 1})
            select.select([sock], [], [], 1.0)
            answer = channel.recv()
            if answer is not None and answer[0].get("error", {}).get("errno") == errno.EBUSY:
                return
        time.sleep(PAUSE_SECONDS)
