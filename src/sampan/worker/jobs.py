"""The job table. Each runs in a child of its own, with its arguments and its descriptors, and returns what JSON can hold."""

import errno
import fcntl
import gc
import hashlib
import os
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from sampan.archive import compression, gzipping, layerfile, recipe
from sampan.archive.apply import LayerApplier
from sampan.archive.reader import InvalidArchive, TarReader
from sampan.archive.recipe import RecipeWriter
from sampan.archive.room import Room
from sampan.archive.source import Source
from sampan.archive.trees import measure_tree, remove_tree
from sampan.linux.syncfs import syncfs
from sampan.worker import confine
from sampan.worker.budget import Budget

_PIPE_SIZE = 1 << 20
_F_SETPIPE_SZ = 1031
_RACES = 1000
_LOST = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EIO)
"""How reading a file of a layer fails when the file is not what it was."""
_MACHINE, _ARCHIVE = b"m", b"a"
"""Whose fault a decompressor's error is."""


def reader_of(fd: int) -> compression.Read:
    """What compression and Source read from."""
    return lambda limit: os.read(fd, limit)


class Damaged(Exception):
    """What is stored of a layer is not what was unpacked."""


class Decompressor:
    """A child without any rights that turns a compressed stream into a plain one. Its errors are kept apart from the reader's."""

    def __init__(self, kind: compression.Compression, head: bytes, archive: int, root_fd: int) -> None:
        self.output, output = os.pipe2(os.O_CLOEXEC)
        self._errors, errors = os.pipe2(os.O_CLOEXEC)
        with suppress(OSError):
            fcntl.fcntl(output, _F_SETPIPE_SZ, _PIPE_SIZE)
        parent = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            self._child(kind, head, (archive, root_fd, output, errors), parent)
        os.close(output)
        os.close(errors)

    @staticmethod
    def _child(kind: compression.Compression, head: bytes, fds: tuple[int, int, int, int], parent: int) -> None:
        archive, root_fd, output, errors = fds
        status = 1
        try:
            confine.die_with(parent)
            confine.close_others([archive, root_fd, output, errors])
            confine.into_nothing(root_fd)
            os.close(root_fd)
            budget = Budget()
            compressed = compression.prefixed(head, budget.metered(reader_of(archive)))
            read = budget.metered(compression.decompress_bounded(kind, compressed))
            while piece := read(_PIPE_SIZE):
                view = memoryview(piece)
                while view:
                    view = view[os.write(output, view) :]
            status = 0
        except BrokenPipeError:
            pass  # the reader gave up, and says why
        except BaseException as error:
            machine = isinstance(error, MemoryError | OSError)
            text = str(error) or type(error).__name__
            os.write(errors, (_MACHINE if machine else _ARCHIVE) + text.encode("utf-8", "backslashreplace")[:4096])
        finally:
            os._exit(status)

    def finish(self) -> Exception | None:
        """End it; returns its error: CompressionError when the archive is to blame, OSError when the machine is."""
        os.close(self.output)
        with os.fdopen(self._errors, "rb") as file:
            said = file.read()
        _, status = os.waitpid(self._pid, 0)
        text = said[1:].decode("utf-8", "replace")
        if said.startswith(_MACHINE):
            return OSError(text)
        if said:
            return compression.CompressionError(text)
        # killed or crashed by what it read: SIGPIPE is ignored in Python, so no other signal is harmless
        return compression.CompressionError("decompressor was killed") if os.WIFSIGNALED(status) else None


@contextmanager
def checked(child: Decompressor | None) -> Iterator[None]:
    """Leaving the block, in whatever way, asks the decompressor whether it was content: its error explains the reader's."""
    try:
        yield
    except Exception:
        if child is not None and (error := child.finish()) is not None:
            raise error from None
        raise
    if child is not None and (error := child.finish()) is not None:
        raise error


@contextmanager
def _plain(archive: int, root_fd: int, confinement: Callable[[], None]) -> Iterator[compression.Read]:
    """The plain bytes of a stream, read by a confined process."""
    head, read = compression.peek(reader_of(archive))
    kind = compression.detect(head)
    child = Decompressor(kind, head, archive, root_fd) if kind else None
    confinement()
    with checked(child):
        yield Budget().metered(read if child is None else reader_of(child.output))


