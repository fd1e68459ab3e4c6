"""COPY, ADD and WORKDIR: files come from a context, a stage or an image into a stage's tree, and are a layer of it."""

import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from sampan import dockerignore
from sampan.archive import sources
from sampan.archive.sources import ListedNames, Source
from sampan.engine.buildspool import Tree, Workspace, opened
from sampan.engine.buildsteps import Layer
from sampan.engine.images import ImageService
from sampan.engine.pipes import WorkerStream
from sampan.errors import EngineError, InvalidArgument
from sampan.image.store import Image
from sampan.snapshot.api import Mounts, Snapshots
from sampan.streams import Piece
from sampan.worker.client import WorkerPool

SourceImage = Callable[[str], Awaitable[Image | None]]
"""The image of a stage by its name or number, or of an image's name: `--from`."""


class Found(NamedTuple):
    """What sources are."""

    sources: list[Source]
    hash: str
    """Of them all."""
    beside: str
    """A hash of what the hash does not tell."""

    def identity(self, *, parents: bool = False) -> str:
        """What else the cache tells them by: what the hash leaves out, and the names they get. parents: these have what was asked for."""
        names = [[source.path, source.pattern] if parents else [source.path] for source in self.sources]
        return json.dumps([self.beside, names])


class Group(NamedTuple):
    """Sources of one instruction that are in one tree."""

    tree: Tree
    found: Found
    unpack: bool
    """Whether archives among them are unpacked."""
    later: Callable[[], Awaitable[Tree]] | None = None
    """Gets the tree, which is not there yet."""

    async def ready(self) -> "Group":
        """The same with its tree there. Raises EngineErrors."""
        return self if self.later is None else self._replace(tree=await self.later(), later=None)


class CopyRequest(NamedTuple):
    """How to copy."""

    destination: str
    chown: str | None
    """None: owners as they are; "": root."""
    chmod: str
    exclude: Sequence[str]
    parents: bool
    link: bool
    """Into a layer of its own: nothing of the image below is looked at."""
    epoch: int | None


