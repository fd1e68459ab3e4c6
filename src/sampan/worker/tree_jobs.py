"""Jobs on containers' file trees: stat, read and write paths, list changes, export, the layer of what changed."""

import errno
import os
import posixpath
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from sampan.archive import changes, compression, writer
from sampan.archive.extract import TreeExtractor
from sampan.archive.pack import Outlet, Packer, xattrs_of
from sampan.archive.reader import TarReader
from sampan.archive.room import Room
from sampan.archive.source import PipeSource, Source
from sampan.archive.trees import own_tree
from sampan.linux import idmap, users
from sampan.linux.openat2 import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, openat2
from sampan.linux.permissions import Permissions
from sampan.linux.syncfs import syncfs
from sampan.worker import confine, view
from sampan.worker.budget import Budget
from sampan.worker.jobs import Decompressor, checked, reader_of
from sampan.worker.wire import Kind

_RESOLVE = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_BATCH = 1 << 16
"""Bytes of JSON; a packet holds twice that."""
Send = Callable[[dict[str, Any]], None]


class Refused(Exception):
    """A job's no, the message for the user."""

    def __init__(self, kind: Kind, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


def absolute(path: str) -> str:
    """Docker's form of a path in a container: from the root, without `..`, a trailing `/` or `/.` kept (PreserveTrailingDotOrSeparator)."""
    clean = posixpath.normpath("/" + path)
    clean = "/" + clean.lstrip("/")
    if posixpath.basename(path) == ".":
        return clean.rstrip("/") + "/."
    return clean if clean == "/" or not path.endswith("/") else clean + "/"


def _base(path: str) -> str:
    """Go's filepath.Base: the last element, `/` for the root; a final `.` counts as one."""
    return path.rstrip("/").rpartition("/")[2] or "/"


def _reason(error: OSError) -> str:
    return os.strerror(error.errno or 0).lower()


def _refusal(error: OSError, path: str, what: str) -> Refused:
    if error.errno == errno.ENOENT:
        return Refused(Kind.MISSING, path)
    return Refused(Kind.SYSTEM, f"{what}{_reason(error)}")


def _link_end(path: str) -> str:
    """Where a symlink leads, as far as there is something (moby symlink.FollowSymlinkInScope). Raises Refused for a loop."""
    done, todo, links = "/", [part for part in path.split("/") if part], 0
    while todo:
        part = todo.pop(0)
        if part == "..":
            done = posixpath.dirname(done)
            continue
        place = posixpath.join(done, part)
        try:
            target = os.readlink(place)
        except OSError:
            done = place
            continue
        links += 1
        if links > 255:
            raise Refused(Kind.SYSTEM, f"evalSymlinksInScope: too many links in {path}")
        done = "/" if target.startswith("/") else done
        todo[:0] = [piece for piece in target.split("/") if piece not in ("", ".")]
    return done


def _stat_of(root: int, path: str) -> dict[str, Any]:
    """What X-Docker-Container-Path-Stat tells. Raises Refused."""
    try:
        fd = openat2(root, os.fsencode(path), os.O_PATH | os.O_NOFOLLOW, resolve=_RESOLVE)
    except OSError as error:
        raise _refusal(error, path, f"lstat {path}: ") from None
    info = os.fstat(fd)
    os.close(fd)
    target = _link_end(path) if stat.S_ISLNK(info.st_mode) else ""
    return {"name": _base(path), "size": info.st_size, "mode": info.st_mode, "mtime_ns": info.st_mtime_ns, "link_target": target}


def _root() -> int:
    return os.open("/", _DIRECTORY_FLAGS)


def path_stat(args: dict[str, Any], fds: list[int], send: Send) -> dict[str, Any]:
    """args: view, path. -> name, size, mode (st_mode), mtime_ns, link_target."""
    confine.limit(confine.READ, view.enter(args["view"], fds, binds=True))
    return _stat_of(_root(), absolute(args["path"]))


def path_read(args: dict[str, Any], fds: list[int], send: Send) -> dict[str, Any]:
    """fds: where the archive goes. args: view, path. Sends the stat first, then writes the archive."""
    confine.limit(confine.READ, view.enter(args["view"], fds, binds=True))
    root, path = _root(), absolute(args["path"])
    send({"stat": _stat_of(root, path)})
    name = os.fsencode(_base(path))
    outlet = Outlet(fds[0])
    packer = Packer(outlet=outlet)
    if name in (b".", b"/") or path.endswith("/"):
        directory = openat2(root, os.fsencode(path), _DIRECTORY_FLAGS, resolve=_RESOLVE)
        pieces = _directory_pieces(packer, directory, name)
    else:
        parent = openat2(root, os.fsencode(posixpath.dirname(path)), _DIRECTORY_FLAGS, resolve=_RESOLVE)
        pieces = packer.tree(parent, name, name)
    pour(pieces, outlet)
    return {}


def _directory_pieces(packer: Packer, directory: int, name: bytes) -> Iterator[bytes]:
    yield packer.directory(directory, name, os.fstat(directory))
    yield from packer.below(directory, name)


def pour(pieces: Iterator[bytes], outlet: Outlet) -> None:
    """Write an archive and its end. Nobody reading any more is no error: who asked has left."""
    with suppress(BrokenPipeError):
        for piece in pieces:
            outlet.write(piece)
        outlet.write(writer.END)
        outlet.flush()


def path_write(args: dict[str, Any], fds: list[int], send: Send) -> dict[str, Any]:
    """fds: the archive, a directory nobody may read. args: view, path, user ("" = owners as in the archive), replace, readonly, mounts."""
    archive, nowhere = fds[:2]
    permissions = Permissions()
    rights = view.enter(args["view"], fds, binds=True)  # before anything is read: a container that ends just now is tried again
    head, read = compression.peek(reader_of(archive))
    kind = compression.detect(head)
    child = Decompressor(kind, head, archive, nowhere) if kind else None
    confine.limit(confine.WRITE, rights)
    root, path = _root(), absolute(args["path"])
    target, place = _extraction_point(root, path)
    _check_writable(place, args)
    owner = None
    if args["user"]:
        try:
            identity = users.resolve(args["user"], [])
        except users.LookupFailure as error:
            raise Refused(Kind.INVALID, error.message) from None
        owner = identity.uid, identity.gid
    budget = Budget()
    if child is None:
        source = PipeSource(archive, budget.metered(read), budget.more)
    else:
        source = PipeSource(child.output, budget.metered(reader_of(child.output)), budget.more)
    with checked(child):
        with TreeExtractor(target, Room(target), owner=owner, replace=args["replace"], place=place, permissions=permissions) as extractor:
            extractor.apply(TarReader(source))
        source.drain()
    return {}


def _extraction_point(root: int, path: str) -> tuple[int, str]:
    """The directory to extract into, and its path without symlinks."""
    try:
        fd = openat2(root, os.fsencode(path), os.O_PATH, resolve=_RESOLVE)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise Refused(Kind.SYSTEM, "EvalSymlinks: too many links") from None
        raise _refusal(error, path, "") from None
    if not stat.S_ISDIR(os.fstat(fd).st_mode):
        raise Refused(Kind.INVALID, "extraction point is not a directory")
    target = os.open(".", _DIRECTORY_FLAGS, dir_fd=fd)
    os.close(fd)
    return target, _link_end(path.removesuffix("/."))


def _check_writable(place: str, args: dict[str, Any]) -> None:
    """Docker's two refusals (moby daemon checkIfPathIsInAVolume); the innermost mount around the place counts."""
    around = [
        mount for mount in args["mounts"] if place == mount["destination"] or place.startswith(mount["destination"].rstrip("/") + "/")
    ]
    if around:
        if not max(around, key=lambda mount: len(mount["destination"]))["rw"]:
            raise Refused(Kind.INVALID, "mounted volume is marked read-only")
    elif args["readonly"]:
        raise Refused(Kind.INVALID, "container rootfs is marked read-only")


def tree_export(args: dict[str, Any], fds: list[int], send: Send) -> dict[str, Any]:
    """fds: where the archive goes. args: view. The whole root file system, mounts not included."""
    confine.limit(confine.READ, view.enter(args["view"], fds, binds=False))
    send({"started": True})
    outlet = Outlet(fds[0])
    pour(Packer(outlet=outlet).below(_root(), b""), outlet)
    return {}


def _own(args: dict[str, Any]) -> frozenset[bytes]:
    """The names of what the engine makes itself."""
    return frozenset(map(os.fsencode, args["view"]["own"]))


def tree_changes(args: dict[str, Any], fds: list[int], send: Send) -> dict[str, Any]:
    """args: view. Sends what differs from the image, some at a time: [kind (0 changed, 1 added, 2 deleted), path] -> count"""
    view.without_devices()
    lower = view.lower_of(args["view"], fds) if "lowers" in args["view"] else -1
    upper = os.open(args["view"]["upper"], _DIRECTORY_FLAGS)
    confine.into_root(upper, confine.COMPARE)
    count = 0
    batch: list[tuple[int, str]] = []
    size = 0
    for kind, path in changes.changes(upper, lower, _own(args)):
        length = 6 * len(path) + 16  # each byte may have to be escaped
        if size + length > _BATCH:
            send({"changes": batch})
            batch, size = [], 0
        batch.append((kind, os.fsdecode(path)))
        size += length
        count += 1
    send({"changes": batch})
    return {"count": count}


def tree_diff(args: dict[str, Any], fds: list[int], send: Send) -> dict[str, Any]:
    """fds: where the archive goes. args: view, clamp (seconds or None), without (paths that are left out as long as they are
    empty; may be missing). The layer that makes the image what the tree is now."""
    view.without_devices()
    lower = view.lower_of(args["view"], fds) if "lowers" in args["view"] else -1
    upper = os.open(args["view"]["upper"], _DIRECTORY_FLAGS)
    confine.into_root(upper, confine.COMPARE)
    without = frozenset(map(os.fsencode, args.get("without", ())))
    outlet = Outlet(fds[0])
    pour(changes.layer(upper, args["clamp"], _own(args), without, lower, outlet), outlet)
    return {}


def tree_pack(args: dict[str, Any], fds: list[int], send: Send) -> dict[str, Any]:
    """fds: a root file system, where its archive goes. args: begun (seconds). Sends its dpkg packages, name=version -> epoch (seconds)

    What was made since `begun` gets the time of the newest file in /usr that was not: that of the packages it was made of.
    """
    root, output = fds
    confine.into_root(root, confine.READ)
    packages = _packages()
    for start in range(0, len(packages), 500):
        send({"packages": packages[start : start + 500]})
    epoch = 0
    stack = [os.open("usr", _DIRECTORY_FLAGS | os.O_NOFOLLOW, dir_fd=root)]
    while stack:
        here = stack.pop()
        with os.scandir(here) as entries:
            for entry in entries:
                info = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(info.st_mode) and epoch < info.st_mtime < args["begun"]:
                    epoch = int(info.st_mtime)
                if stat.S_ISDIR(info.st_mode):
                    stack.append(os.open(entry.name, _DIRECTORY_FLAGS | os.O_NOFOLLOW, dir_fd=here))
        os.close(here)
    outlet = Outlet(output)
    pour(Packer(epoch, outlet).below(root, b""), outlet)
    return {"epoch": epoch}


def volume_fill(args: dict[str, Any], fds: list[int], send: Send) -> dict[str, Any]:
    """fds: for each place an empty directory.

    args: view, places (path; only_directory: a file there is refused; maps: of a user namespace whose IDs outside are meant, or None).
    Each directory becomes what the container has at its place, where that is a directory; all is on disk then.
    """
    permissions = Permissions()
    targets = [_target(fd, place) for fd, place in zip(fds, args["places"], strict=False)]  # what is further in fds is the view's
    confine.limit(confine.WRITE, view.enter(args["view"], fds, binds=False))
    root = _root()
    for given, target, place in zip(fds, targets, args["places"], strict=False):
        path = absolute(place["path"])
        try:
            fd = openat2(root, os.fsencode(path), os.O_PATH, resolve=_RESOLVE)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                kind = Kind.INVALID if error.errno in (errno.ENAMETOOLONG, errno.ELOOP) else Kind.SYSTEM  # what was asked for is wrong
                raise Refused(kind, f"failed to populate volume: {path}: {_reason(error)}") from None
            continue
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            if maps := place.get("maps"):  # nothing comes into a directory that is nobody's
                os.fchown(given, idmap.outside(maps["uids"], 0), idmap.outside(maps["gids"], 0))
            _copy_directory(os.open(".", _DIRECTORY_FLAGS, dir_fd=fd), target, permissions)
        elif place["only_directory"]:
            raise Refused(Kind.INVALID, f"cannot mount volume over existing file, file exists {path}")
        os.close(fd)
    return {}


def _target(fd: int, place: dict[str, Any]) -> int:
    """The directory as the container's users are to have it."""
    if not place.get("maps"):
        return fd
    try:
        return view.shown_as_inside(fd, place["maps"])
    except OSError as error:
        words = f"idmap: {_reason(error)}: the file system of the volume, or this kernel, has no ID-mapped mounts"
        raise Refused(Kind.SYSTEM, f"failed to populate volume: {place['path']}: {words}") from error


def _copy_directory(source: int, target: int, permissions: Permissions) -> None:
    """Owner, mode, xattrs and all that is in a directory, by way of an archive: what both ends can do is tested there."""
    info = os.fstat(source)
    archive = Source(Budget().metered(_reader(_whole(Packer().below(source, b"")))), hashed=False)
    with TreeExtractor(target, Room(target), permissions=permissions) as extractor:
        extractor.apply(TarReader(archive))
    os.fchown(target, info.st_uid, info.st_gid)
    os.fchmod(target, stat.S_IMODE(info.st_mode))
    for name, value in xattrs_of(source).items():
        os.setxattr(target, name, value)
    syncfs(target)
    os.close(source)


def _whole(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """An archive with its end."""
    yield from pieces
    yield writer.END


def _reader(pieces: Iterator[bytes]) -> compression.Read:
    """What Source reads from."""
    rest = memoryview(b"")

    def read(limit: int) -> bytes:
        nonlocal rest
        while not rest:
            piece = next(pieces, None)
            if piece is None:
                return b""
            rest = memoryview(piece)
        found, rest = rest[:limit], rest[limit:]
        return bytes(found)

    return read


def tree_chown(args: dict[str, Any], fds: list[int], send: Send) -> dict[str, Any]:
    """fds: a directory or file. args: view, user, maps (None, or of a user namespace whose IDs outside are meant).

    All of it is to belong to the container's user; nothing is done when its top does.
    """
    confine.limit(confine.WRITE, view.enter(args["view"], fds, binds=False))
    try:
        identity = users.resolve(args["user"], [])
    except users.LookupFailure as error:
        raise Refused(Kind.INVALID, error.message) from None
    uid, gid = identity.uid, identity.gid
    if maps := args.get("maps"):
        try:
            uid, gid = idmap.outside(maps["uids"], uid), idmap.outside(maps["gids"], gid)
        except OSError as error:
            raise Refused(Kind.INVALID, error.strerror or "") from None
    info = os.fstat(fds[0])
    if (info.st_uid, info.st_gid) != (uid, gid):
        if stat.S_ISDIR(info.st_mode):
            own_tree(fds[0], uid, gid)
        os.fchown(fds[0], uid, gid)  # last: a job that was killed begins again
    return {}


def _packages() -> list[str]:
    """Installed packages by dpkg's own list in the current root, sorted."""
    try:
        with open("var/lib/dpkg/status", encoding="utf-8", errors="replace") as file:
            blocks = file.read().split("\n\n")
    except FileNotFoundError:
        return []
    found = []
    for block in blocks:
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line and not line.startswith(" "))
        if fields.get("Status", "").endswith(" installed"):
            found.append(f"{fields['Package']}={fields['Version']}")
    return sorted(found)


JOBS: dict[str, Callable[[dict[str, Any], list[int], Send], dict[str, Any]]] = {
    "path_stat": path_stat,
    "path_read": path_read,
    "path_write": path_write,
    "tree_export": tree_export,
    "tree_changes": tree_changes,
    "tree_diff": tree_diff,
    "tree_pack": tree_pack,
    "volume_fill": volume_fill,
    "tree_chown": tree_chown,
}
