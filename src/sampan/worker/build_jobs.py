"""Jobs of builds: take a context in, find what COPY means, copy, and make a layer of it.

The trees they are in: a context is a directory of the spool, with its hashes beside it (archive/context.py); an image or a stage is a
`view` as in tree_jobs.py, its `lowers` mounted for this process alone.
"""

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Final

from sampan import dockerignore
from sampan.archive import changes, chmod, compression, sources, treediff
from sampan.archive.apply import ID_MAX
from sampan.archive.context import ODD, ContextExtractor, add_sums, read_sums, told
from sampan.archive.pack import Outlet, Packer
from sampan.archive.reader import BLOCK, InvalidArchive, TarReader
from sampan.archive.room import Room
from sampan.archive.source import PipeSource, TruncatedArchive
from sampan.archive.source import Source as ByteSource
from sampan.archive.sources import Source, SourceError
from sampan.archive.transfer import Destination, Options, Owner, Unfit, kept_path, ordered
from sampan.linux import users
from sampan.linux.openat2 import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, openat2
from sampan.linux.permissions import Permissions
from sampan.worker import confine, view
from sampan.worker.budget import Budget
from sampan.worker.jobs import Decompressor, checked, reader_of
from sampan.worker.tree_jobs import Refused, pour
from sampan.worker.wire import Kind

_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_RESOLVE = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
_NO_OWNER: Final = "unable to convert uid/gid chown string to host mapping: "
_IGNORE_MAX: Final = 1 << 20
_LISTED_MAX: Final = 1000
"""Entries of a context that are told."""
_LISTED_LENGTH: Final = 100_000
"""Bytes they may take as JSON; a packet holds a little more."""
_ARCHIVES_MAX: Final = 200
"""Archives that one ADD unpacks: each has a process."""


