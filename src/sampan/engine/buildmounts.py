"""`RUN --mount`, and the volumes that an image declares: what a step sees besides its image, and what no layer has."""

import asyncio
import hashlib
import os
import posixpath
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple
from weakref import WeakValueDictionary

import msgspec
from msgspec import Struct

from sampan.build.commands import Script
from sampan.build.instructions import BindMount, CacheMount, RunMount, SecretMount, SshMount, TmpfsMount
from sampan.engine.buildcopy import Copies, SourceImage
from sampan.engine.buildlending import Lending
from sampan.engine.buildsession import Session
from sampan.engine.buildspool import Tree, Workspace
from sampan.engine.runs import Lent
from sampan.errors import printable
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
        self._making: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._users: Counter[str] = Counter()

    def _path(self, name: str) -> Path:
        return self._root / hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:24]

    @asynccontextmanager
    async def use(self, mount: CacheMount, make: Callable[[], Awaitable[Path]]) -> AsyncIterator[Path]:
        """A mount's directory, as long as the block. make: gives what a new one is to be, whole, on the same file system."""
        path = self._path(mount.id)
        if mount.sharing == "private":
            number = next(number for number in range(1 << 20) if f"{path.name}.{number}" not in self._users)
            path = path.with_name(f"{path.name}.{number}")
        async with self._locks.setdefault(path.name, asyncio.Lock()) if mount.sharing == "locked" else nullcontext():
            self._users[path.name] += 1
            try:
                await self._provide(path, mount, make)
                yield path
            finally:
                self._users[path.name] -= 1
                self._users = +self._users
                with suppress(OSError):
                    os.utime(path)  # when it was last used

    async def _provide(self, path: Path, mount: CacheMount, make: Callable[[], Awaitable[Path]]) -> None:
        """Have it there. One that is there is complete: it was made elsewhere."""
        async with self._making.setdefault(path.name, asyncio.Lock()):
            about, new = self._about(path), not path.exists()
            if new:
                (await make()).rename(path)
            self._note(path, mount, about, new=new)

    def _note(self, path: Path, mount: CacheMount, about: _About, *, new: bool) -> None:
        """It is used once more."""
        created = time.time_ns() if new else about.created or path.stat().st_mtime_ns
        asked_for = mount.id.partition("\0")[0]  # without what it began with
        noted = msgspec.json.encode(_About(printable(asked_for), created, 1 if new else about.uses + 1))
        beside = path.with_name(f"{path.name}.new")
        beside.write_bytes(noted)
        beside.replace(self._beside(path))

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


class _Wanted(NamedTuple):
    """A bind mount whose source is found, but not there yet."""

    mount: BindMount
    tree: Tree
    path: str
    directory: bool


class _WantedCache(NamedTuple):
    """A cache, and what a new one begins with."""

    mount: CacheMount
    """Its ID tells apart what it begins with, as well."""
    tree: Tree | None = None
    path: str = ""


def _cache_order(wanted: _WantedCache) -> tuple[str, str]:
    """The same for all steps, so that no two wait for each other; of one cache that is asked for twice, `locked` comes first."""
    return wanted.mount.id, wanted.mount.sharing


class Prepared:
    """The mounts of one RUN. identity is known at once, the rest after provide()."""

    def __init__(self, owner: "RunMounts", lending: Lending, stack: AsyncExitStack) -> None:
        self._owner, self._lending, self._stack = owner, lending, stack
        self.identity: list[str] = []
        self.binds: list[dict[str, Any]] = []
        self.left_out: list[str] = []
        """Mount points: as long as they are empty, no layer has them."""
        self._wanted: list[_Wanted] = []
        self._caches: list[_WantedCache] = []
        self._volumes: Sequence[str] = ()
        self._image: Image | None = None

    def want(self, wanted: _Wanted, content: str) -> None:
        """A bind mount."""
        self._wanted.append(wanted)
        self.identity.append(f"bind {wanted.mount.target} {content} {wanted.mount.readonly}")

    def want_cache(self, wanted: _WantedCache, mount: CacheMount) -> None:
        """A cache, as it is asked for: what is in it makes no difference."""
        self._caches.append(wanted)
        self.identity.append(f"cache {mount.target} {mount.id} {mount.readonly}")

    def want_volumes(self, image: Image | None, volumes: Sequence[str]) -> None:
        """What the image declares: each begins with what the image has there, and is thrown away after the step."""
        self._image, self._volumes = image, volumes

    def want_lent(self, mount: SecretMount | SshMount) -> None:
        """A secret, or a socket to an agent: which one makes a difference, what is in it does not."""
        self.identity.append(self._lending.want(mount))

    @property
    def lent(self) -> Lent:
        """What the step has for its one run, and no record of it."""
        return self._lending.lent

    def add(self, **mount: Any) -> None:
        """One of docker's mounts."""
        self.binds.append(mount)
        self.left_out.append(mount["Target"].strip("/"))

    async def provide(self) -> None:
        """Have all of them there, as long as the stack. Raises EngineErrors."""
        await self._lending.provide()
        self.left_out += self._lending.targets
        for wanted in self._wanted:
            self.add(**await self._owner.source_of(wanted), Target=wanted.mount.target, ReadOnly=wanted.mount.readonly)
        sources: dict[str, str] = {}
        for cache in sorted(self._caches, key=_cache_order):
            if cache.mount.id not in sources:
                sources[cache.mount.id] = await self._owner.cache_of(cache, self._stack)
        for cache in self._caches:
            self.add(Type="bind", Source=sources[cache.mount.id], Target=cache.mount.target, ReadOnly=cache.mount.readonly)
        taken = {bind["Target"].rstrip("/") for bind in self.binds}
        for path in (posixpath.normpath("/" + volume.lstrip("/")) for volume in self._volumes):
            if path not in ("/", *taken):
                self.binds.append({"Type": "bind", "Source": await self._owner.volume_of(self._image, path), "Target": path})

    def add_script(self, script: Script) -> None:
        """A here-document that names its own interpreter: a file as long as it runs."""
        self.binds.append({"Type": "bind", "Source": self._owner.script_of(script), "Target": script.path, "ReadOnly": True})


