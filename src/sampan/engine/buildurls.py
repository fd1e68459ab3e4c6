"""What ADD fetches from URLs, and the here-documents of COPY and ADD: files of the build's own, below its workspace."""

import asyncio
import email.utils
import hashlib
import os
import posixpath
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import unquote, urlsplit

from sampan.archive import compression, writer
from sampan.archive.reader import REGULAR
from sampan.build.instructions import Add, Copy, InlineFile
from sampan.distribution.transport import Answer, Unreachable
from sampan.engine.buildspool import DOCKERFILE_MAX, Directory, Tree, Workspace
from sampan.engine.progress import Progress
from sampan.engine.registries import Registries
from sampan.errors import InvalidArgument, NotImplementedYet, SystemFailure

UNNAMED: Final = "__unnamed__"
_KEPT_FREE: Final = 1 << 30
"""Bytes of the disk that a download leaves to others."""
_HEAD: Final = 512
_LOOK_EVERY: Final = 32 << 20


class Fetched(NamedTuple):
    """Files that are there now."""

    tree: Tree
    names: list[str]


def is_url(text: str) -> bool:
    """Whether ADD fetches it."""
    return text.startswith(("http://", "https://"))


def is_git(text: str) -> bool:
    """Whether ADD clones it (moby builder/remotecontext/urlutil)."""
    path = urlsplit(text).path if is_url(text) else ""
    return text.startswith(("git://", "git@", "github.com/", "ssh://")) or path.endswith(".git")


class Fetches:
    """Fetches for one build."""

    def __init__(self, registries: Registries, workspace: Workspace) -> None:
        """registries: for their proxies and certificates."""
        self._registries = registries
        self._workspace = workspace
        self._count = 0

    async def fetch(self, instruction: Copy | Add, url: str, destination: str, put: Callable[[Progress], None]) -> Fetched:
        """What a URL gives. Raises InvalidArgument, NotImplementedYet, SystemFailure."""
        if isinstance(instruction, Copy):
            raise InvalidArgument("source can't be a URL for COPY")
        if is_git(url):
            raise NotImplementedYet(f"{url}: ADD of git repositories is not implemented by Sampan yet")
        directory = self._directory()
        name = await self._fetch(url, directory, destination, put)
        if instruction.checksum:
            await asyncio.to_thread(_check, directory / name, instruction.checksum, url)
        return self._fetched(directory, [name])

    def written(self, files: Sequence[InlineFile]) -> Fetched:
        """Here-documents as files."""
        directory = self._directory()
        return self._fetched(directory, [_write(directory, file) for file in files])

    def _directory(self) -> Path:
        directory = self._workspace.path / "fetched" / str(self._count)
        self._count += 1
        directory.mkdir(mode=0o755)
        return directory

    def _fetched(self, directory: Path, names: list[str]) -> Fetched:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._workspace.keep(fd)
        found = Directory(fd, -1)

        async def where() -> Directory:
            return found

        return Fetched(Tree(where), names)

    async def _fetch(self, url: str, directory: Path, destination: str, put: Callable[[Progress], None]) -> str:
        """Download one; its name in the directory."""
        async with self._registries.transport() as transport:
            try:
                async with transport.request("GET", url) as answer:
                    if answer.status >= 400:
                        raise SystemFailure(f"error downloading {url}: {answer.status}")
                    return await self._store(answer, url, directory, destination, put)
            except Unreachable as error:
                raise SystemFailure(error.message) from None

    async def _store(self, answer: Answer, url: str, directory: Path, destination: str, put: Callable[[Progress], None]) -> str:
        name = _name_of(url, answer)
        if not name and destination.endswith("/"):
            raise InvalidArgument(f"cannot determine filename for source {url}")
        total = answer.length or 0
        path = directory / (name or UNNAMED)
        done, looked = 0, 0
        with path.open("xb") as file:
            os.fchmod(file.fileno(), 0o600)
            async for piece in answer.pieces():
                if done + len(piece) > looked:
                    _check_room(file.fileno())
                    looked = done + _LOOK_EVERY
                file.write(piece)
                done += len(piece)
                put({"status": "Downloading", "progressDetail": {"current": done, "total": total}})
        put({"stream": "\n"})
        modified = answer.headers.get("Last-Modified", "")
        try:
            at = email.utils.parsedate_to_datetime(modified).timestamp() if modified else 0.0
        except ValueError:
            at = 0.0
        os.utime(path, (at, at))
        return path.name


