"""The dockerds of bench/peers, which tests compare with."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PEERS = Path(__file__).parents[2] / "bench" / "peers"


@contextmanager
def dockerd(version: str) -> Iterator[str]:
    """The address of a dockerd, `28` or `20`; it is stopped again unless it ran before."""

    def peers(verb: str) -> str:
        return subprocess.run([_PEERS, verb, version], capture_output=True, text=True, check=True, timeout=800).stdout.strip()

    ran = Path(peers("url").removeprefix("unix://")).with_name("docker.pid").exists()
    yield peers("up")
    if not ran:
        peers("down")
