"""Write a directory tree as a tar stream: sorted, hard links kept, always the same bytes for the same tree. No path longer than a name.

Files may change meanwhile: each takes exactly the size its header says (cut, or filled with zeros).
Kept xattrs are those that mean something elsewhere: file capabilities, ACLs, user.*. Sockets cannot be archived, and are left out.
"""

import errno
import os
import stat
from collections.abc import Iterator
from typing import Final

from sampan.archive import writer
from sampan.archive.reader import BLOCKDEV, CHAR, DIRECTORY, FIFO, HARDLINK, REGULAR, SYMLINK

CHUNK: Final = 1 << 20
_MOVED_MIN: Final = 1 << 17
"""Bytes of a file worth a system call of its own."""
_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
KINDS: Final = {
    stat.S_IFREG: REGULAR,
    stat.S_IFDIR: DIRECTORY,
    stat.S_IFLNK: SYMLINK,
    stat.S_IFCHR: CHAR,
    stat.S_IFBLK: BLOCKDEV,
    stat.S_IFIFO: FIFO,
}
_XATTRS = (b"security.capability", b"system.posix_acl_access", b"system.posix_acl_default")
_CAPABILITIES = (b"security.capability",)
_NO_XATTR = (errno.ENOTSUP, errno.ENODATA, errno.ENOENT, errno.EPERM)


