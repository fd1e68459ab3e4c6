"""The places where builds keep what they are given, for as long as they run.

<data root>/build/<24 hex>/     one build; whatever of these is there at sampand's start is left from a kill
    tree/                       its context
    sums                        the hashes of what is in the context
    fetched/                    what is fetched for it, and what its steps mount
    containers/<container ID>   an empty file: a container of this build that is to go when the build ends
<data root>/build/void/         a directory with nothing in it, beside the snapshots': overlayfs wants two
"""

import asyncio
import os
import posixpath
import stat
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from sampan.archive import smallcontext
from sampan.archive.room import making
from sampan.archive.sources import ListedNames
from sampan.build.lex import FILE_MAX
from sampan.engine.background import Background
from sampan.engine.buildplaces import CONTAINERS, VOID, workspaces
from sampan.engine.pipes import Resumed, feed, through_pipe
from sampan.errors import InvalidArgument, SystemFailure
from sampan.image.store import Image
from sampan.linux.openat2 import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, openat2
from sampan.streams import Pourable
from sampan.worker.client import WorkerPool

DEFAULT_DOCKERFILE: Final = "Dockerfile"


class Directory(NamedTuple):
    """Where a tree's files are."""

    fd: int
    sums: int
    """The file of their hashes; -1: none."""


class _Descriptors(NamedTuple):
    """The descriptors of a workspace."""

    nowhere: int
    context: Directory


class Tree(NamedTuple):
    """Where files come from: a directory, or an image, None being one without layers."""

    directory: Callable[[], Awaitable[Directory]] | None = None
    names: ListedNames | None = None
    """All there is in the directory, where that is known."""
    image: Image | None = None


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """A directory's descriptor."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


async def remove_tree(workers: WorkerPool, path: Path) -> None:
    """Remove a directory of strangers' files: a worker empties it. What cannot be removed stays. Raises OSError, SystemFailure."""
    with opened(path) as fd:
        await workers.run("empty", {}, [fd])
    with suppress(OSError):
        await asyncio.to_thread(path.rmdir)


def tree_at(fd: int) -> Tree:
    """Of a directory whose files have no hashes yet."""

    async def directory() -> Directory:
        return Directory(fd, -1)

    return Tree(directory)


