"""`RUN --mount`, and the volumes that an image declares: what a step sees besides its image, and what no layer has."""

import asyncio
import hashlib
import os
import posixpath
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple
from weakref import WeakValueDictionary

import msgspec
from msgspec import Struct

from sampan.build.commands import Script
from sampan.build.instructions import BindMount, CacheMount, Run, RunMount, SecretMount, SshMount, TmpfsMount
from sampan.build.mounts import mounts_of
from sampan.engine.buildcopy import Copies, SourceImage
from sampan.engine.buildspool import Tree, Workspace
from sampan.errors import InvalidArgument, printable
from sampan.image.store import Image

_GONE: Final = "gone-"


class CacheDirectory(NamedTuple):
    """One of them. Times in ns since the epoch."""

    path: Path
    id: str
    """Of the mount, empty where it is not known."""
    busy: bool
    created: int
    last_used: int
    uses: int


class _About(Struct, frozen=True):
    """What is noted beside a directory, which belongs to the steps."""

    id: str = ""
    created: int = 0
    uses: int = 0


class CacheDirectories:
    """The directories of --mount=type=cache, by name. One for all builds.

    Beside each is a file NAME.json that tells what it is; what is called gone-* is on its way out.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir(mode=0o711, parents=True, exist_ok=True)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._users: Counter[str] = Counter()

    def _path(self, name: str) -> Path:
        return self._root / hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:24]

    @asynccontextmanager
    async def use(self, mount: CacheMount) -> AsyncIterator[tuple[Path, bool]]:
        """A mount's directory, as long as the block, and whether it is new."""
        path = self._path(mount.id)
        if mount.sharing == "private":
            number = next(number for number in range(1 << 20) if f"{path.name}.{number}" not in self._users)
            path = path.with_name(f"{path.name}.{number}")
        async with self._locks.setdefault(path.name, asyncio.Lock()) if mount.sharing == "locked" else nullcontext():
            self._users[path.name] += 1
            try:
                yield path, self._make(path, mount)
            finally:
                self._users[path.name] -= 1
                self._users = +self._users
                with suppress(OSError):
                    os.utime(path)  # when it was last used

    def _make(self, path: Path, mount: CacheMount) -> bool:
        about = self._about(path)
        try:
            path.mkdir(mode=0o700)
            new = True
        except FileExistsError:
            new = False
        else:
            os.chown(path, mount.uid, mount.gid)
            path.chmod(mount.mode & 0o7777)
        created = time.time_ns() if new else about.created or path.stat().st_mtime_ns
        noted = msgspec.json.encode(_About(printable(mount.id), created, 1 if new else about.uses + 1))
        beside = path.with_name(f"{path.name}.new")
        beside.write_bytes(noted)
        beside.replace(self._beside(path))
        return new

    @staticmethod
    def _beside(path: Path) -> Path:
        return path.with_name(f"{path.name}.json")

    def _about(self, path: Path) -> _About:
        try:
            return msgspec.json.decode(self._beside(path).read_bytes(), type=_About)
        except (OSError, msgspec.DecodeError):  # of an older engine, or lost with the machine
            return _About()

    def all(self) -> list[CacheDirectory]:
        """All there are."""
        found = []
        for path in self._root.iterdir():
            if path.suffix not in (".json", ".new") and not path.name.startswith(_GONE):
                about, changed = self._about(path), path.stat().st_mtime_ns
                found.append(
                    CacheDirectory(
                        path, about.id, path.name in self._users, about.created or changed, max(changed, about.created), about.uses
                    )
                )
        return found

    def take_out(self, path: Path) -> Path | None:
        """Have a directory no more, unless a step is using it: where it is now, to be emptied and removed. No await: all or nothing."""
        if path.name in self._users:
            return None
        gone = path.with_name(f"{_GONE}{os.urandom(8).hex()}")
        try:
            path.rename(gone)  # a step that begins now gets a new one
        except FileNotFoundError:
            return None
        self._beside(path).unlink(missing_ok=True)
        return gone

    def left(self) -> list[Path]:
        """What was taken out and is still there: a kill came between."""
        return list(self._root.glob(f"{_GONE}*"))

    @property
    def root(self) -> Path:
        """Where they are."""
        return self._root


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """A directory's descriptor."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


class _Wanted(NamedTuple):
    """A bind mount whose source is found, but not there yet."""

    mount: BindMount
    tree: Tree
    path: str
    directory: bool


class Prepared:
    """The mounts of one RUN. identity is known at once, the rest after provide()."""

    def __init__(self, owner: "RunMounts", stack: AsyncExitStack) -> None:
        self._owner, self._stack = owner, stack
        self.identity: list[str] = []
        self.binds: list[dict[str, Any]] = []
        self.environment: list[str] = []
        self.left_out: list[str] = []
        """Mount points: as long as they are empty, no layer has them."""
        self._wanted: list[_Wanted] = []
        self._caches: list[CacheMount] = []
        self._volumes: Sequence[str] = ()
        self._image: Image | None = None

    def want(self, wanted: _Wanted, content: str) -> None:
        """A bind mount."""
        self._wanted.append(wanted)
        self.identity.append(f"bind {wanted.mount.target} {content} {wanted.mount.readonly}")

    def want_cache(self, mount: CacheMount) -> None:
        """A cache: what is in it makes no difference."""
        self._caches.append(mount)
        self.identity.append(f"cache {mount.target} {mount.id} {mount.readonly}")

    def want_volumes(self, image: Image | None, volumes: Sequence[str]) -> None:
        """What the image declares: each begins with what the image has there, and is thrown away after the step."""
        self._image, self._volumes = image, volumes

    def add(self, **mount: Any) -> None:
        """One of docker's mounts."""
        self.binds.append(mount)
        self.left_out.append(mount["Target"].strip("/"))

    async def provide(self) -> None:
        """Have all of them there, as long as the stack. Raises EngineErrors."""
        for wanted in self._wanted:
            source = await self._owner.source_of(wanted, self._stack)
            self.add(Type="bind", Source=source, Target=wanted.mount.target, ReadOnly=wanted.mount.readonly)
        for mount, source in zip(self._caches, await self._cache_sources(), strict=True):
            self.add(Type="bind", Source=source, Target=mount.target, ReadOnly=mount.readonly)
        taken = {bind["Target"].rstrip("/") for bind in self.binds}
        for path in (posixpath.normpath("/" + volume.lstrip("/")) for volume in self._volumes):
            if path not in ("/", *taken):
                self.binds.append({"Type": "bind", "Source": await self._owner.volume_of(self._image, path), "Target": path})

    async def _cache_sources(self) -> list[str]:
        """In order. All steps take theirs by the order of IDs, so that no two wait for what the other has; none waits for itself either."""
        found = [""] * len(self._caches)
        locked: dict[str, str] = {}
        for place, mount in sorted(enumerate(self._caches), key=lambda item: item[1].id):
            if mount.sharing != "locked" or mount.id not in locked:
                found[place] = await self._owner.cache_of(mount, self._stack)
                if mount.sharing == "locked":
                    locked[mount.id] = found[place]
            else:
                found[place] = locked[mount.id]
        return found

    def add_script(self, script: Script) -> None:
        """A here-document that names its own interpreter: a file as long as it runs."""
        path = self._owner.fresh("script")
        path.write_bytes(script.content.encode("utf-8", "surrogateescape"))
        path.chmod(0o755)
        self.binds.append({"Type": "bind", "Source": str(path), "Target": script.path, "ReadOnly": True})


