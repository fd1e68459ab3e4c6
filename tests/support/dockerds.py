"""A dockerd of our own, with flags of our own, in the root file system and the network namespace of a peer (bench/peers)."""

import fcntl
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, TextIO

PEERS = Path(__file__).parents[2] / "bench" / "peers"
PLACE = Path(os.environ.get("SAMPAN_PEERS", "/var/tmp/sampan-peers"))
_INSIDE = """
  root=$1 run=$2 name=$3
  shift 3
  mount --bind "$root" "$root"
  for d in proc sys dev; do mount --rbind "/$d" "$root/$d"; done
  mkdir -p "$root$run"
  mount --bind "$run" "$root$run"
  cd "$root"
  mkdir -p .host
  pivot_root . .host
  umount -l /.host
  exec "$@"
"""


class Dockerd(NamedTuple):
    """Running. run: a directory that is at the same path inside. inside: the command that a command inside begins with."""

    url: str
    run: Path
    containerd: str
    inside: list[str]


@contextmanager
def peer(version: str) -> Iterator[str]:
    """The peer itself, and with it its root file system and its network namespace. Its address.

    Several processes of tests may have it at once: the last one stops it, unless it ran before them all.
    """

    def tell(verb: str) -> str:
        return subprocess.run([PEERS, verb, version], capture_output=True, text=True, check=True, timeout=800).stdout.strip()

    ours = Path(f"/run/lock/sampan-peer-{version}.ours")
    """That tests have started it."""
    with open(f"/run/lock/sampan-peer-{version}", "w") as users, open(f"/run/lock/sampan-peer-{version}.turn", "w") as turn:
        with held(turn):
            fcntl.flock(users, fcntl.LOCK_SH)
            if not Path(tell("url").removeprefix("unix://")).with_name("docker.pid").exists():
                ours.touch()
            url = tell("up")
        try:
            yield url
        finally:
            with held(turn), suppress(BlockingIOError):  # who else has it stops it
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if ours.exists():
                    tell("down")
                    ours.unlink()


@contextmanager
def held(lock: TextIO) -> Iterator[None]:
    """Nobody else has this lock within the block."""
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(lock, fcntl.LOCK_UN)


@contextmanager
def dockerd(version: str, run: Path, *flags: str) -> Iterator[Dockerd]:
    """Beside the peer, which runs. Without a bridge and rules of netfilter: it only pulls. run: a directory that is also seen inside."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    root = PLACE / version / "root"
    inside = [
        "nsenter", f"--net=/run/netns/sampan-peer{version}",
        "unshare", "--mount", "--propagation", "private", "bash", "-euc", _INSIDE, "peer", str(root), str(run), name,
    ]  # fmt: skip
    data, state, socket = f"/var/lib/{name}", f"/run/{name}", run / "docker.sock"
    command = [
        "dockerd", "--data-root", data, "--exec-root", state, "-H", f"unix://{socket}", "-p", f"{run}/docker.pid",
        "--bridge=none", "--iptables=false", "--ip6tables=false", "--storage-driver=vfs", *flags,
    ]  # fmt: skip
    with (run / "log").open("wb") as log:
        process = subprocess.Popen([*inside, *command], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while b"API listen on" not in (run / "log").read_bytes():
            assert process.poll() is None, (run / "log").read_text()
            assert time.monotonic() < deadline, (run / "log").read_text()
            time.sleep(0.05)
        yield Dockerd(f"unix://{socket}", run, f"{state}/containerd/containerd.sock", inside)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        subprocess.run(["rm", "-rf", f"{root}{data}", f"{root}{state}"], check=True, timeout=60)
