"""The log driver journald to a journal of our own, which sampand sees where systemd has its one."""

import array
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.engine import Engine

pytestmark = pytest.mark.root

_SURROUNDINGS = """
set -e
mount -t tmpfs run /run
mkdir -p /run/systemd/journal
mount --bind "$JOURNAL" /run/systemd/journal
exec "$@"
"""
LONG = 500_000
"""Bytes of a line: more than a datagram has."""


class Journal:
    """Takes entries as systemd-journald does: from a datagram, or from the memory file that comes with an empty one."""

    def __init__(self, directory: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(directory / "socket"))
        self._socket.settimeout(30)

    def entry(self) -> dict[str, bytes]:
        """The next one."""
        data, ancillary, _, _ = self._socket.recvmsg(1 << 20, socket.CMSG_SPACE(4))
        for _, _, raw in ancillary:
            with os.fdopen(array.array("i", raw)[0], "rb") as file:
                file.seek(0)
                data = file.read()
        fields = {}
        while data:
            head, _, data = data.partition(b"\n")
            name, equals, value = head.partition(b"=")
            if not equals:
                size = int.from_bytes(data[:8], "little")
                value, data = data[8 : 8 + size], data[9 + size :]
            fields[name.decode()] = value
        return fields

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Journal]]:
    directory = tmp_path_factory.mktemp("journal")
    journal = Journal(directory)
    yield directory, journal
    journal.close()


def test_what_containers_write_is_in_the_journal(make_engine: Callable[..., Engine], journal: tuple[Path, Journal]) -> None:
    directory, entries = journal
    engine = make_engine()
    engine.prefix = ["env", f"JOURNAL={directory}", "unshare", "--mount", "sh", "-c", _SURROUNDINGS, "sh"]
    engine.start()
    engine.bootstrap()
    command = f"echo hello; head -c {LONG} /dev/zero | tr '\\0' x; echo; until [ -e /go ]; do usleep 20000; done; echo wrong >&2"
    options = ["--name=teller", "--network=none", "--label=kind=made", "--log-driver=journald", "--log-opt=labels=kind"]
    done = engine.cli("run", "-d", *options, "busybox", "sh", "-c", command)
    assert done.returncode == 0, done.stderr
    container = done.stdout.strip()
    first = entries.entry()
    assert first["MESSAGE"] == b"hello"
    assert {name: first[name].decode() for name in ("CONTAINER_ID", "CONTAINER_ID_FULL", "CONTAINER_NAME", "IMAGE_NAME", "KIND")} == {
        "CONTAINER_ID": container[:12], "CONTAINER_ID_FULL": container, "CONTAINER_NAME": "teller", "IMAGE_NAME": "busybox", "KIND": "made",
    }  # fmt: skip
    assert (first["PRIORITY"], first["CONTAINER_TAG"], first["SYSLOG_IDENTIFIER"]) == (
        b"6",
        container[:12].encode(),
        container[:12].encode(),
    )
    long = b""
    while len(long) < LONG:
        long += entries.entry()["MESSAGE"]
    assert long == b"x" * LONG
    engine.stop(signal.SIGKILL)
    engine.start()
    assert engine.cli("exec", "teller", "touch", "/go").returncode == 0
    deadline = time.monotonic() + 30
    while (last := entries.entry())["MESSAGE"] != b"wrong":  # what was sent just before the kill may come again
        assert time.monotonic() < deadline
    assert (last["PRIORITY"], last["CONTAINER_NAME"]) == (b"3", b"teller")
    assert engine.cli("logs", "teller").stderr == "wrong\n"