class Workspace:
    """One build's place, made when something has to be in it. Its descriptors are closed with it."""

    def __init__(self, path: Path, nowhere: str, workers: WorkerPool, stack: ExitStack) -> None:
        """nowhere: a directory with nothing in it."""
        self._path = path
        self._workers = workers
        self._stack = stack
        self._nowhere = nowhere
        self._small: bytes | None = None
        """A context that is not unpacked yet."""
        self._unpacking = asyncio.Lock()
        self._names: ListedNames | None = None
        self._descriptors: _Descriptors | None = None
        self._count = 0
        self.containers: set[str] = set()
        """The containers that are to go when the build ends."""

    @property
    def made(self) -> bool:
        """Whether there is anything of it on the disk."""
        return self._descriptors is not None

    def _made(self) -> "_Descriptors":
        if self._descriptors is None:
            try:
                self._path.mkdir(mode=0o700)
                self._descriptors = self._make()
            except OSError as error:
                raise SystemFailure(f"cannot make a place for the build: {error}") from error
        return self._descriptors

    def _make(self) -> "_Descriptors":
        for name in ("tree", "fetched", CONTAINERS):
            (self._path / name).mkdir(mode=0o755)
        nowhere = self._kept(self._nowhere, os.O_PATH | os.O_DIRECTORY)
        tree = self._kept(self._path / "tree", os.O_RDONLY | os.O_DIRECTORY)
        return _Descriptors(nowhere, Directory(tree, self._kept(self._path / "sums", os.O_RDWR | os.O_CREAT | os.O_APPEND)))

    def _kept(self, path: str | Path, flags: int) -> int:
        fd = os.open(path, flags | os.O_CLOEXEC, 0o600)
        self.keep(fd)
        return fd

    @property
    def path(self) -> Path:
        """Where it is: made now, if it was not. Raises SystemFailure."""
        self._made()
        return self._path

    @property
    def nowhere(self) -> int:
        """A directory with nothing in it. Raises SystemFailure."""
        return self._made().nowhere

    async def take_in(self, source: AsyncIterable[bytes] | Pourable, dockerfile: str) -> bytes:
        """A context, compressed or not. Returns its Dockerfile. Raises InvalidArgument, SystemFailure, and what source raises.

        A small one stays in memory until a step needs its files: of those that the cache has no step does.
        """
        head = await _beginning(source, smallcontext.BYTES_MAX + 1) if isinstance(source, AsyncIterable) else b""
        small = smallcontext.listed(head, dockerfile) if len(head) <= smallcontext.BYTES_MAX else None
        text = None if small is None else small.files.get(dockerfile)
        if small is not None and text is not None:
            self._small, self._names = head, small.names
            return text
        result = await self._unpack(Resumed(head, source), dockerfile)
        if result["entries"] is not None:
            self._names = ListedNames(tuple(entry) for entry in result["entries"])
        data = await asyncio.to_thread(self.read_dockerfile, dockerfile)
        if result["withheld"]:
            await self._workers.run("context_withhold", {"names": result["withheld"]}, [self._made().context.fd])
        return data

    async def _unpack(self, source: Resumed, dockerfile: str) -> dict[str, Any]:
        """What build_jobs.context_in says of it."""
        made = self._made()

        async def take(archive: int) -> dict[str, Any]:
            try:
                return await self._workers.stream("context_in", {"dockerfile": dockerfile}, [archive, *made.context, made.nowhere])
            except InvalidArgument as error:  # docker answers 500
                raise SystemFailure(error.message) from None

        return await through_pipe(feed(source), take)

    async def _directory(self) -> Directory:
        """The context's, unpacked now if it was not. Raises InvalidArgument, SystemFailure."""
        async with self._unpacking:
            if self._small is not None:
                await self._unpack(Resumed(self._small), DEFAULT_DOCKERFILE)
                self._small = None
        return self._made().context

    def fresh(self, what: str) -> Path:
        """The path of a new file or directory, which goes with the build. what: said in its name. Raises SystemFailure."""
        self._count += 1
        return self.path / "fetched" / f"{what}{self._count}"

    def place(self, what: str) -> int:
        """A new directory, open as long as the build. Raises SystemFailure."""
        path = self.fresh(what)
        with making("a place for what is fetched"):
            path.mkdir(mode=0o755)
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.keep(fd)
        return fd

    async def pack(self, directory: int, pipe: int) -> None:
        """Write what is in a directory into a pipe, as a context: all of it root's."""
        await self._workers.stream("context_out", {}, [pipe, directory])

    async def empty(self, directory: int) -> None:
        """Remove all that is in a directory."""
        await self._workers.run("empty", {}, [directory])

    def read_dockerfile(self, name: str) -> bytes:
        """Raises SystemFailure when it is not there or no file, as docker does, InvalidArgument when it is too large."""
        if posixpath.normpath(name).startswith("../"):
            raise SystemFailure(f"forbidden path outside the build context: {name} ()")
        try:
            fd = self._open(name)
        except OSError as error:
            if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
                raise SystemFailure(f"unexpected error reading Dockerfile: open {name}: {os.strerror(error.errno or 0).lower()}") from None
            if name == DEFAULT_DOCKERFILE:
                with suppress(OSError):
                    return self._read(self._open(name.lower()), name)
            raise SystemFailure(f"Cannot locate specified Dockerfile: {name}") from None
        return self._read(fd, name)

    def _open(self, name: str) -> int:
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
        return openat2(self._made().context.fd, os.fsencode(name), flags, resolve=RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)

    @staticmethod
    def _read(fd: int, name: str) -> bytes:
        try:
            info = os.fstat(fd)
            if not stat.S_ISREG(info.st_mode):
                what = "is a directory" if stat.S_ISDIR(info.st_mode) else "is no regular file"
                raise SystemFailure(f"unexpected error reading Dockerfile: read {name}: {what}")
            if info.st_size > FILE_MAX:
                raise InvalidArgument(f"the Dockerfile ({name}) has more than {FILE_MAX} bytes")
            return b"".join(iter(lambda: os.read(fd, 1 << 20), b""))
        finally:
            os.close(fd)

    @property
    def context(self) -> Tree:
        """The context as COPY sees it."""
        return Tree(self._directory, self._names)

    def keep(self, fd: int) -> None:
        """Close a descriptor when the build ends."""
        self._stack.callback(os.close, fd)

    async def path_of(self, name: str) -> str:
        """The host's path of something in the context, which no symlink leads to. Raises InvalidArgument, SystemFailure."""
        await self._directory()
        flags = os.O_PATH | os.O_CLOEXEC
        try:
            fd = openat2(self._made().context.fd, os.fsencode(name) or b".", flags, resolve=RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS)
        except OSError as error:
            raise InvalidArgument(f"{name}: {os.strerror(error.errno or 0).lower()}") from None
        os.close(fd)
        return f"{self.path}/tree/{name}".rstrip("/")

    def note_container(self, container_id: str) -> None:
        """A container of this build is about to be made: a kill of sampand must not leave it."""
        (self.path / CONTAINERS / container_id).touch()
        self.containers.add(container_id)

    def forget_container(self, container_id: str) -> None:
        """It is gone, or is to stay."""
        (self.path / CONTAINERS / container_id).unlink(missing_ok=True)
        self.containers.discard(container_id)


async def _beginning(source: AsyncIterable[bytes], length: int) -> bytes:
    """The first so many bytes, and more where a piece ends later; all, if there are fewer. Raises what source raises."""
    head = bytearray()  # a list of pieces of one byte each would be large
    async for piece in source:
        head += piece
        if len(head) >= length:
            break
    return bytes(head)


class BuildSpool:
    """All builds' places."""

    def __init__(self, root: Path, empty: Path, workers: WorkerPool, background: Background) -> None:
        """root: made here. empty: a directory with nothing in it. Raises OSError."""
        self._root = root
        self._workers = workers
        self._background = background
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        root.chmod(0o700)
        (root / VOID).mkdir(mode=0o700, exist_ok=True)
        self.empty = (str(empty), str(root / VOID))

    @asynccontextmanager
    async def workspace(self) -> AsyncIterator[Workspace]:
        """A place for one build."""
        path = self._root / os.urandom(12).hex()
        with ExitStack() as stack:
            workspace = Workspace(path, self.empty[0], self._workers, stack)
            try:
                yield workspace
            finally:
                if workspace.made:
                    self._background.spawn(remove_tree(self._workers, path))  # nobody waits for 50,000 files to go

    def repair(self) -> None:
        """Before the first build: what a kill has left is removed from now on. The containers of its steps are gone by then."""
        for path in [*workspaces(self._root)]:
            self._background.spawn(remove_tree(self._workers, path))