async def remote_context(registries: Registries, url: str, dockerfile: str) -> AsyncIterator[bytes]:
    """A context from elsewhere: a tar, compressed or not, or a Dockerfile alone. Raises InvalidArgument, SystemFailure."""
    if is_git(url):
        if shutil.which("git") is None:
            raise SystemFailure(f'unable to fetch the git repository {url}: exec: "git": executable file not found in $PATH')
        raise NotImplementedYet(f"{url}: git repositories as build contexts are not implemented by Sampan yet")
    if not is_url(url):
        raise InvalidArgument(f"remote context {url} could not be recognized: it is neither an http(s) URL nor a git repository")
    async with registries.transport() as transport:
        try:
            async with transport.request("GET", url) as answer:
                if answer.status >= 400:
                    raise SystemFailure(f"error downloading remote context {url}: failed to GET {url} with status {answer.status}")
                async for piece in _as_archive(answer.pieces(), dockerfile):
                    yield piece
        except Unreachable as error:
            raise SystemFailure(f"error downloading remote context {url}: {error.message}") from None


async def _as_archive(pieces: AsyncIterator[bytes], dockerfile: str) -> AsyncIterator[bytes]:
    """A tar stays what it is; a text is the file that is built by."""
    head = b""
    async for piece in pieces:
        head += piece
        if len(head) >= _HEAD:
            break
    if compression.detect(head) or head[257:262] == b"ustar":
        yield head
        async for piece in pieces:
            yield piece
        return
    async for piece in pieces:
        head += piece
        if len(head) > DOCKERFILE_MAX:
            raise InvalidArgument(f"the Dockerfile ({dockerfile}) has more than {DOCKERFILE_MAX} bytes")
    header = writer.header(os.fsencode(dockerfile), REGULAR, mode=0o600, size=len(head))
    yield header + head + writer.padding(len(head)) + writer.END


def _name_of(url: str, answer: Answer) -> str:
    path = unquote(urlsplit(url).path)
    name = posixpath.basename(path) if not path.endswith("/") else ""
    if not name:
        for word in answer.headers.get("Content-Disposition", "").split(";"):
            key, _, value = word.strip().partition("=")
            if key.lower() == "filename":
                name = posixpath.basename(value.strip('"'))
    return "" if name in (".", "..") or "\0" in name else name[:255]


def _check_room(fd: int) -> None:
    stat = os.fstatvfs(fd)
    if stat.f_bavail * stat.f_frsize < min(_KEPT_FREE, stat.f_blocks * stat.f_frsize // 20):
        raise SystemFailure("no space left on device")


def _check(path: Path, checksum: str, url: str) -> None:
    algorithm, _, wanted = checksum.partition(":")
    if algorithm not in ("sha256", "sha384", "sha512") or not wanted:
        raise InvalidArgument(f"unsupported checksum algorithm: {checksum}")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, algorithm).hexdigest()
    if found != wanted.lower():
        raise InvalidArgument(f"digest mismatch {algorithm}:{found}: {checksum} ({url})")


def _write(directory: Path, file: InlineFile) -> str:
    name = posixpath.basename(file.path.rstrip("/")) or UNNAMED
    path = directory / name
    path.write_bytes(file.content.encode("utf-8", "surrogateescape"))
    path.chmod(0o644)
    os.utime(path, (0, 0))
    return name
