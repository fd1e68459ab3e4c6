"""What ADD fetches from URLs, and the here-documents of COPY and ADD: files of the build's own, below its workspace."""

import asyncio
import email.utils
import hashlib
import os
import posixpath
import re
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import unquote, urlsplit

from sampan.archive import compression, writer
from sampan.archive.apply import NAME_MAX
from sampan.archive.reader import REGULAR
from sampan.archive.room import NoRoom, Room
from sampan.archive.sources import Source
from sampan.build.instructions import Add, Copy, InlineFile
from sampan.build.lex import FILE_MAX
from sampan.distribution.transport import Answer, Unreachable
from sampan.engine.buildcopy import Found, Group
from sampan.engine.buildgit import GitRepositories, is_git_context, is_url, open_below, remote_of
from sampan.engine.buildspool import Tree, Workspace, tree_at
from sampan.engine.lines import TICK_SECONDS
from sampan.engine.progress import Progress, bar_line
from sampan.engine.registries import Registries
from sampan.errors import InvalidArgument, SystemFailure
from sampan.quoting import go_quote
from sampan.streams import Pourable
from sampan.units import human_size

UNNAMED: Final = "__unnamed__"
_HEAD: Final = 512
_COMMIT: Final = re.compile("[0-9a-fA-F]+")


class Fetched(NamedTuple):
    """Files that are there now."""

    tree: Tree
    names: list[str]


class Fetches:
    """Fetches for one build."""

    def __init__(self, registries: Registries, workspace: Workspace) -> None:
        """registries: for their proxies and certificates."""
        self._registries = registries
        self._workspace = workspace
        self._git = GitRepositories(registries.settings.proxies)

    async def fetch(self, instruction: Copy | Add, url: str, destination: str, put: Callable[[Progress], None]) -> Fetched:
        """What a URL gives. Raises InvalidArgument, SystemFailure."""
        if isinstance(instruction, Copy):
            raise InvalidArgument("source can't be a URL for COPY")
        directory = self._directory()
        name = await self._download(url, directory, destination, put)
        if instruction.checksum:
            await asyncio.to_thread(_check, directory / name, instruction.checksum, url)
        return self._fetched(directory, [name])

    async def repository(self, instruction: Copy | Add, url: str) -> Group:
        """What a git repository's URL means now; it is cloned when it is needed. Raises InvalidArgument, SystemFailure."""
        if isinstance(instruction, Copy):
            raise InvalidArgument("source can't be a git ref for COPY")
        remote = remote_of(url)
        if instruction.checksum and not _COMMIT.fullmatch(instruction.checksum):
            raise InvalidArgument(f"invalid checksum {instruction.checksum} for Git URL, expected hex commit hash")
        top = self._workspace.place("git")
        resolved = await self._git.resolve(remote, top)
        if not resolved.commit.startswith(instruction.checksum.lower()):
            raise InvalidArgument(f"expected checksum to match {instruction.checksum}, got {resolved.commit}")
        subdirectory = posixpath.normpath(f"/{remote.subdirectory}").strip("/")
        keep = bool(instruction.keep_git_dir) and not subdirectory
        told = "git:" + resolved.commit + (f".git#{resolved.ref}" if keep else "") + (f":{subdirectory}" if subdirectory else "")

        async def clone() -> Tree:
            # tags and branches by their whole names: a short one may mean another to git
            found = await self._git.clone(remote, top, refs=[resolved.ref], keep=keep)
            if found != resolved.commit:
                raise SystemFailure(f"{url}: the ref {resolved.ref} has changed from {resolved.commit} to {found} meanwhile")
            directory = open_below(top, subdirectory)
            self._workspace.keep(directory)
            return tree_at(directory)

        return Group(Tree(), Found([Source("", "", True, told, url)], told, ""), unpack=False, later=clone)

    def written(self, files: Sequence[InlineFile]) -> Fetched:
        """Here-documents as files."""
        directory = self._directory()
        return self._fetched(directory, [_write(directory, file) for file in files])

    def _directory(self) -> Path:
        directory = self._workspace.fresh("files")
        directory.mkdir(mode=0o755)
        return directory

    def _fetched(self, directory: Path, names: list[str]) -> Fetched:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._workspace.keep(fd)
        return Fetched(tree_at(fd), names)

    async def _download(self, url: str, directory: Path, destination: str, put: Callable[[Progress], None]) -> str:
        """Download one; its name in the directory."""
        if problem := _problem(url):
            raise InvalidArgument(problem)
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
        done, told = 0, -TICK_SECONDS
        with path.open("xb") as file:
            os.fchmod(file.fileno(), 0o600)
            room = Room(file.fileno())
            async for piece in answer.pieces():
                _take(room, len(piece))
                file.write(piece)
                done += len(piece)
                if time.monotonic() - told >= TICK_SECONDS:
                    told = time.monotonic()
                    put(_line(done, total))
        put(_line(done, total))
        put({"stream": "\n"})
        modified = answer.headers.get("Last-Modified", "")
        try:
            at = email.utils.parsedate_to_datetime(modified).timestamp() if modified else 0.0
        except (ValueError, OverflowError):
            at = 0.0
        os.utime(path, (at, at))
        return path.name


