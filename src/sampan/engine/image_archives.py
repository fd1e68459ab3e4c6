"""Use cases of image archives: load (docker-archive new and old, OCI layout, both at once) and save.

A load's bytes go through a pipe to a worker, which writes them, decompressed, to a file without a name and says where each member lies.
Members that look like layers are unpacked while the rest is still arriving. Nothing is visible before all of an image's layers are
unpacked and have the digests its config wants; then layers and image appear at once. Nothing that a kill interrupts has a name.
"""

import asyncio
import os
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from sampan.archive.room import making
from sampan.archive.spool import Member
from sampan.digest import ChainId, ImageId, is_sha256
from sampan.engine.images import ImageService
from sampan.engine.pipes import WorkerStream, feed, through_pipe
from sampan.engine.progress import Progress, layer_line
from sampan.errors import InvalidArgument, NotFound, SystemFailure
from sampan.image import archives, legacy, platforms, saving
from sampan.image.archives import Archive, PlannedImage
from sampan.image.store import Image, ImageStore
from sampan.linux.nameless import nameless_file
from sampan.reference import Reference, parse
from sampan.snapshot.api import Snapshots, Unpacked
from sampan.spec.oci_layout import Platform
from sampan.streams import Piece
from sampan.waiting import to_the_end
from sampan.worker.client import WorkerPool

T = TypeVar("T")
_EARLY_MAX = 256
"""Layers unpacked before a manifest has asked for them."""


class _Work:
    """One layer that is being unpacked."""

    def __init__(self, member: Member) -> None:
        self.member = member
        self.key = "load-" + os.urandom(8).hex()
        self.current = 0
        self.changed = asyncio.Event()
        self.task: asyncio.Task[Unpacked]

    def report(self, progress: Mapping[str, Any]) -> None:
        """Note how much of it has been read, bytes."""
        self.current = progress["current"]
        self.changed.set()


class _Load:
    """One archive on its way in. close() leaves nothing of what was not committed."""

    def __init__(self, snapshots: Snapshots, workers: WorkerPool, spool: int, empty: int) -> None:
        """spool: the file to fill; empty: a directory with nothing in it. Both stay the caller's."""
        self._snapshots = snapshots
        self._workers = workers
        self._spool, self._empty = spool, empty
        self._members: list[Member] = []
        self._early: dict[str, _Work] = {}
        self._works: list[_Work] = []
        self._slots = asyncio.Semaphore(workers.parallel)
        self._known = {layer.diff_id.removeprefix("sha256:") for layer in snapshots.layers()}

    async def take_in(self, source: AsyncIterable[bytes]) -> Archive:
        """Read the archive to its end. Raises InvalidArgument, SystemFailure, and what source raises."""

        async def take(archive: int) -> None:
            await self._workers.stream("take_in", {}, [archive, self._spool, self._empty], self._note)

        await through_pipe(feed(source), take)
        return Archive(self._members, self._read)

    def _note(self, progress: Mapping[str, Any]) -> None:
        for item in progress["members"]:
            member = Member(*item)
            self._members.append(member)
            known = member.name.rpartition("/")[2] in self._known  # a blob's name is its digest
            if member.layer and not known and member.name not in self._early and len(self._works) < _EARLY_MAX:
                self._early[member.name] = self._begin(member)

    def _read(self, member: Member) -> bytes:
        return os.pread(self._spool, member.size, member.offset)

    def layer(self, member: Member) -> _Work:
        """Have a layer unpacked, if that has not begun already. It is given out once."""
        early = self._early.pop(member.name, None)
        if early is not None and early.member == member:
            return early
        return self._begin(member)

    def _begin(self, member: Member) -> _Work:
        work = _Work(member)
        work.task = asyncio.ensure_future(self._unpack(work))
        self._works.append(work)
        return work

    async def _unpack(self, work: _Work) -> Unpacked:
        async with self._slots:
            args = {"offset": work.member.offset, "size": work.member.size}

            async def give_out(writer: int) -> None:
                await self._workers.stream("give_out", args, [self._spool, writer, self._empty], work.report)

            try:
                return await through_pipe(give_out, lambda archive: self._snapshots.unpack(work.key, archive))
            finally:
                work.changed.set()

    async def close(self) -> None:
        """End what still runs, remove what was unpacked and not committed."""
        for work in self._works:
            work.task.cancel()
        await asyncio.gather(*(work.task for work in self._works), return_exceptions=True)
        for work in self._works:
            self._snapshots.remove(work.key)


