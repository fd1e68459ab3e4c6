"""ID-mapped mounts (mount_setattr(2), MOUNT_ATTR_IDMAP): the files of one user on the disk are another's inside. Linux 5.12."""

import os
import signal

from sampan.linux import libc, mounts
from sampan.linux.namespaces import CLONE_NEWUSER

_IDS = 2**32 - 1
"""One more than the last ID: the last number means none."""
Range = tuple[int, int, int]
"""(ID on the disk, ID inside, how many)"""


def ranges(on_disk: int, inside: int) -> list[Range]:
    """A map that makes one ID another, and leaves all others as they are; the disk's own `inside` has no name in there."""
    if on_disk == inside:
        return [(0, 0, _IDS)]
    low, high = sorted((on_disk, inside))
    gaps = ((0, low), (low + 1, high), (high + 1, _IDS))
    return [(on_disk, inside, 1), *((start, start, end - start) for start, end in gaps if end > start)]


def user_namespace(uids: list[Range], gids: list[Range]) -> int:
    """A descriptor of a new user namespace with these maps, in which nobody is. Single-threaded callers only. Raises OSError."""
    ready, told = os.pipe2(os.O_CLOEXEC)
    parent_gone, alive = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(alive)
            libc.unshare(CLONE_NEWUSER)
            os.write(told, os.readlink("/proc/self").encode())  # by the number that /proc knows, not that of our PID namespace
            os.read(parent_gone, 1)
            status = 0
        except OSError as error:
            os.write(told, f"!{error.errno or 0}".encode())
        finally:
            os._exit(status)
    os.close(told)
    os.close(parent_gone)
    try:
        word = os.read(ready, 32).decode()
        if not word or word.startswith("!"):
            number = int(word[1:] or 0)
            raise OSError(number, f"unshare: {os.strerror(number)}")
        for name, table in (("uid_map", uids), ("gid_map", gids)):
            fd = os.open(f"/proc/{word}/{name}", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(fd, "".join(f"{first} {second} {count}\n" for first, second, count in table).encode())
            finally:
                os.close(fd)
        return os.open(f"/proc/{word}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(ready)
        os.close(alive)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def give_to(mount_fd: int, uid: int, gid: int) -> None:
    """Have what belongs to the owner (and his group) of a detached mount's top belong to another inside, and the reverse on the disk.

    Raises OSError: EINVAL when the file system cannot be mapped.
    """
    owner = os.fstat(mount_fd)
    if (owner.st_uid, owner.st_gid) == (uid, gid):
        return
    userns = user_namespace(ranges(owner.st_uid, uid), ranges(owner.st_gid, gid))
    try:
        mounts.mount_setattr(mount_fd, attributes=mounts.MOUNT_ATTR_IDMAP, userns=userns)
    finally:
        os.close(userns)
