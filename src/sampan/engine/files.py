"""Use cases on containers' files: docker cp (stat, archive, extract), diff, export."""

import asyncio
import os
import stat
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

from sampan.clock import rfc3339nano
from sampan.engine import mounting
from sampan.engine.containerstore import Container, Containers
from sampan.engine.pipes import WorkerStream, feed, through_pipe
from sampan.engine.trees import Trees
from sampan.errors import NotFound
from sampan.spec.docker_api.container import PathChange, PathStat
from sampan.streams import Piece

_GO_TYPES = {stat.S_IFDIR: 1 << 31, stat.S_IFLNK: 1 << 27, stat.S_IFBLK: 1 << 26, stat.S_IFIFO: 1 << 25, stat.S_IFSOCK: 1 << 24,
             stat.S_IFCHR: 1 << 26 | 1 << 21}  # fmt: skip
_GO_BITS = {stat.S_ISUID: 1 << 23, stat.S_ISGID: 1 << 22, stat.S_ISVTX: 1 << 20}


def go_file_mode(mode: int) -> int:
    """st_mode in the bits of Go's os.FileMode."""
    bits = sum(go for unix, go in _GO_BITS.items() if mode & unix)
    return _GO_TYPES.get(stat.S_IFMT(mode), 0) | bits | (mode & 0o777)


def _shown(found: dict[str, Any]) -> PathStat:
    return PathStat(
        name=_text(found["name"]),
        size=found["size"],
        mode=go_file_mode(found["mode"]),
        mtime=rfc3339nano(found["mtime_ns"]),
        link_target=_text(found["link_target"]),
    )


def _text(name: str) -> str:
    """A file's name as JSON can hold it: what is not UTF-8 becomes U+FFFD, as in Go."""
    return os.fsencode(name).decode("utf-8", "replace")


class FileService:
    """See api/services.py for the contract of each method."""

    def __init__(self, containers: Containers, trees: Trees, publish: Callable[[Container, str], None]) -> None:
        self._containers = containers
        self._trees = trees
        self._publish = publish

    async def stat_path(self, ref: str, path: str) -> PathStat:
        """What is at a path in a container. Raises NotFound."""
        container = self._containers.find(ref)
        return _shown(await self._job(ref, path, self._trees.run(container, "path_stat", {"path": path}, [])))

    @staticmethod
    async def _job(ref: str, path: str, work: Awaitable[dict[str, Any]]) -> dict[str, Any]:
        try:
            return await work
        except NotFound:
            raise NotFound(f"Could not find the file {path} in container {ref}") from None

    async def archive(self, ref: str, path: str) -> tuple[PathStat, AsyncIterator[Piece]]:
        """A path as a tar stream, and what is at it. Raises NotFound."""
        container = self._containers.find(ref)
        told: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

        def tell(progress: dict[str, Any]) -> None:
            if not told.done():
                told.set_result(progress["stat"])

        def run(fd: int) -> Coroutine[Any, Any, dict[str, Any]]:
            return self._trees.run(container, "path_read", {"path": path}, [fd], tell)

        stream = WorkerStream(run)
        try:
            await asyncio.wait((told, stream.task), return_when=asyncio.FIRST_COMPLETED)
            if not told.done():
                await self._job(ref, path, stream.task)
            found = _shown(told.result())
        except BaseException:
            told.cancel()
            await stream.close()
            raise
        self._publish(container, "archive-path")
        return found, stream.pieces()

    async def extract(self, ref: str, path: str, source: AsyncIterable[bytes], *, replace: bool, as_user: bool) -> None:
        """Extract a tar stream (compressed or not) into a directory. Raises NotFound, InvalidArgument."""
        container = self._containers.find(ref)
        host = container.host_config
        mounts = [
            {"destination": mount.destination, "rw": not mount.readonly if isinstance(mount, mounting.BindMount) else True}
            for mount in mounting.mounts_of_stored(host)
            if isinstance(mount, mounting.BindMount) or container.is_running
        ]
        args = {
            "path": path,
            "user": container.config.user if as_user else "",
            "replace": replace,
            "readonly": host.readonly_rootfs,
            "mounts": mounts,
        }
        nowhere = self._trees.nowhere(container)
        try:
            await through_pipe(
                feed(source), lambda archive: self._job(ref, path, self._trees.run(container, "path_write", args, [archive, nowhere]))
            )
        finally:
            os.close(nowhere)
        self._publish(container, "extract-to-dir")

    async def changes(self, ref: str) -> list[PathChange]:
        """How the container's files differ from its image's, by path."""
        container = self._containers.find(ref)
        found: list[PathChange] = []

        def tell(progress: dict[str, Any]) -> None:
            found.extend(PathChange(path=_text(path), kind=kind) for kind, path in progress["changes"])

        await self._trees.run(container, "tree_changes", {}, [], tell)
        return sorted(found, key=lambda change: change.path)

    async def export(self, ref: str) -> AsyncIterator[Piece]:
        """The container's whole root file system as a tar stream."""
        container = self._containers.find(ref)
        started: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def tell(progress: dict[str, Any]) -> None:
            if not started.done():
                started.set_result(None)

        stream = WorkerStream(lambda fd: self._trees.run(container, "tree_export", {}, [fd], tell))
        try:
            await asyncio.wait((started, stream.task), return_when=asyncio.FIRST_COMPLETED)
            if not started.done():
                await stream.task
        except BaseException:
            started.cancel()
            await stream.close()
            raise
        self._publish(container, "export")
        return stream.pieces()