async def _follow(work: _Work, diff_id: str) -> AsyncIterator[Progress]:
    """docker's progress of a layer until it is unpacked, the whole of it last."""
    total, shown = work.member.size, 0
    while not work.task.done():
        work.changed.clear()
        if shown < work.current < total:
            shown = work.current
            yield _loading(diff_id, shown, total)
        await asyncio.wait([work.task, waiting := asyncio.ensure_future(work.changed.wait())], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
    yield _loading(diff_id, total, total)


def _loading(diff_id: str, current: int, total: int) -> Progress:
    return layer_line("Loading layer", diff_id.removeprefix("sha256:")[:12], current, total)


def _renamed(name: Reference, former: Image) -> Progress:
    return {"stream": f"The image {name.familiar} already exists, renaming the old one with ID {former.id} to empty string\n"}


async def _aside(work: Callable[[], T]) -> T:
    """Reading documents, as large as the archive's maker likes, in a thread. It is awaited even by who is cancelled: it reads the spool."""
    return await to_the_end(asyncio.to_thread(work))


def _legacy_image(archive: Archive, item: legacy.LegacyImage, parent: Image | None, diff_id: str) -> Image:
    document = legacy.document(item, parent, diff_id)
    archive.charge(document)  # it has all its parents' history
    return archives.loadable(document)


class ImageArchives:
    """docker load and docker save. Used from the event loop's thread only."""

    def __init__(self, images: ImageService, store: ImageStore, snapshots: Snapshots, workers: WorkerPool, root: Path) -> None:
        """root: a directory for files without names, made here. Raises OSError."""
        self._images = images
        self._store = store
        self._snapshots = snapshots
        self._workers = workers
        self._root = root
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for stray in root.iterdir():
            if not stray.is_dir():
                stray.unlink()

    # load

    async def load(self, source: AsyncIterable[bytes], *, quiet: bool, platform: Platform | None) -> AsyncIterator[Progress]:
        """Load an archive's images, one after the other. Yields docker's progress and `Loaded image: ...` lines.

        Raises InvalidArgument for a bad archive, SystemFailure; images loaded before the error stay.
        """
        with ExitStack() as stack:
            with making("a file"):
                spool = nameless_file(self._root)
            stack.callback(os.close, spool)
            empty = os.open(self._snapshots.empty, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, empty)
            load = _Load(self._snapshots, self._workers, spool, empty)
            try:
                archive = await load.take_in(source)
                if legacy.is_legacy(archive):
                    async for line in self._load_legacy(load, archive, quiet=quiet):
                        yield line
                    return
                ids: list[str] = []
                named = False
                for planned in await _aside(lambda: list(archives.plan(archive, platform, platforms.own()))):
                    async for line in self._load_image(load, planned, quiet=quiet):
                        yield line
                    ids.append(f"Loaded image ID: {planned.image.id}\n")
                    named = named or bool(planned.names)
                if not named:
                    for text in ids:
                        yield {"stream": text}
            finally:
                await load.close()
                self._images.clean_up()

    async def _load_image(self, load: _Load, planned: PlannedImage, *, quiet: bool) -> AsyncIterator[Progress]:
        chain = planned.image.chain
        with self._images.pinned(chain):
            missing = [index for index, name in enumerate(chain) if not self._snapshots.is_whole(name)]
            works = {index: load.layer(planned.layers[index].member) for index in missing}
            for index, work in works.items():
                diff_id = planned.layers[index].diff_id
                async for line in _follow(work, diff_id):
                    if not quiet:
                        yield line
                unpacked = await work.task
                if unpacked.diff_id != diff_id:
                    raise InvalidArgument(f'invalid diffID for layer {index}: expected "{diff_id}", got "{unpacked.diff_id}"')
            former = {name: self._store.named(name) for name in planned.names}
            keys = {chain[index]: work.key for index, work in works.items()}
            image = self._images.add(planned.image, keys, names=planned.names, parent=planned.parent)
            self._images.announce("load", image)
        for name, old in former.items():
            if old is not None and old.id != image.id:
                yield _renamed(name, old)
            yield {"stream": f"Loaded image: {name.familiar}\n"}

    async def _load_legacy(self, load: _Load, archive: Archive, *, quiet: bool) -> AsyncIterator[Progress]:
        """The images of an archive older than manifest.json. As dockerd does, it says nothing of what it has loaded."""
        made: dict[str, Image] = {}
        with ExitStack() as pins:  # an image without a name yet is what `prune` takes
            async for line in self._load_unnamed(load, archive, made, pins, quiet=quiet):
                yield line
            for name, old_id in await _aside(lambda: legacy.names(archive, made)):
                former = self._store.named(name)
                self._images.add(made[old_id], {}, names=(name,), parent=self._known(made[old_id].parent))
                if former is not None and former.id != made[old_id].id:
                    yield _renamed(name, former)

    def _known(self, parent: str) -> str:
        """The ID of a parent that is still there, or empty."""
        return parent if self._store.get(ImageId(parent)) is not None else ""

    async def _load_unnamed(
        self, load: _Load, archive: Archive, made: dict[str, Image], pins: ExitStack, *, quiet: bool
    ) -> AsyncIterator[Progress]:
        """Fills made, by the old IDs. The images' layers stay as long as pins."""
        for item in await _aside(lambda: list(legacy.images(archive))):
            parent = made.get(item.parent)
            with self._images.pinned(() if parent is None else parent.chain):
                work = load.layer(item.layer)
                async for line in _follow(work, item.old_id):
                    if not quiet:
                        yield line
                unpacked = await work.task
                child = await _aside(partial(_legacy_image, archive, item, parent, unpacked.diff_id))
                pins.enter_context(self._images.pinned(child.chain))
                known = self._known("" if parent is None else parent.id)
                image = self._images.add(child, {child.chain[-1]: work.key}, names=(), parent=known)
            made[item.old_id] = image
            self._images.announce("load", image)

    # save

    def save(self, names: Sequence[str], platform: Platform | None) -> AsyncIterator[Piece]:
        """The archive of some images, as docker 28 writes it. Raises NotFound, InvalidArgument before the first piece."""
        return self._save(self._chosen(names, platform))

    def _chosen(self, names: Sequence[str], platform: Platform | None) -> list[saving.SavedImage]:
        chosen: dict[str, list[Reference]] = {}
        for text in names:
            for image_id, reference in self._meant(text):
                known = chosen.setdefault(image_id, [])
                if reference is not None and reference not in known:
                    known.append(reference)
        found: list[saving.SavedImage] = []
        for image_id, references in chosen.items():
            image = self._store.find(image_id)
            if platform is not None and not platforms.matches(platform, platforms.of(image)):
                raise SystemFailure(f"no suitable export target found for platform {platforms.shown(platform)}")
            found.append(saving.SavedImage(image, tuple(references)))
        return found

    def _meant(self, text: str) -> list[tuple[str, Reference | None]]:
        """The images that a name means, and under which names: a repository without a tag is all its tags; an ID no name."""
        if is_sha256(f"sha256:{text}") or text.startswith("sha256:"):
            return [(self._by_id(text), None)]
        reference = parse(text)
        if reference.tag is not None or reference.digest is not None:
            image = self._store.named(reference._replace(tag=None) if reference.digest is not None else reference)
            if image is None:
                raise NotFound("reference does not exist")
            return [(image.id, None if reference.digest is not None else reference)]
        tagged = self._store.names_in(reference.name)
        if not tagged:
            return [(self._by_id(text), None)]
        return [(image.id, name) for name in tagged if (image := self._store.named(name)) is not None]

    def _by_id(self, text: str) -> ImageId:
        try:
            return self._store.find(text).id
        except NotFound:  # said of what was asked for, not of a name that it may have been
            raise NotFound(f"No such image: {text}") from None

    async def _save(self, images: list[saving.SavedImage]) -> AsyncIterator[Piece]:
        chains = {name for item in images for name in item.image.chain}
        with self._images.pinned(chains):
            found = await asyncio.gather(*(self._snapshots.archive_size(name) for name in chains))
            members = saving.members(images, dict(zip(chains, found, strict=True)).__getitem__)
            for item in images:
                self._images.announce("save", item.image)
            layers = [member.layer for member in members if member.layer is not None]
            async with _Ahead(self._snapshots, layers) as ahead:
                yield b"".join(saving.directories())
                for member in members:
                    if member.layer is None:
                        yield member.header() + member.content + member.end()
                        continue
                    yield member.header()
                    size = 0
                    async for piece in ahead.pieces(member.layer):
                        size += len(piece)
                        yield piece
                    if size != member.size:
                        raise SystemFailure(f"layer {member.layer}: its archive has {size} bytes, not {member.size}")
                    yield member.end()
            yield saving.END


class _Ahead:
    """Layers' tars one after the other; the next one is begun while one is sent."""

    def __init__(self, snapshots: Snapshots, names: Sequence[ChainId]) -> None:
        self._snapshots = snapshots
        self._names = list(names)
        self._streams: dict[ChainId, WorkerStream] = {}

    async def __aenter__(self) -> "_Ahead":
        return self

    async def __aexit__(self, *_: object) -> None:
        for stream in self._streams.values():
            await stream.close()

    async def pieces(self, name: ChainId) -> AsyncIterator[Piece]:
        """The tar of the next layer, which is `name`."""
        for wanted in self._names[:2]:
            if wanted not in self._streams:
                self._streams[wanted] = WorkerStream(partial(self._archive, wanted))
        self._names.remove(name)
        async for piece in self._streams[name].pieces():
            yield piece
        del self._streams[name]

    async def _archive(self, name: ChainId, writer: int) -> dict[str, Any]:
        return {"size": await self._snapshots.archive(name, writer)}