def unpack(args: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """fds: the archive, the empty directory to fill, a file for its recipe. -> diff_id, size, entries. All is on disk when it returns."""
    archive, root_fd, recipe_fd = fds
    with _plain(archive, root_fd, lambda: confine.into_root(root_fd, confine.EXTRACT)) as read:
        source, room = Source(read), Room(root_fd)
        notes = RecipeWriter(recipe_fd)
        source.tee = room.asked(notes.raw)
        with LayerApplier(root_fd, room, notes) as applier:
            applied = applier.apply(TarReader(source))
        source.drain_padding()
        notes.finish()
    if not source.consumed:
        raise compression.CompressionError("unexpected EOF")
    syncfs(root_fd)
    return {"diff_id": "sha256:" + source.hexdigest(), "size": applied.size, "entries": applied.entries}


def index(args: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """fds: the archive, a new file, an empty directory. -> diff_id, size, entries. The file is a layer file, on disk when it returns."""
    archive, output, root_fd = fds
    gc.disable()  # a tree of inodes has no cycles
    with _plain(archive, root_fd, lambda: confine.into_nothing(root_fd, writes=True)) as read:
        result = layerfile.write(read, output, Room(output))
    if not result.tar_size:
        raise compression.CompressionError("unexpected EOF")
    return {"diff_id": "sha256:" + result.digest, "size": result.size, "entries": result.entries}


def usage(args: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """fds: a directory. -> size (bytes), inodes, disk (bytes)"""
    confine.into_root(fds[0], confine.READ)
    size, inodes, disk = measure_tree(fds[0])
    return {"size": size, "inodes": inodes, "disk": disk}


def empty(args: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """fds: a trash directory. Remove all that is in it. -> removed, left (counts). A line on stderr says what is left, and why."""
    confine.into_root(fds[0], confine.REMOVE)
    names = os.listdir(fds[0])
    left: list[OSError] = []
    for name in names:
        try:
            _remove(fds[0], name)
        except OSError as error:  # a mount, a flag that we may not take off: no reason to keep the others
            left.append(error)
    if left:
        print(f"worker: {len(left)} of {len(names)} trees stay in the trash: {left[0]}", file=sys.stderr, flush=True)
    return {"removed": len(names) - len(left), "left": len(left)}


def _remove(directory: int, name: str) -> None:
    for attempt in range(_RACES):
        try:
            remove_tree(directory, name)
            return
        except OSError as error:
            # a job of an engine that was killed may still be at it
            if attempt == _RACES - 1 or error.errno not in (errno.ENOENT, errno.ENOTEMPTY):
                raise


def archive(args: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """fds: a layer's directory, its recipe, where to write. args: diff_id. -> size. The tar is exactly what was unpacked."""
    root_fd, recipe_fd, output = fds
    confine.into_root(root_fd, confine.READ)
    return _copy_out(_stored(recipe.assemble(recipe_fd, root_fd)), output, args["diff_id"])


def archive_file(args: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """fds: a layer file, where to write, an empty directory. args: diff_id. -> size. The tar in it."""
    layer, output, root_fd = fds
    confine.into_nothing(root_fd, writes=True)
    return _copy_out(_stored(layerfile.tar_of(layer)), output, args["diff_id"])


def fold(args: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """fds: a new file, an empty directory, the directory of layer files. args: uuid (hex), names (top first), kept. -> entries.

    The file is one index of the tree that the layers come to, on disk when it returns.
    """
    output, root_fd, directory = fds
    gc.disable()
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(args["names"]) + 64,) * 2)
    layers = [os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory) for name in args["names"]]
    os.close(directory)
    confine.into_nothing(root_fd, writes=True)
    Budget().passed(sum(map(layerfile.tar_size, layers)))
    kept = frozenset(name.encode() for name in args["kept"])
    return {"entries": layerfile.fold(layers, output, Room(output), bytes.fromhex(args["uuid"]), kept)}


def _stored(pieces: Iterator[memoryview | bytes]) -> Iterator[memoryview | bytes]:
    """Of what we once wrote ourselves: whatever is wrong with it has happened since. Raises Damaged, other OSErrors."""
    try:
        yield from pieces
    except InvalidArchive as error:
        raise Damaged(str(error)) from error
    except OSError as error:
        if error.errno not in _LOST:
            raise
        name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else "a file"
        raise Damaged(f"{name}: {os.strerror(error.errno or 0).lower()}") from error


def _copy_out(pieces: Iterator[memoryview | bytes], output: int, diff_id: str) -> dict[str, Any]:
    digest = hashlib.sha256()
    size = 0
    for piece in pieces:
        digest.update(piece)
        size += len(piece)
        view = memoryview(piece)
        while view:
            view = view[os.write(output, view) :]
    if "sha256:" + digest.hexdigest() != diff_id:
        raise Damaged("the layer's files are not what was unpacked: its archive cannot be made again")
    return {"size": size}


def compress(args: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """fds: a pipe with a tar, the file to write, an empty directory. -> digest and size of what was written: the tar, gzipped."""
    source, output, root_fd = fds
    confine.into_nothing(root_fd, writes=True)
    room, digest, size = Room(output), hashlib.sha256(), 0
    for piece in gzipping.compressed(reader_of(source)):
        room.take(len(piece), 0)
        digest.update(piece)
        size += len(piece)
        view = memoryview(piece)
        while view:
            view = view[os.write(output, view) :]
    return {"digest": "sha256:" + digest.hexdigest(), "size": size}


def archive_size(args: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """fds: a recipe, an empty directory. -> size of the tar it makes."""
    recipe_fd, root_fd = fds
    confine.into_nothing(root_fd)
    return {"size": recipe.archive_size(recipe_fd)}


JOBS: dict[str, Callable[[dict[str, Any], list[int]], dict[str, Any]]] = {
    "unpack": unpack,
    "index": index,
    "fold": fold,
    "archive": archive,
    "archive_file": archive_file,
    "archive_size": archive_size,
    "compress": compress,
    "usage": usage,
    "empty": empty,
}