class Outlet:
    """A pipe that an archive goes into: small pieces together, the content of large files past this process."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._held: list[bytes] = []
        self._length = 0

    def write(self, piece: bytes) -> None:
        """The next piece. Raises BrokenPipeError, OSError."""
        self._held.append(piece)
        self._length += len(piece)
        if self._length >= CHUNK:
            self.flush()

    def flush(self) -> None:
        """Give out what is held."""
        view = memoryview(b"".join(self._held))
        self._held.clear()
        self._length = 0
        while view:
            view = view[os.write(self._fd, view) :]

    def move(self, file: int, size: int) -> int:
        """Give out bytes of a file from where it stands; how many: fewer than size when it ends before, or has to be read."""
        self.flush()
        left = size
        try:
            while left and (count := os.sendfile(self._fd, file, None, left)):
                left -= count
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
        return size - left


class Packer:
    """Makes the entries of one archive."""

    def __init__(self, clamp: int | None = None, outlet: Outlet | None = None, *, as_context: bool = False) -> None:
        """clamp: no entry is newer than this (seconds; SOURCE_DATE_EPOCH's meaning).

        outlet: where whoever asks for the pieces writes each of them before the next; what it can move is not among them.
        as_context: the archive is a build's context, as docker's client makes one: everything is root's, of xattrs there are only file
        capabilities, and headers take as many bytes as Go's, because the user is told how many are sent.
        """
        self._clamp = clamp
        self._outlet = outlet
        self._as_context = as_context
        self._xattrs = _CAPABILITIES if as_context else None
        self._links: dict[tuple[int, int], bytes] = {}
        """(device, inode) of files with several names -> the name the archive has them under"""

    def tree(self, parent: int, name: bytes, archived: bytes) -> Iterator[bytes]:
        """The entry `name` of directory descriptor `parent` and all below it, called `archived` in the archive.

        Raises OSError; what vanishes meanwhile is left out.
        """
        info = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if not stat.S_ISDIR(info.st_mode):
            yield from self.entry(parent, name, archived, info)
            return
        top = os.open(name, _DIRECTORY_FLAGS, dir_fd=parent)
        try:
            yield self.directory(top, archived, info)
            yield from self.below(top, archived)
        finally:
            os.close(top)

    def below(self, directory: int, archived: bytes) -> Iterator[bytes]:
        """Everything in a directory, which is called `archived` in the archive (b"" for the root of it)."""
        # not recursive: the depth is somebody else's choice
        stack = [(directory, archived, _names(directory))]
        try:
            while stack:
                here, prefix, names = stack[-1]
                child = next(names, None)
                if child is None:
                    stack.pop()
                    if stack:
                        os.close(here)
                    continue
                name = prefix + child if not prefix or prefix.endswith(b"/") else prefix + b"/" + child
                try:
                    info = os.stat(child, dir_fd=here, follow_symlinks=False)
                    fd = os.open(child, _DIRECTORY_FLAGS, dir_fd=here) if stat.S_ISDIR(info.st_mode) else -1
                except (FileNotFoundError, NotADirectoryError):
                    continue
                if fd < 0:
                    yield from self.entry(here, child, name, info)
                else:
                    stack.append((fd, name, _names(fd)))
                    yield self.directory(fd, name, info)
        finally:
            for fd, _, _ in stack[1:]:
                os.close(fd)

    def directory(self, fd: int, archived: bytes, info: os.stat_result) -> bytes:
        """The entry of an open directory."""
        name = archived if archived.endswith(b"/") else archived + b"/"
        return self._header(name, DIRECTORY, info, xattrs=xattrs_of(fd, self._xattrs) if os.listxattr(fd) else None)

    def entry(self, parent: int, name: bytes, archived: bytes, info: os.stat_result) -> Iterator[bytes]:
        """The entry of anything else, with its data."""
        kind = KINDS.get(stat.S_IFMT(info.st_mode))
        if kind is None:
            return
        if info.st_nlink > 1 and (known := self._links.get((info.st_dev, info.st_ino))) is not None:
            yield self._header(archived, HARDLINK, info, link=known, xattrs=self._linked_xattrs(parent, name, kind))
            return
        pieces = self._content(kind, parent, name, archived, info)
        for head in pieces:
            if info.st_nlink > 1:  # not before: a name that has vanished is in no archive, and nothing can be linked to it
                self._links[info.st_dev, info.st_ino] = archived
            yield head
            yield from pieces

    def _linked_xattrs(self, parent: int, name: bytes, kind: bytes) -> dict[bytes, bytes] | None:
        """A context has them with every name of a file."""
        if not self._as_context or kind != REGULAR:
            return None
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
        try:
            return xattrs_of(fd, self._xattrs) if os.listxattr(fd) else None
        finally:
            os.close(fd)

    def _content(self, kind: bytes, parent: int, name: bytes, archived: bytes, info: os.stat_result) -> Iterator[bytes]:
        """Its header and data; nothing when it has vanished."""
        if kind == REGULAR:
            yield from self._regular(parent, name, archived, info)
        elif kind == SYMLINK:
            try:
                target = os.readlink(name, dir_fd=parent)
            except OSError:
                return
            yield self._header(archived, kind, info, link=target)
        else:
            yield self._header(archived, kind, info, device=info.st_rdev if kind != FIFO else 0)

    def _regular(self, parent: int, name: bytes, archived: bytes, info: os.stat_result) -> Iterator[bytes]:
        try:
            # NONBLOCK: it may have become a fifo in between
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
        except (FileNotFoundError, OSError) as error:
            if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENXIO):
                return
            raise
        try:
            head = self._header(
                archived, REGULAR, info, size=info.st_size, xattrs=xattrs_of(fd, self._xattrs) if os.listxattr(fd) else None
            )
            left = info.st_size
            if self._outlet is not None and left >= _MOVED_MIN:
                yield head
                left -= self._outlet.move(fd, left)
            elif left <= CHUNK:  # most files: one piece
                content = os.read(fd, left) if left else b""
                if len(content) == left:
                    yield b"".join((head, content, writer.padding(left)))
                    return
                yield head
                yield content
                left -= len(content)
            else:
                yield head
            while left:
                piece = os.read(fd, min(left, CHUNK))
                if not piece:
                    break
                left -= len(piece)
                yield piece
            while left:  # it has become shorter
                yield bytes(min(left, CHUNK))
                left -= min(left, CHUNK)
            yield writer.padding(info.st_size)
        finally:
            os.close(fd)

    def _header(
        self,
        name: bytes,
        kind: bytes,
        info: os.stat_result,
        *,
        size: int = 0,
        link: bytes = b"",
        device: int = 0,
        xattrs: dict[bytes, bytes] | None = None,
    ) -> bytes:
        mtime = info.st_mtime_ns // 1_000_000_000
        return writer.header(
            name,
            kind,
            mode=stat.S_IMODE(info.st_mode),
            uid=0 if self._as_context else info.st_uid,
            gid=0 if self._as_context else info.st_gid,
            size=size,
            mtime=mtime if self._clamp is None else min(mtime, self._clamp),
            link=link,
            major=os.major(device),
            minor=os.minor(device),
            xattrs=xattrs,
            like_go=self._as_context,
        )


def _names(directory: int) -> Iterator[bytes]:
    return iter(sorted(map(os.fsencode, os.listdir(directory))))


def keeps(key: bytes | str) -> bool:
    """Whether an attribute of this name means something elsewhere."""
    key = os.fsencode(key)
    return key in _XATTRS or (key.startswith(b"user.") and not key.startswith(b"user.overlay."))


def xattrs_of(fd: int, only: tuple[bytes, ...] | None = None) -> dict[bytes, bytes]:
    """Those of an open file that mean something elsewhere; `only`: of these. Raises OSError."""
    found: dict[bytes, bytes] = {}
    for key in map(os.fsencode, os.listxattr(fd)):
        if only is not None and key not in only:
            continue
        if keeps(key):
            try:
                found[key] = os.getxattr(fd, key)
            except OSError as error:
                if error.errno not in _NO_XATTR:
                    raise
    return found


def blocks(pieces: Iterator[bytes], size: int = CHUNK) -> Iterator[bytes]:
    """The same bytes in pieces of at least `size` (but the last): one system call each, not one a file."""
    held: list[bytes] = []
    length = 0
    for piece in pieces:
        held.append(piece)
        length += len(piece)
        if length >= size:
            yield b"".join(held) if len(held) > 1 else piece
            held.clear()
            length = 0
    if held:
        yield b"".join(held)
