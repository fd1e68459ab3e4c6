"""The tar of a build's context: a directory without what .dockerignore excludes; and a Dockerfile added to a tar.

Nothing is held in memory but one piece and the names of the directories on the way; links are never followed.
"""

from __future__ import annotations

import os
import stat

from sampan.archive import writer
from sampan.archive.pack import Packer, blocks
from sampan.archive.reader import DIRECTORY, REGULAR, InvalidArchive, TarReader
from sampan.archive.source import Source, TruncatedArchive
from sampan.cli.http import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from sampan.dockerignore import Matcher

_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_IGNORE_MAX = 1 << 24
"""Bytes of a .dockerignore within a tar."""


def directory_tar(root: str, matcher: Matcher) -> Iterator[bytes]:
    """The directory's tar in pieces of a megabyte or so. Raises CliError for what cannot be read."""
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield from blocks(_entries(fd, root, matcher))
    finally:
        os.close(fd)
    yield writer.END


def _entries(root: int, shown: str, matcher: Matcher) -> Iterator[bytes]:
    packer = Packer(as_context=True)
    # not recursive: the depth is somebody else's choice
    stack: list[tuple[int, str, Iterator[str], tuple[bool, ...] | None]] = [(root, "", _names(root, shown), None)]
    try:
        while stack:
            here, prefix, names, parent = stack[-1]
            name = next(names, None)
            if name is None:
                stack.pop()
                if stack:
                    os.close(here)
                continue
            path = prefix + name
            excluded, verdicts = matcher.step(path, parent)
            try:
                info = os.stat(name, dir_fd=here, follow_symlinks=False)
                if not stat.S_ISDIR(info.st_mode):
                    if not excluded:
                        yield from packer.entry(here, os.fsencode(name), os.fsencode(path), info)
                    continue
                if excluded and not matcher.may_include_below(path):
                    continue
                fd = os.open(name, _DIRECTORY_FLAGS, dir_fd=here)
            except (FileNotFoundError, NotADirectoryError):
                continue  # it has gone meanwhile
            except PermissionError:
                raise _unreadable(here, name, f"{shown}/{path}") from None
            except OSError as error:
                raise CliError(f"error checking context: open {shown}/{path}: {(error.strerror or '').lower()}") from None
            stack.append((fd, path + "/", _names(fd, f"{shown}/{path}"), verdicts))
            if not excluded:
                yield packer.directory(fd, os.fsencode(path), info)
    finally:
        for fd, *_ in stack[1:]:
            os.close(fd)


def _names(fd: int, shown: str) -> Iterator[str]:
    try:
        return iter(sorted(os.listdir(fd), key=os.fsencode))
    except PermissionError:
        raise CliError(f"error checking context: can't stat '{shown}'") from None


def _unreadable(here: int, name: str, shown: str) -> CliError:
    try:
        directory = stat.S_ISDIR(os.stat(name, dir_fd=here, follow_symlinks=False).st_mode)
    except OSError:
        directory = True
    what = "can't stat" if directory else "no permission to read from"
    return CliError(f"error checking context: {what} '{shown}'")


def gzipped(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The stream compressed."""
    from sampan.archive.gzipping import compressed

    held = b""

    def read(limit: int) -> bytes:
        nonlocal held
        piece = held or next(pieces, b"")
        held = piece[limit:]
        return piece[:limit]

    return compressed(read)


def file_tar(name: str, content: bytes, mtime: int) -> Iterator[bytes]:
    """A tar of one file."""
    yield writer.header(name.encode(), REGULAR, mode=0o644, size=len(content), mtime=mtime)
    yield content + writer.padding(len(content)) + writer.END


def with_dockerfile(pieces: Iterator[bytes], name: str, content: bytes, mtime: int) -> Iterator[bytes]:
    """The archive with a Dockerfile called `name` at its end, which its .dockerignore excludes from what is built. Raises CliError."""
    try:
        yield from blocks(_added(pieces, name, content, mtime))
    except (InvalidArchive, TruncatedArchive) as error:
        raise CliError(f"unable to prepare context: {error}") from None
    yield writer.END


def _added(pieces: Iterator[bytes], name: str, content: bytes, mtime: int) -> Iterator[bytes]:
    reader = TarReader(Source(lambda _: next(pieces, b""), hashed=False))
    ignore = b".dockerignore"
    for entry in reader:
        if entry.sparse is not None:
            raise InvalidArchive("sparse files cannot be passed on")
        body = b""
        size = entry.size
        if entry.name == b".dockerignore" and entry.type == REGULAR and ignore:
            if entry.size > _IGNORE_MAX:
                raise InvalidArchive("the .dockerignore is too large")
            body, ignore = b"".join(reader.data()) + f"\n{name}\n".encode(), b""
            size = len(body)
        path = entry.name if entry.type != DIRECTORY or entry.name.endswith(b"/") else entry.name + b"/"
        yield writer.header(
            path,
            entry.type,
            mode=entry.mode,
            uid=entry.uid,
            gid=entry.gid,
            size=size,
            mtime=entry.mtime_ns // 1_000_000_000,
            link=entry.link,
            major=entry.major,
            minor=entry.minor,
            xattrs=entry.xattrs,
            like_go=True,
        )
        if body:
            yield body
        else:
            yield from map(bytes, reader.data())
        yield writer.padding(size)
    if ignore:
        yield from _small(".dockerignore", b".dockerignore\n" + name.encode() + b"\n", mtime)
    yield from _small(name, content, mtime)


def _small(name: str, content: bytes, mtime: int) -> Iterator[bytes]:
    yield writer.header(name.encode(), REGULAR, mode=0o600, size=len(content), mtime=mtime)
    yield content + writer.padding(len(content))
