"""COPY: files of one tree into another that is the current root. Docker makes a tar in between; its rules are kept, the tar is not made.

A source directory's contents merge into the destination; what is in the way of something else is replaced; missing parents are made,
0755. The source is reached by its descriptor alone, its names resolved within it (moby builder/dockerfile/copy.go, go-archive).
"""

import errno
import os
import posixpath
import stat
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from sampan.archive.apply import Reader, write_all
from sampan.archive.extract import TreeExtractor
from sampan.archive.pack import KINDS, xattrs_of
from sampan.archive.reader import CHAR, DIRECTORY, HARDLINK, REGULAR, SYMLINK, Entry
from sampan.archive.room import Room
from sampan.archive.sources import Source, SourceError, pivot, real_path
from sampan.linux.openat2 import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, openat2
from sampan.linux.permissions import Permissions

_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CHUNK: Final = 1 << 20
_RESOLVE = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS

Owner = tuple[int, int]


class Unfit(Exception):
    """Docker's words for a destination that cannot be one."""


class Options:
    """How files are to arrive."""

    def __init__(
        self,
        *,
        owner: Owner | None,
        chmod: Callable[[int, bool], int] | None = None,
        excluded: Callable[[str], bool] | None = None,
        clamp: int | None = None,
    ) -> None:
        """owner: of everything, None: as they were. chmod: a new mode of the old one, told whether it is a directory.

        excluded: of paths below the source, without a leading slash. clamp: no file is newer (seconds).
        """
        self.owner, self.chmod, self.excluded, self.clamp = owner, chmod, excluded, clamp


class TreeReader:
    """Files below a descriptor as members of an archive that is never made."""

    def __init__(self, root: int, options: Options) -> None:
        self._root = root
        self._options = options
        self._links: dict[tuple[int, int], bytes] = {}
        self._file: tuple[int, bytes] | None = None
        self._queue: list[tuple[str, bytes, bool]] = []

    def add(self, source: str, name: bytes, *, contents: bool) -> None:
        """Queue a file, or (contents) what is in a directory, under a name."""
        self._queue.append((source, name, contents))

    def __iter__(self) -> Iterator[Entry]:
        for source, name, contents in self._queue:
            parent_path, _, base = source.rpartition("/")
            parent = openat2(self._root, os.fsencode(source if contents else parent_path) or b".", _DIRECTORY_FLAGS, resolve=_RESOLVE)
            try:
                if contents:
                    yield from self._below(parent, name)
                else:
                    yield from self._entry(parent, os.fsencode(base), name)
            finally:
                os.close(parent)

    def moved(self, file: int, limit: int) -> int:
        """Nothing: data() gives all of it."""
        del file, limit
        return 0

    def _below(self, top: int, prefix: bytes) -> Iterator[Entry]:
        stack = [(os.dup(top), b"", iter(_names(top)))]
        try:
            while stack:
                here, path, names = stack[-1]
                child = next(names, None)
                if child is None:
                    stack.pop()
                    os.close(here)
                    continue
                inner = path + child
                if self._options.excluded is not None and self._options.excluded(os.fsdecode(inner)):
                    continue
                yield from self._entry(here, child, prefix + inner)
                info = os.stat(child, dir_fd=here, follow_symlinks=False)
                if stat.S_ISDIR(info.st_mode):
                    fd = os.open(child, _DIRECTORY_FLAGS | os.O_NOFOLLOW, dir_fd=here)
                    stack.append((fd, inner + b"/", iter(_names(fd))))
        finally:
            for fd, _, _ in stack:
                os.close(fd)

    def _entry(self, parent: int, base: bytes, name: bytes) -> Iterator[Entry]:
        info = os.stat(base, dir_fd=parent, follow_symlinks=False)
        kind = KINDS.get(stat.S_IFMT(info.st_mode))
        if kind is None or (kind == CHAR and not info.st_rdev):  # sockets; an overlay's own whiteouts
            return
        if info.st_nlink > 1 and kind != DIRECTORY:
            known = self._links.get((info.st_dev, info.st_ino))
            if known is not None:
                yield self._changed(Entry.of_file(name, HARDLINK, info, known), info)
                return
            self._links[info.st_dev, info.st_ino] = name
        link = os.readlink(base, dir_fd=parent) if kind == SYMLINK else b""
        entry = self._changed(Entry.of_file(name, kind, info, link), info)
        if kind in (REGULAR, DIRECTORY):
            fd = os.open(base, _FILE_FLAGS, dir_fd=parent)
            try:
                if os.listxattr(fd):
                    entry.xattrs = xattrs_of(fd)
            finally:
                os.close(fd)
        self._file = (parent, base)
        yield entry

    def _changed(self, entry: Entry, info: os.stat_result) -> Entry:
        if self._options.owner is not None and stat.S_ISREG(info.st_mode):
            entry.mode &= ~(stat.S_ISUID | (stat.S_ISGID if entry.mode & stat.S_IXGRP else 0))  # as chown(2) leaves it
        if self._options.chmod is not None and not stat.S_ISLNK(info.st_mode):
            entry.mode = self._options.chmod(entry.mode, stat.S_ISDIR(info.st_mode))
        if self._options.clamp is not None:
            entry.mtime_ns = min(entry.mtime_ns, self._options.clamp * 1_000_000_000)
        return entry

    def open(self) -> int:
        """The current entry's file, for reading. The caller closes it."""
        assert self._file is not None
        parent, base = self._file
        return os.open(base, _FILE_FLAGS, dir_fd=parent)

    def data(self) -> Iterator[memoryview]:
        """The current entry's content."""
        fd = self.open()
        try:
            while piece := os.read(fd, _CHUNK):
                yield memoryview(piece)
        finally:
            os.close(fd)