async def remote_context(registries: Registries, workspace: Workspace, url: str, dockerfile: str) -> AsyncIterator[bytes] | Pourable:
    """A context from elsewhere: a tar, compressed or not, a Dockerfile alone, a git repository. Raises InvalidArgument, SystemFailure."""
    if is_git_context(url):
        remote = remote_of(url)
        top = workspace.place("context")
        await GitRepositories(registries.settings.proxies).clone(remote, top, keep=True)
        directory = open_below(top, remote.subdirectory)
        workspace.keep(directory)
        return _Cloned(workspace, top, directory)
    if not is_url(url):
        raise SystemFailure(f"remoteURL ({url}) could not be recognized as URL")
    return _downloaded(registries, url, dockerfile)


class _Cloned:
    """A context that a repository has been cloned for."""

    def __init__(self, workspace: Workspace, top: int, directory: int) -> None:
        """directory: the part of the clone that is the context."""
        self._workspace, self._top, self._directory = workspace, top, directory

    async def pour(self, pipe: int) -> None:
        """See Pourable. The clone is not needed after it."""
        await self._workspace.pack(self._directory, pipe)
        await self._workspace.empty(self._top)


async def _downloaded(registries: Registries, url: str, dockerfile: str) -> AsyncIterator[bytes]:
    """A file of the web's."""
    if problem := _problem(url):
        raise SystemFailure(f"error downloading remote context {url}: {problem}")
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
        if len(head) > FILE_MAX:
            raise InvalidArgument(f"the Dockerfile ({dockerfile}) has more than {FILE_MAX} bytes")
    header = writer.header(os.fsencode(dockerfile), REGULAR, mode=0o600, size=len(head))
    yield header + head + writer.padding(len(head)) + writer.END


def _problem(url: str) -> str:
    """Go's words for a URL that is none."""
    try:
        urlsplit(url)
    except ValueError:
        return f"parse {go_quote(url)}: missing ']' in host"
    return ""


def _line(done: int, total: int) -> Progress:
    """How far a download has come; of one whose length nobody has told there is no bar."""
    line = bar_line("Downloading", done, total)
    return line if total else {**line, "progress": f"{human_size(done):>8}"}


def _name_of(url: str, answer: Answer) -> str:
    path = unquote(urlsplit(url).path)
    name = posixpath.basename(path) if not path.endswith("/") else ""
    if not name:
        for word in answer.headers.get("Content-Disposition", "").split(";"):
            key, _, value = word.strip().partition("=")
            if key.lower() == "filename":
                name = posixpath.basename(value.strip('"'))
    return "" if name in (".", "..") or "\0" in name else os.fsdecode(os.fsencode(name)[:NAME_MAX])


def _take(room: Room, size: int) -> None:
    try:
        room.take(size, 0)
    except NoRoom as error:
        raise SystemFailure(str(error)) from None


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
    if name in (".", "..") or "\0" in name or len(os.fsencode(name)) > NAME_MAX:
        raise InvalidArgument(f"{go_quote(name)} cannot be the name of a file")
    path = directory / name
    path.write_bytes(file.content.encode("utf-8", "surrogateescape"))
    path.chmod(0o644)
    os.utime(path, (0, 0))
    return name