class RunMounts:
    """Prepares the mounts of a build's steps."""

    def __init__(self, workspace: Workspace, copies: Copies, caches: CacheDirectories) -> None:
        self._workspace = workspace
        self._copies = copies
        self._caches = caches
        self._count = 0

    @asynccontextmanager
    async def of(
        self,
        run: Run,
        environment: Mapping[str, str],
        workdir: str,
        escape: str,
        source: SourceImage,
        image: Image | None,
        volumes: Sequence[str],
    ) -> AsyncIterator[Prepared]:
        """What a RUN asks for. Raises InvalidArgument for what is not there."""
        async with AsyncExitStack() as stack:
            prepared = Prepared(self, stack)
            for mount in mounts_of(run, environment, workdir, escape):
                await self._prepare(prepared, mount, source)
            prepared.want_volumes(image, volumes)
            yield prepared

    async def _prepare(self, prepared: Prepared, mount: RunMount, source: SourceImage) -> None:
        if isinstance(mount, BindMount):
            tree = Tree(image=await source(mount.from_)) if mount.from_ else self._workspace.context
            found = await self._copies.find(tree, [mount.source], wildcards=False)
            _, real, directory, *_ = found.sources[0]
            prepared.want(_Wanted(mount, tree, real, directory), f"{found.hash} {found.identity()}")
        elif isinstance(mount, CacheMount):
            if mount.from_:
                found = await self._copies.find(Tree(image=await source(mount.from_)), [mount.source], wildcards=False)
                prepared.identity.append(f"begins with {found.hash} {found.identity()}")
            prepared.want_cache(mount)
        elif isinstance(mount, TmpfsMount):
            prepared.add(Type="tmpfs", Target=mount.target, TmpfsOptions={"SizeBytes": mount.size}, ReadOnly=mount.readonly)
            prepared.identity.append(f"tmpfs {mount.target} {mount.size}")
        elif isinstance(mount, SecretMount):
            if mount.required:
                raise InvalidArgument(f"secret {mount.id}: not found")
            prepared.identity.append(f"secret {mount.id} {mount.target} {mount.env}")
        elif isinstance(mount, SshMount):
            if mount.required:
                raise InvalidArgument(f"unset ssh forward key {mount.id}")
            prepared.identity.append(f"ssh {mount.id} {mount.target}")

    def fresh(self, name: str) -> Path:
        """A place of the build's own."""
        self._count += 1
        return self._workspace.path / "fetched" / f"{name}{self._count}"

    async def source_of(self, wanted: _Wanted, stack: AsyncExitStack) -> str:
        """The host's path of a bind mount's source: the context itself when it is only read, else a copy."""
        if wanted.tree.directory >= 0 and wanted.mount.readonly:
            return self._workspace.path_of(wanted.path)
        return await self._copied(wanted.tree, wanted.path, wanted.directory)

    async def _copied(self, tree: Tree, path: str, directory: bool) -> str:
        place = self.fresh("mount")
        place.mkdir(mode=0o755)
        await self._copies.fill(tree, path, place, directory=directory)
        return str(place) if directory else f"{place}/{os.path.basename(path)}"

    async def cache_of(self, mount: CacheMount, stack: AsyncExitStack) -> str:
        """The host's path of a cache."""
        path, new = await stack.enter_async_context(self._caches.use(mount))
        del new
        return str(path)

    async def volume_of(self, image: Image | None, path: str) -> str:
        """The host's path of a volume, with what the image has there."""
        place = self.fresh("volume")
        place.mkdir(mode=0o755)
        if image is not None and image.chain_id is not None:
            await self._copies.fill(Tree(image=image), path, place, directory=True, own=True)
        return str(place)