def _names(directory: int) -> list[bytes]:
    return sorted(map(os.fsencode, os.listdir(directory)))


class _Copier(TreeExtractor):
    """Writes what a TreeReader reads, without taking the bytes through this process where the kernel can do it alone."""

    def _fill(self, fd: int, entry: Entry, reader: Reader) -> None:
        assert isinstance(reader, TreeReader)
        source = reader.open()
        try:
            while os.sendfile(fd, source, None, _CHUNK):
                pass
        except OSError:
            os.lseek(source, os.lseek(fd, 0, os.SEEK_CUR), os.SEEK_SET)
            while piece := os.read(source, _CHUNK):
                write_all(fd, memoryview(piece))
        finally:
            os.close(source)


class Destination:
    """Where files go in the current root."""

    def __init__(self, path: str, permissions: Permissions, room: Room) -> None:
        """path: absolute; a trailing slash says that it is a directory."""
        self._root = os.open("/", _DIRECTORY_FLAGS)
        self._path = path
        self._permissions = permissions
        self._room = room

    def copy(self, tree: int, source: Source, options: Options) -> None:
        """Copy one source of the tree with this descriptor. Raises Unfit, OSError, InvalidArchive, NoRoom."""
        place, there = self._resolved()
        reader = TreeReader(tree, options)
        if source.directory:
            if there and not os.path.isdir("/" + place):
                raise Unfit(f"failed to copy directory: mkdir /{place}: not a directory")
            self._make(place, options.owner, only_last=True)
            reader.add(source.real, b"", contents=True)
            self._write(place, reader, options.owner)
            return
        name = posixpath.basename(source.path)
        if self._path.endswith("/") and there and not os.path.isdir("/" + place):
            raise Unfit(f"failed to create new directory: mkdir /{place}: not a directory")
        if self._path.endswith("/") or os.path.isdir("/" + place):
            place = real_path(posixpath.join("/", place, name))
        parent, _, base = place.rpartition("/")
        self._make(parent, options.owner, only_last=False)
        reader.add(source.real, os.fsencode(base), contents=False)
        self._write(parent, reader, options.owner)

    def copy_with_parents(self, tree: int, source: Source, kept: str, options: Options) -> None:
        """Copy one source to `kept`, its path below the destination; the directories in between are as they are in the source's tree."""
        place = self._directory()
        self._make(place, options.owner, only_last=True)
        reader = TreeReader(tree, options)
        if not kept:
            reader.add(source.real, b"", contents=True)
            self._write(place, reader, options.owner)
            return
        parts = kept.split("/")
        outer = source.path.split("/")[: -len(parts)]
        for depth in range(1, len(parts)):
            reader.add("/".join([*outer, *parts[:depth]]), os.fsencode("/".join(parts[:depth])), contents=False)
        reader.add(source.real, os.fsencode(kept), contents=False)
        if source.directory:
            reader.add(source.real, os.fsencode(kept) + b"/", contents=True)
        self._write(place, reader, options.owner)

    def extract(self, reader: Reader) -> None:
        """ADD's archives: as they are, owners and all. Raises as copy()."""
        place = self._directory()
        self._make(place, None, only_last=True)
        fd = openat2(self._root, os.fsencode(place) or b".", _DIRECTORY_FLAGS, resolve=_RESOLVE)
        try:
            with TreeExtractor(fd, self._room, permissions=self._permissions) as extractor:
                extractor.apply(reader)
        finally:
            os.close(fd)

    def make(self, owner: Owner | None) -> None:
        """The destination as a directory, where it is missing. Raises Unfit, NotADirectoryError."""
        place, there = self._resolved()
        if there and not os.path.isdir("/" + place):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), place)
        self._make(place, owner, only_last=False)

    def _resolved(self) -> tuple[str, bool]:
        """Where the destination really is, and whether anything is there. Raises Unfit."""
        try:
            place = real_path(self._path)
            os.lstat("/" + place)
        except SourceError:
            raise Unfit(f"evalSymlinksInScope: too many links in {self._path.rstrip('/') or '/'}") from None
        except FileNotFoundError:
            return place, False
        except NotADirectoryError:
            raise Unfit(f"lstat /{place}: not a directory") from None
        return place, True

    def _directory(self) -> str:
        """Where it really is; what is there is a directory. Raises Unfit."""
        place, there = self._resolved()
        if there and not os.path.isdir("/" + place):
            raise Unfit(f"mkdir /{place}: not a directory")
        return place

    def _make(self, place: str, owner: Owner | None, *, only_last: bool) -> None:
        """Make a directory and its parents, 0755, the new ones (or only the last) the owner's."""
        parts = [part for part in place.split("/") if part]
        for depth in range(1, len(parts) + 1):
            path = "/" + "/".join(parts[:depth])
            self._room.take(0, 1)
            try:
                os.mkdir(path, 0o755)
            except FileExistsError:
                continue
            os.chmod(path, 0o755)
            if owner is not None and (not only_last or depth == len(parts)):
                os.chown(path, *owner, follow_symlinks=False)

    def _write(self, place: str, reader: TreeReader, owner: Owner | None) -> None:
        fd = openat2(self._root, os.fsencode(place) or b".", _DIRECTORY_FLAGS, resolve=_RESOLVE)
        try:
            with _Copier(fd, self._room, owner=owner, permissions=self._permissions) as copier:
                copier.apply(reader)
        finally:
            os.close(fd)


def kept_path(pattern: str, path: str) -> str:
    """With --parents: what of a found path is made below the destination; `/./` in the pattern says where that begins."""
    before = pivot(pattern)[0]
    return "/".join(path.split("/")[before.count("/") + 1 :]) if before else path


def ordered(sources: Sequence[Source]) -> list[Source]:
    """As they were found; the same one twice is copied once."""
    return list(dict.fromkeys(sources))
