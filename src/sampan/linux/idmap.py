"""User namespaces, and ID-mapped mounts (mount_setattr(2), MOUNT_ATTR_IDMAP; Linux 5.12): the files of one user on the disk are another's
inside."""

import errno
import fcntl
import os
import signal
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

from sampan.linux import libc, mounts
from sampan.linux.namespaces import CLONE_NEWUSER, FLAGS

_IDS = 2**32 - 1
"""One more than the last ID: the last number means none."""
_NS_GET_PARENT = 0xB702
Range = tuple[int, int, int]
"""(ID on the disk, ID inside, how many)"""


def ranges(on_disk: int, inside: int) -> list[Range]:
    """A map that makes one ID another, and leaves all others as they are; the disk's own `inside` has no name in there."""
    if on_disk == inside:
        return [(0, 0, _IDS)]
    low, high = sorted((on_disk, inside))
    gaps = ((0, low), (low + 1, high), (high + 1, _IDS))
    return [(on_disk, inside, 1), *((start, start, end - start) for start, end in gaps if end > start)]


def outside(table: Sequence[Sequence[int]], number: int) -> int:
    """What an ID in a user namespace is outside, by its map's (ID inside, ID outside, how many). Raises OSError EINVAL: nothing."""
    for first, second, count in table:
        if first <= number < first + count:
            return second + number - first
    raise OSError(errno.EINVAL, f"ID {number} is not mapped")


def root_may_write(maps: Mapping[str, Sequence[Sequence[int]]], directory: os.stat_result) -> bool:
    """Whether root of a user namespace with these maps may make something in a directory (fs/inode.c, capable_wrt_inode_uidgid).

    Access control lists, which may allow more, are not looked at.
    """

    def has(table: Sequence[Sequence[int]], number: int) -> bool:
        return any(second <= number < second + count for _, second, count in table)

    if has(maps["uids"], directory.st_uid) and has(maps["gids"], directory.st_gid):
        return True
    return bool(directory.st_mode & (stat.S_IWGRP if directory.st_gid == outside(maps["gids"], 0) else stat.S_IWOTH))


def of_process(pid: int) -> int:
    """A descriptor of the user namespace right below ours that a process is in, be it in one of those made in there. Raises OSError.

    ProcessLookupError: it is in ours, or there is no such process.
    """
    own = os.stat("/proc/self/ns/user").st_ino
    try:
        fd = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH)) from None
    if os.fstat(fd).st_ino == own:
        os.close(fd)
        raise ProcessLookupError(errno.ESRCH, "in our own user namespace")
    while True:
        parent = fcntl.ioctl(fd, _NS_GET_PARENT)
        if os.fstat(parent).st_ino == own:
            os.close(parent)
            return fd
        os.close(fd)
        fd = parent