class RunMounts:
    """Prepares the mounts of a build's steps."""

    def __init__(self, workspace: Workspace, copies: Copies, caches: CacheDirectories, session: Session | None) -> None:
        """session: of the client that asked for the build."""
        self._workspace = workspace
        self._copies = copies
        self._caches = caches
        self._session = session

    async def of(
        self,
        stack: AsyncExitStack,
        wanted: Sequence[RunMount],
        environment: Mapping[str, str],
        source: SourceImage,
        image: Image | None,
        volumes: Iterable[str],
    ) -> Prepared:
        """What a RUN in an image asks for, and what the image declares. All of it goes with the stack.

        Raises InvalidArgument for what is not there.
        """
        prepared = Prepared(self, Lending(self._session, environment, stack), stack)
        for mount in wanted:
            await self._prepare(prepared, mount, source)
        prepared.want_volumes(image, sorted(volumes))
        return prepared

    async def _prepare(self, prepared: Prepared, mount: RunMount, source: SourceImage) -> None:
        if isinstance(mount, BindMount):
            tree = Tree(image=await source(mount.from_)) if mount.from_ else self._workspace.context
            found = await self._copies.find(tree, [mount.source], wildcards=False)
            first = found.sources[0]
            prepared.want(_Wanted(mount, tree, first.real, first.directory), f"{found.hash} {found.identity()}")
        elif isinstance(mount, CacheMount):
            wanted = _WantedCache(mount)
            if mount.from_:
                tree = Tree(image=await source(mount.from_))
                found = await self._copies.find(tree, [mount.source], wildcards=False)
                prepared.identity.append(f"begins with {found.hash} {found.identity()}")
                real = found.sources[0].real
                base = "" if tree.image is None else tree.image.id
                wanted = _WantedCache(msgspec.structs.replace(mount, id=f"{mount.id}\0{base}\0{real}"), tree, real)
            prepared.want_cache(wanted, mount)
        elif isinstance(mount, TmpfsMount):
            prepared.add(Type="tmpfs", Target=mount.target, TmpfsOptions={"SizeBytes": mount.size}, ReadOnly=mount.readonly)
            prepared.identity.append(f"tmpfs {mount.target} {mount.size}")
        else:
            prepared.want_lent(mount)

    async def source_of(self, wanted: _Wanted) -> dict[str, Any]:
        """A bind mount's source, as docker's mounts have it: the context or the image itself when they are only read, else a copy."""
        image = wanted.tree.image
        if wanted.tree.directory is not None and wanted.mount.readonly:
            return {"Type": "bind", "Source": await self._workspace.path_of(wanted.path)}
        if image is not None and image.chain_id is not None and wanted.mount.readonly and wanted.directory:
            return {"Type": "image", "Source": image.id, "ImageOptions": {"Subpath": wanted.path}}
        return {"Type": "bind", "Source": await self._copied(wanted.tree, wanted.path, wanted.directory)}

    async def _copied(self, tree: Tree, path: str, directory: bool) -> str:
        place = self._workspace.fresh("mount")
        place.mkdir(mode=0o755)
        await self._copies.fill(tree, path, place, directory=directory)
        return str(place) if directory else f"{place}/{os.path.basename(path)}"

    async def cache_of(self, wanted: _WantedCache, stack: AsyncExitStack) -> str:
        """The host's path of a cache."""

        async def make() -> Path:
            place, mount = self._workspace.fresh("cache"), wanted.mount
            place.mkdir(mode=0o700)
            if wanted.tree is not None:
                await self._copies.fill(wanted.tree, wanted.path, place, directory=True, own=True)
                return place
            os.chown(place, mount.uid, mount.gid)
            place.chmod(mount.mode & 0o7777)
            return place

        return str(await stack.enter_async_context(self._caches.use(wanted.mount, make)))

    async def volume_of(self, image: Image | None, path: str) -> str:
        """The host's path of a volume, with what the image has there."""
        place = self._workspace.fresh("volume")
        place.mkdir(mode=0o755)
        if image is not None and image.chain_id is not None:
            await self._copies.fill(Tree(image=image), path, place, directory=True, own=True)
        return str(place)

    def script_of(self, script: Script) -> str:
        """The host's path of a script."""
        path = self._workspace.fresh("script")
        path.write_bytes(script.content.encode("utf-8", "surrogateescape"))
        path.chmod(0o755)
        return str(path)
