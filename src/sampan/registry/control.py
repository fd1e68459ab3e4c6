"""A running registry's own door, for `sampan registry gc` and `verify`: a unix socket in its directory, open to who may write there."""

import contextlib
import http.client
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import msgspec

from sampan.errors import SystemFailure
from sampan.registry.errors import RegistryError
from sampan.registry.gc import Collector
from sampan.registry.http import Answer, Request
from sampan.registry.uploads import Uploads
from sampan.registry.verify import Verifier

SOCKET = "sampan/control.sock"
ANSWER_SECONDS = 86400.0


@contextlib.contextmanager
def _address(root: Path) -> Iterator[str]:
    """The socket's path, by a descriptor: paths of sockets end after 107 bytes."""
    fd = os.open(root / os.path.dirname(SOCKET), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{os.path.basename(SOCKET)}"
    finally:
        os.close(fd)


def listener(root: Path) -> socket.socket:
    """The directory is locked: what is left of a life before is nobody's. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(root / SOCKET)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _address(root) as address:
            made.bind(address)
            os.chmod(root / SOCKET, 0o600)
        made.listen(8)
        made.setblocking(False)
    except OSError:
        made.close()
        raise
    return made


class Control:
    """Answers there."""

    def __init__(self, collector: Collector, uploads: Uploads, verifier: Verifier) -> None:
        self._collector = collector
        self._uploads = uploads
        self._verifier = verifier

    async def answer(self, request: Request) -> Answer:
        """`POST /gc`, with `?dry-run=1`, and `POST /verify`"""
        if (request.method, request.path) == ("POST", "/verify"):
            return Answer.json(msgspec.json.encode(await self._verifier.verify()))
        if (request.method, request.path) != ("POST", "/gc"):
            return Answer.failure(RegistryError("UNSUPPORTED"))
        dry_run = bool(request.one("dry-run"))
        report = await self._collector.collect(dry_run=dry_run)
        report.uploads = 0 if dry_run else await self._uploads.expire()
        return Answer.json(msgspec.json.encode(report))


class _Connection(http.client.HTTPConnection):
    def __init__(self, root: Path) -> None:
        super().__init__("localhost", timeout=ANSWER_SECONDS)
        self._root = root

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with _address(self._root) as address:
            self.sock.connect(address)


def ask(root: Path, target: str) -> bytes | None:
    """The report of the registry that runs on this directory; None: none does. target: `/gc`, `/verify`. Raises SystemFailure, OSError."""
    connection = _Connection(root)
    try:
        connection.request("POST", target)
        answer = connection.getresponse()
        body = answer.read()
    except (FileNotFoundError, ConnectionRefusedError):
        return None
    finally:
        connection.close()
    if answer.status != 200:
        raise SystemFailure("the registry has failed: its log says why")
    return body