@contextmanager
def _child_doing(*works: Callable[[], None]) -> Iterator[Iterator[str]]:
    """A child that does one work after the other and lives as long as the block.

    The block's iterator has it do the next one, and gives the number that /proc knows it by; raises that work's OSError. For callers
    without threads. It ends with its parent, whatever ends that.
    """
    ready, told = os.pipe2(os.O_CLOEXEC)
    awaited, going_on = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(going_on)
            number = os.readlink("/proc/self")  # not that of our PID namespace
            for work in works:
                if os.read(awaited, 1):
                    work()
                    os.write(told, number.encode())
            os.read(awaited, 1)
            status = 0
        except OSError as error:
            os.write(told, f"!{error.errno or 0}".encode())
        finally:
            os._exit(status)
    os.close(told)
    os.close(awaited)

    def done() -> Iterator[str]:
        for _ in works:
            os.write(going_on, b"\n")
            word = os.read(ready, 32).decode()
            if not word or word.startswith("!"):
                failed = int(word[1:] or errno.ECHILD)
                raise OSError(failed, f"unshare: {os.strerror(failed)}")
            yield word

    try:
        yield done()
    finally:
        os.close(ready)
        os.close(going_on)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def new_namespaces(uids: Sequence[Sequence[int]], gids: Sequence[Sequence[int]], names: Sequence[str]) -> dict[str, int]:
    """Descriptors, by name, of a new user namespace with these maps, `user`, and of others that it owns; nobody is in them.

    names: as of namespaces_of(). Single-threaded callers only. Raises OSError.
    """

    def others() -> None:
        _take_root()
        libc.unshare(_flags(names))

    works = [lambda: libc.unshare(CLONE_NEWUSER), *([others] if names else [])]
    with _child_doing(*works) as done, ExitStack() as failed:
        number = next(done)
        for name, table in (("uid_map", uids), ("gid_map", gids)):
            fd = os.open(f"/proc/{number}/{name}", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(fd, "".join(f"{first} {second} {count}\n" for first, second, count in table).encode())
            finally:
                os.close(fd)
        if names:
            next(done)
        found = {}
        for name in ("user", *names):
            found[name] = os.open(f"/proc/{number}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC)
            failed.callback(os.close, found[name])
        failed.pop_all()
        return found


def user_namespace(uids: Sequence[Sequence[int]], gids: Sequence[Sequence[int]]) -> int:
    """A descriptor of a new user namespace with these maps, in which nobody is. Single-threaded callers only. Raises OSError."""
    return new_namespaces(uids, gids, ())["user"]


def become_root(userns: int) -> None:
    """Enter a user namespace as its root, with every capability there and none anywhere else. Single-threaded callers only."""
    libc.setns(userns, CLONE_NEWUSER)
    _take_root()


def _take_root() -> None:
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


def _flags(names: Sequence[str]) -> int:
    flags = 0
    for name in names:
        flags |= FLAGS[name]
    return flags


def namespaces_of(userns: int, names: Sequence[str]) -> dict[str, int]:
    """Descriptors, by name, of new namespaces that a user namespace owns: its root is privileged in them. Single-threaded callers only.

    names: as under /proc/PID/ns; not pid and user. Raises OSError.
    """

    def work() -> None:
        become_root(userns)
        libc.unshare(_flags(names))

    with _child_doing(work) as done:
        number = next(done)
        return {name: os.open(f"/proc/{number}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC) for name in names}


def map_mount(mount_fd: int, userns: int) -> None:
    """Have the IDs on a detached mount's disk be those inside a user namespace. Raises OSError: EINVAL when it cannot be mapped."""
    mounts.mount_setattr(mount_fd, attributes=mounts.MOUNT_ATTR_IDMAP, userns=userns)


def show_as_inside(mount_fd: int, uids: Sequence[Sequence[int]], gids: Sequence[Sequence[int]]) -> None:
    """Have what belongs to the users of a user namespace on a detached mount's disk, as the host knows them, be what they are inside.

    What is anybody else's is nobody's, and stays as it is, whoever tries. With all that is mounted in it. Single-threaded callers only.
    Raises OSError: EINVAL or EPERM when a file system cannot be mapped, or is already; nothing is mapped then.
    """
    userns = user_namespace(*([(there, here, count) for here, there, count in table] for table in (uids, gids)))
    try:
        mounts.mount_setattr(mount_fd, attributes=mounts.MOUNT_ATTR_IDMAP, userns=userns, recursive=True)
    finally:
        os.close(userns)


def give_to(mount_fd: int, uid: int, gid: int) -> None:
    """Have what belongs to the owner (and his group) of a detached mount's top belong to another inside, and the reverse on the disk.

    Raises OSError: EINVAL when the file system cannot be mapped.
    """
    owner = os.fstat(mount_fd)
    if (owner.st_uid, owner.st_gid) == (uid, gid):
        return
    userns = user_namespace(ranges(owner.st_uid, uid), ranges(owner.st_gid, gid))
    try:
        map_mount(mount_fd, userns)
    finally:
        os.close(userns)
