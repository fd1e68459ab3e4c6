"""The job table. Each runs in a child of its own, with its arguments and its descriptors, and returns what JSON can hold."""

import errno
import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from sampan.archive import compression, recipe
from sampan.archive.apply import LayerApplier
from sampan.archive.reader import TarReader
from sampan.archive.recipe import RecipeWriter
from sampan.archive.source import Source
from sampan.archive.trees import measure_tree, remove_tree
from sampan.linux.syncfs import syncfs
from sampan.worker import confine

_PIPE_SIZE = 1 << 20
_F_SETPIPE_SZ = 1031
_RACES = 1000


def reader_of(fd: int) -> compression.Read:
    """What compression and Source read from."""
    return lambda limit: os.read(fd, limit)


class Decompressor:
    """A child without any rights that turns a compressed stream into a plain one. Its errors are kept apart from the reader's."""

    def __init__(self, kind: compression.Compression, head: bytes, archive: int, root_fd: int) -> None:
        import fcntl

        self.output, output = os.pipe2(os.O_CLOEXEC)
        self._errors, errors = os.pipe2(os.O_CLOEXEC)
        with suppress(OSError):
            fcntl.fcntl(output, _F_SETPIPE_SZ, _PIPE_SIZE)
        self._pid = os.fork()
        if self._pid == 0:
            self._child(kind, head, archive, root_fd, output, errors)
        os.close(output)
        os.close(errors)

    @staticmethod
    def _child(kind: compression.Compression, head: bytes, archive: int, root_fd: int, output: int, errors: int) -> None:
        status = 1
        try:
            confine.close_others([archive, root_fd, output, errors])
            confine.into_nothing(root_fd)
            os.close(root_fd)
            read = compression.decompress(kind, compression.prefixed(head, reader_of(archive)))
            while piece := read(_PIPE_SIZE):
                view = memoryview(piece)
                while view:
                    view = view[os.write(output, view) :]
            status = 0
        except BrokenPipeError:
            pass  # the reader gave up, and says why
        except BaseException as error:
            os.write(errors, str(error).encode()[:4096])
        finally:
            os._exit(status)

    def finish(self) -> str:
        """End it; returns its error, or an empty text."""
        os.close(self.output)
        with os.fdopen(self._errors, "rb") as file:
            text = file.read().decode("utf-8", "replace")
        _, status = os.waitpid(self._pid, 0)
        # killed or crashed by what it read: SIGPIPE is ignored in Python, so no other signal is harmless
        return text or ("decompressor was killed" if os.WIFSIGNALED(status) else "")


def unpack(args: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """fds: the archive, the empty directory to fill, a file for its recipe. -> diff_id, size, entries. All is on disk when it returns."""
    archive, root_fd, recipe_fd = fds
    head, read = compression.peek(reader_of(archive))
    kind = compression.detect(head)
    child = Decompressor(kind, head, archive, root_fd) if kind else None
    confine.into_root(root_fd)
    source = Source(read if child is None else reader_of(child.output))
    notes = RecipeWriter(recipe_fd)
    source.tee = notes.raw
    try:
        with LayerApplier(root_fd, notes) as applier:
            applied = applier.apply(TarReader(source))
        source.drain()
        notes.finish()
    except Exception:
        if child is not None and (text := child.finish()):
            raise compression.CompressionError(text) from None
        raise
    if child is not None and (text := child.finish()):
        raise compression.CompressionError(text)
    if not source.consumed:
        raise compression.CompressionError("unexpected EOF")
    syncfs(root_fd)
    return {"diff_id": "sha256:" + source.hexdigest(), "size": applied.size, "entries": applied.entries}


def usage(args: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """fds: a directory. -> size (bytes), inodes, disk (bytes)"""
    confine.into_root(fds[0])
    size, inodes, disk = measure_tree(fds[0])
    return {"size": size, "inodes": inodes, "disk": disk}


def empty(args: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """fds: a trash directory. Remove all that is in it. -> removed (count)"""
    confine.into_root(fds[0])
    names = os.listdir(fds[0])
    for name in names:
        for attempt in range(_RACES):
            try:
                remove_tree(fds[0], name)
                break
            except OSError as error:
                # a job of an engine that was killed may still be at it
                if attempt == _RACES - 1 or error.errno not in (errno.ENOENT, errno.ENOTEMPTY):
                    raise
    return {"removed": len(names)}


def archive(args: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """fds: a layer's directory, its recipe, where to write. args: diff_id. -> size. The tar is exactly what was unpacked."""
    root_fd, recipe_fd, output = fds
    confine.into_root(root_fd)
    digest = hashlib.sha256()
    size = 0
    for piece in recipe.assemble(recipe_fd, root_fd):
        digest.update(piece)
        size += len(piece)
        view = memoryview(piece)
        while view:
            view = view[os.write(output, view) :]
    if "sha256:" + digest.hexdigest() != args["diff_id"]:
        raise OSError("the layer's files are not what was unpacked: its archive cannot be made again")
    return {"size": size}


JOBS: dict[str, Callable[[dict[str, Any], list[int]], dict[str, Any]]] = {
    "unpack": unpack,
    "archive": archive,
    "usage": usage,
    "empty": empty,
}