class Copies:
    """Runs the workers' jobs of COPY."""

    def __init__(self, images: ImageService, snapshots: Snapshots, workers: WorkerPool, empty: Sequence[str]) -> None:
        """empty: two directories with nothing in them."""
        self._images = images
        self._snapshots = snapshots
        self._workers = workers
        self._empty = empty

    @asynccontextmanager
    async def _lowers(self, image: Image | None) -> AsyncIterator[Mounts]:
        if image is None or image.chain_id is None:
            yield Mounts(tuple(self._empty))
            return
        with self._images.pinned(image.chain), await self._snapshots.view(image.chain_id) as mounts:
            yield mounts

    @asynccontextmanager
    async def _source(self, tree: Tree, fds: list[int]) -> AsyncIterator[dict[str, Any]]:
        """The jobs' `source` and `sums` arguments; fds gets what they name."""
        if tree.directory is not None:
            directory = await tree.directory()
            fds.append(directory.fd)
            found: dict[str, Any] = {"source": {"tree": len(fds) - 1}, "sums": None}
            if directory.sums >= 0:
                fds.append(directory.sums)
                found["sums"] = len(fds) - 1
            yield found
            return
        async with self._lowers(tree.image) as mounts:
            yield {"source": {"lowers": _indexed(mounts, fds)}, "sums": None}

    async def find(self, tree: Tree, patterns: Sequence[str], *, wildcards: bool = True, parents: bool = False) -> Found:
        """What the sources of a COPY are, and the hash of them all. Raises InvalidArgument in docker's words."""
        if tree.names is not None and tree.names.is_quick(patterns):
            with suppress(sources.HashedLater):
                return _found(tree.names, patterns, wildcards=wildcards, parents=parents)
        fds: list[int] = []
        async with self._source(tree, fds) as source:
            args = {**source, "patterns": list(patterns), "wildcards": wildcards, "parents": parents}
            result = await self._workers.run("build_sources", args, fds)
        return Found([Source(*item) for item in result["sources"]], result["hash"], result["beside"])

    async def copy(self, workspace: Workspace, parent: Image | None, groups: Sequence[Group], request: CopyRequest) -> Layer:
        """The layer that a COPY adds. Raises InvalidArgument, SystemFailure; then nothing is left."""
        args = {
            "destination": request.destination,
            "chown": request.chown,
            "chmod": request.chmod,
            "exclude": list(request.exclude),
            "parents": request.parents,
            "clamp": request.epoch,
        }
        below = None if request.link else parent

        async def write(writer: int) -> None:
            fds = [writer, workspace.nowhere]
            async with AsyncExitStack() as stack:
                told = []
                for group in groups:
                    source = await stack.enter_async_context(self._source(group.tree, fds))
                    told.append({"source": source["source"], "sources": group.found.sources, "unpack": group.unpack})
                view = await stack.enter_async_context(self._view(below, fds))
                await self._workers.stream("build_copy", {**args, "groups": told, "view": view}, fds)

        return await self._layer(parent, write)

    async def squash(self, base: Image | None, image: Image, epoch: int | None) -> Layer:
        """One layer for all those of an image above a base's."""

        async def write(writer: int) -> None:
            fds = [writer]
            async with self._lowers(base) as old, self._lowers(image) as new:
                args = {"old": {"lowers": _indexed(old, fds)}, "new": {"lowers": _indexed(new, fds)}, "clamp": epoch}
                await self._workers.stream("build_squash", args, fds)

        return await self._layer(image, write)

    @asynccontextmanager
    async def export(self, image: Image) -> AsyncIterator[AsyncIterator[Piece]]:
        """An image's whole tree as a tar stream."""
        async with self._lowers(image) as mounts:

            async def write(writer: int) -> dict[str, Any]:
                fds = [writer]
                args = {"lowers": _indexed(mounts, fds)}
                return await self._workers.stream("build_export", args, fds)

            stream = WorkerStream(write)
            try:
                yield stream.pieces()
            finally:
                await stream.close()

    async def fill(self, tree: Tree, path: str, place: Path, *, directory: bool, own: bool = False) -> None:
        """Copy a file, or what is in a directory, into an empty directory of the host's. own: the directory becomes as the one copied.

        What is not there, or of another kind, leaves it empty.
        """
        with opened(place) as fd:
            fds = [fd]
            async with self._source(tree, fds) as source:
                await self._workers.stream("build_fill", {**source, "path": path, "directory": directory, "own": own}, fds)

    async def make_directory(self, parent: Image | None, path: str, epoch: int | None) -> Layer:
        """The layer with a WORKDIR, empty if it is there already."""

        async def write(writer: int) -> None:
            fds = [writer]
            async with self._view(parent, fds) as view:
                await self._workers.stream("build_mkdir", {"destination": path, "clamp": epoch, "view": view}, fds)

        return await self._layer(parent, write)

    async def _layer(self, parent: Image | None, write: Callable[[int], Awaitable[None]]) -> Layer:
        with self._images.pinned(() if parent is None else parent.chain):
            return Layer(*await self._images.unpack_from(write))

    @asynccontextmanager
    async def _view(self, parent: Image | None, fds: list[int]) -> AsyncIterator[dict[str, Any]]:
        """A tree on an image, to be written to; it goes with the block. No mount points of the engine's are in it."""
        key = "build-" + os.urandom(12).hex()
        self._snapshots.prepare(key, None if parent is None else parent.chain_id)
        try:
            async with self._lowers(parent) as mounts:
                upper, work = self._snapshots.upper(key), self._snapshots.details(key)["WorkDir"]
                yield {"upper": upper, "work": work, "lowers": _indexed(mounts, fds), "own": []}
        finally:
            self._snapshots.remove(key)


def hash_of(groups: Sequence[Group]) -> str:
    """What a history says of them all."""
    return sources.hash_of_all([source for group in groups for source in group.found.sources])


def _found(names: ListedNames, patterns: Sequence[str], *, wildcards: bool, parents: bool) -> Found:
    try:
        found = sources.find(patterns, names, of_context=True, wildcards=wildcards, parents=parents)
    except (sources.SourceError, dockerignore.BadPattern) as error:
        raise InvalidArgument(str(error)) from None
    return Found(found, sources.hash_of_all(found), sources.beside(found, names))


def _indexed(mounts: Mounts, fds: list[int]) -> list[str | int]:
    """Lowers as a job's arguments: paths, or places among its descriptors."""
    found: list[str | int] = []
    for lower in mounts.lowers:
        if isinstance(lower, int):
            fds.append(lower)
            found.append(len(fds) - 1)
        else:
            found.append(lower)
    return found


def failed(keyword: str, error: EngineError) -> EngineError:
    """docker's words for a COPY that cannot be."""
    return type(error)(f"{keyword} failed: {error.message}")