def context_in(args: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """fds: a pipe with a tar, the empty directory to fill, a file for its hashes, a directory nobody may read. args: dockerfile.

    -> size, withheld, entries (of a small one all there is, as ListedNames takes it).

    The Dockerfile and .dockerignore are removed from the context again when .dockerignore says so: they were needed only here.
    """
    archive, tree, sums, nowhere = fds
    head, read = compression.peek(reader_of(archive))
    kind = compression.detect(head)
    child = Decompressor(kind, head, archive, nowhere) if kind else None
    confine.into_root(tree, confine.WRITE)
    budget = Budget()
    pipe, read = (archive, read) if child is None else (child.output, reader_of(child.output))
    source = PipeSource(pipe, budget.metered(read), budget.more)
    with checked(child):
        with (extractor := ContextExtractor(tree, sums, os.fsencode(args["dockerfile"]))):
            extractor.apply(TarReader(source, unpadded=True))
            extractor.finish()
        source.drain()
    withheld = _withheld(args["dockerfile"])
    names = sources.RootNames(told(read_sums(sums)))
    is_told = not withheld and not extractor.odd and extractor.result.entries <= _LISTED_MAX
    entries = sources.listed(names, _LISTED_MAX, _LISTED_LENGTH) if is_told else None
    return {"size": source.consumed, "withheld": withheld, "entries": entries}


def _withheld(dockerfile: str) -> list[str]:
    """Which of the Dockerfile and .dockerignore COPY is not to see, by what .dockerignore says of them."""
    for name in (dockerfile + dockerignore.FILE_NAME, dockerignore.FILE_NAME):
        try:
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            continue
        with os.fdopen(fd, "rb") as file:
            return dockerignore.withheld(file.read(_IGNORE_MAX), dockerfile) if stat.S_ISREG(os.fstat(fd).st_mode) else []
    return []


def context_withhold(args: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """fds: a context's directory. args: names. Remove these files."""
    confine.into_root(fds[0], confine.WRITE)
    for name in args["names"]:
        try:
            os.unlink("/" + sources.real_path(name))
        except FileNotFoundError:
            continue
    return {}


def context_out(args: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """fds: where the archive goes, a directory. What is in it, as docker's client packs a context."""
    output, tree = fds
    confine.into_root(tree, confine.READ)
    outlet = Outlet(output)
    pour(Packer(outlet=outlet, as_context=True).below(os.open("/", _DIRECTORY_FLAGS), b""), outlet)
    return {}


def _tree(args: dict[str, Any], fds: Sequence[int]) -> int:
    """The descriptor of the tree that `source` means: `{"tree": index}` of a context's, `{"lowers": [...]}` of an image's."""
    source = args["source"]
    if "tree" in source:
        return os.dup(fds[source["tree"]])
    return view.lower_of(source, fds)


def build_sources(args: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """args: source, sums (index of a file of hashes, or None), patterns, wildcards (False: names are meant as they are), parents.

    -> sources [[path, real, directory, hash, pattern]...], hash: of them all, beside: a hash of what that one leaves out.
    Refused: docker's words.
    """
    tree = _tree(args, fds)
    sums = None if args["sums"] is None else read_sums(fds[args["sums"]])
    confine.into_root(tree, confine.READ)
    names = sources.RootNames(sums, Budget().more, odd=ODD in (sums or ()))
    try:
        found = sources.find(
            args["patterns"],
            names,
            of_context=sums is not None,
            wildcards=args["wildcards"],
            parents=args["parents"],
        )
    except (SourceError, dockerignore.BadPattern) as error:
        raise Refused(Kind.INVALID, str(error)) from None
    if sums is not None:
        add_sums(fds[args["sums"]], names.late)
    return {"sources": found, "hash": sources.hash_of_all(found), "beside": sources.beside(found, names)}


class _Archive:
    """A local archive that ADD unpacks, opened before this process gives up its rights."""

    def __init__(self, fd: int, child: Decompressor | None, read: compression.Read) -> None:
        self._fd, self._child = fd, child
        self._read = read

    def extract(self, destination: Destination) -> None:
        """Unpack it. Raises InvalidArchive and what else hostile archives cause."""
        source = ByteSource(Budget().metered(self._read), hashed=False)
        with checked(self._child):
            destination.extract(TarReader(source))
            source.drain()
        os.close(self._fd)


def _archive_of(tree: int, source: Source, nowhere: int) -> _Archive | None:
    """The archive that a source is, or None."""
    if not _is_file(tree, source.real):
        return None
    fd = openat2(tree, os.fsencode(source.real), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC, resolve=_RESOLVE)
    head, read = compression.peek(reader_of(fd))
    kind = compression.detect(head)
    child = Decompressor(kind, head, fd, nowhere) if kind else None
    first, read = _first_block(read if child is None else reader_of(child.output))
    try:
        next(iter(TarReader(ByteSource(reader_of_bytes(first), hashed=False))))
    except TruncatedArchive:
        if len(first) == BLOCK:  # an extended header, whose data is further on
            return _Archive(fd, child, read)
    except (InvalidArchive, StopIteration):
        pass
    else:
        return _Archive(fd, child, read)
    if child is not None:
        child.finish()
    os.close(fd)
    return None


def _is_file(tree: int, path: str) -> bool:
    """Whether it is a regular file: others are not opened, a device least of all. Nobody else is at the tree. Raises OSError."""
    fd = openat2(tree, os.fsencode(path), os.O_PATH | os.O_CLOEXEC, resolve=_RESOLVE)
    try:
        return stat.S_ISREG(os.fstat(fd).st_mode)
    finally:
        os.close(fd)


def _first_block(read: compression.Read) -> tuple[bytes, compression.Read]:
    """The first block of a stream, and the stream from its beginning."""
    first = b""
    while len(first) < BLOCK and (piece := read(BLOCK - len(first))):
        first += piece
    return first, compression.prefixed(first, read)


def reader_of_bytes(data: bytes) -> compression.Read:
    """What ByteSource reads from."""
    left = [data]

    def read(limit: int) -> bytes:
        piece, left[0] = left[0][:limit], left[0][limit:]
        return piece

    return read


def build_copy(args: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """fds: where the layer's archive goes, a directory nobody may read, and more by index.

    args: view (of the destination), groups [{source, sources [[path, real, directory, hash, pattern]...], unpack}...], destination,
    chown ("": root; None: owners as they are), chmod, exclude, parents, clamp (seconds or None).
    """
    output, nowhere = fds[:2]
    wanted: list[tuple[int, Source, _Archive | None]] = []
    count = 0
    for group in args["groups"]:
        tree = _tree(group, fds)
        for source in ordered([Source(*item) for item in group["sources"]]):
            archive = _archive_of(tree, source, nowhere) if group["unpack"] and not source.directory else None
            count += archive is not None
            if count > _ARCHIVES_MAX:
                raise Refused(Kind.INVALID, f"failed to copy files: one ADD unpacks {_ARCHIVES_MAX} archives at most")
            wanted.append((tree, source, archive))
    with _copying(), _destination(args, fds) as (upper, lower, destination):
        matcher = dockerignore.Matcher(args["exclude"]) if args["exclude"] else None
        owner, mode = _owner(args["chown"]), _chmod(args["chmod"])
        for tree, source, archive in wanted:
            kept = kept_path(source.pattern, source.path) if args["parents"] else ""
            if matcher is not None and not source.directory and matcher.excludes(kept or os.path.basename(source.path)):
                continue
            options = Options(
                owner=owner,
                chmod=mode,
                excluded=None if matcher is None else partial(_excluded, matcher, kept),
                clamp=args["clamp"],
            )
            if archive is not None:
                archive.extract(destination)
            elif args["parents"]:
                destination.copy_with_parents(tree, source, kept, options)
            else:
                destination.copy(tree, source, options)
        outlet = Outlet(output)
        pour(changes.layer(upper, args["clamp"], lower=lower, outlet=outlet), outlet)
    return {}


@contextmanager
def _copying() -> Iterator[None]:
    """Docker's words for what is wrong with an archive or a destination."""
    try:
        yield
    except (Unfit, InvalidArchive, TruncatedArchive, compression.CompressionError) as error:
        raise Refused(Kind.INVALID, f"failed to copy files: {error}") from None


def _excluded(matcher: dockerignore.Matcher, top: str, path: str) -> bool:
    """Patterns of --exclude are below the source, with --parents below what its path is kept from."""
    return matcher.excludes(f"{top}/{path}" if top else path)


def _chmod(text: str) -> chmod.Chmod | None:
    try:
        return chmod.parse(text) if text else None
    except chmod.BadMode as error:
        raise Refused(Kind.INVALID, str(error)) from None


def build_mkdir(args: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """fds: where the layer's archive goes. args: view, destination, clamp. The directory is made where it is missing, root's."""
    with _destination(args, fds) as (upper, lower, destination):
        try:
            destination.make(None)
        except NotADirectoryError:
            raise Refused(Kind.SYSTEM, f"Cannot mkdir: {args['destination']} is not a directory") from None
        except Unfit as error:
            raise Refused(Kind.SYSTEM, str(error)) from None
        outlet = Outlet(fds[0])
        pour(changes.layer(upper, args["clamp"], lower=lower, outlet=outlet), outlet)
    return {}


class _destination:
    """Enter the destination's view; this process has no other root and only the rights to write there afterwards."""

    def __init__(self, args: dict[str, Any], fds: Sequence[int]) -> None:
        self._args, self._fds = args, fds
        self._stack = ExitStack()

    def __enter__(self) -> tuple[int, int, Destination]:
        lower = view.lower_of(self._args["view"], self._fds)
        upper = os.open(self._args["view"]["upper"], _DIRECTORY_FLAGS)
        permissions = self._stack.enter_context(Permissions())
        confine.limit(confine.EXTRACT, view.enter_detached(self._args["view"], self._fds))
        return upper, lower, Destination(self._args["destination"], permissions, Room(upper))

    def __exit__(self, *error: object) -> None:
        self._stack.close()


def _owner(chown: str | None) -> Owner | None:
    """uid and gid of `user[:group]`, by the tree's own tables. Of one alone: the group of that number or name, or else the user's own."""
    if chown is None:
        return None
    if not chown:
        return 0, 0
    user, colon, group = chown.partition(":")
    if ":" in group:
        raise Refused(Kind.INVALID, f"{_NO_OWNER}invalid chown string format: {chown}")
    uid, own = _user(user)
    if colon:
        return uid, _group(group, None)
    return uid, _group(user, own)


def _user(user: str) -> tuple[int, int | None]:
    """uid, and for a name its own group."""
    if (number := _number(user)) is not None:
        return number, None
    try:
        identity = users.resolve(user, []) if user and not user.isdecimal() else None
    except users.LookupFailure:
        identity = None
    if identity is None:
        raise Refused(Kind.INVALID, f"{_NO_OWNER}can't find uid for user {user}: no such user: {user}")
    return identity.uid, identity.gid


def _group(group: str, otherwise: int | None) -> int:
    """gid; `otherwise`, if there is no group of that name."""
    if (number := _number(group)) is not None:
        return number
    try:
        if group and not group.isdecimal():
            return users.resolve(f"0:{group}", []).gid
    except users.LookupFailure:
        pass
    if otherwise is None:
        raise Refused(Kind.INVALID, f"{_NO_OWNER}can't find gid for group {group}: no such group: {group}")
    return otherwise


def _number(text: str) -> int | None:
    """An ID that a file can have."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 11 and int(text) < ID_MAX else None


def build_squash(args: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """fds: where the layer's archive goes. args: old, new (`{"lowers": [...]}` each), clamp. The layer that makes one tree the other."""
    mounted = [view.lower_of(args[name], fds) for name in ("old", "new")]
    old, new = (os.open(".", _DIRECTORY_FLAGS, dir_fd=fd) for fd in mounted)  # a new mount is only a path
    confine.into_root(new, confine.READ)
    pour(treediff.layer(old, new, args["clamp"]), Outlet(fds[0]))
    return {}


def build_export(args: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """fds: where the archive goes. args: lowers. An image's whole tree."""
    mounted = view.lower_of(args, fds)
    root = os.open(".", _DIRECTORY_FLAGS, dir_fd=mounted)  # a new mount is only a path
    confine.into_root(root, confine.READ)
    outlet = Outlet(fds[0])
    pour(Packer(outlet=outlet).below(root, b""), outlet)
    return {}


def build_fill(args: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """fds: an empty directory, then as `source` says. args: source, path, directory, own (the directory becomes as the one copied)."""
    tree = _tree(args, fds)
    path = args["path"].strip("/")
    with Permissions() as permissions:
        confine.into_root(fds[0], confine.WRITE)
        try:
            fd = openat2(tree, os.fsencode(path) or b".", os.O_PATH | os.O_CLOEXEC, resolve=_RESOLVE)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        info = os.fstat(fd)
        os.close(fd)
        if stat.S_ISDIR(info.st_mode) != args["directory"]:
            return {}
        Destination("/", permissions, Room(fds[0])).copy(tree, Source(path, path, args["directory"], "", ""), Options(owner=None))
        if args["own"]:
            os.chown("/", info.st_uid, info.st_gid)
            os.chmod("/", stat.S_IMODE(info.st_mode))
    return {}


JOBS: dict[str, Callable[[dict[str, Any], list[int]], dict[str, Any]]] = {
    "context_in": context_in,
    "context_withhold": context_withhold,
    "context_out": context_out,
    "build_sources": build_sources,
    "build_copy": build_copy,
    "build_mkdir": build_mkdir,
    "build_squash": build_squash,
    "build_export": build_export,
    "build_fill": build_fill,
}
