"""A worker inside a container's file tree: what the container sees of it, or would see if it ran, is this process's root afterwards.

Everything is mounted in a mount namespace of this process's own: whatever ends it, nothing stays mounted.
"""

import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from sampan.linux import capabilities, idmap, libc, mounts, overlay
from sampan.linux.namespaces import CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS

_KERNEL_FILE_SYSTEMS = frozenset(
    ("proc", "sysfs", "cgroup", "cgroup2", "devpts", "devtmpfs", "mqueue", "securityfs", "debugfs", "tracefs", "bpf", "configfs",
     "pstore", "efivarfs", "binfmt_misc", "fusectl", "hugetlbfs", "autofs", "rpc_pipefs", "nsfs")
)  # fmt: skip
"""Not files: reading some never ends, writing some changes the host. Docker's own view has none of them either."""


class Gone(Exception):
    """The container's process ended before its tree could be entered."""


def enter(view: dict[str, Any], fds: Sequence[int], *, binds: bool) -> int:
    """Make the container's tree the root. view: see engine/trees.py; binds: with what is mounted in it, else the bare root file system.

    Returns the bounding set for confine.limit(), which is to follow before anything in there is touched. Raises Gone, OSError.
    """
    bounding = capabilities.bounding_set()  # from /proc, which is about to be out of reach
    libc.unshare(CLONE_NEWNET | CLONE_NEWIPC)
    if "pidfd" in view:
        bounding = _enter_running(view, fds, binds) or bounding
    else:
        _enter_stopped(view, fds, binds)
    os.chdir("/")
    return bounding


def enter_detached(view: dict[str, Any], fds: Sequence[int]) -> int:
    """Make a tree that nobody else is at the root, without a mount namespace: the mount is nowhere but in this process. No device opens.

    view: upper, work, lowers. Returns the bounding set for confine.limit(), which is to follow.
    """
    bounding = capabilities.bounding_set()  # from /proc, which is about to be out of reach
    root = overlay.mount_overlay(_lowers(view, fds), view["upper"], view["work"], mounts.MOUNT_ATTR_NODEV)
    os.fchdir(root)
    os.chroot(".")
    os.close(root)
    return bounding


def without_devices() -> None:
    """A mount namespace of this process's own in which no device node opens: images and containers make nodes of the host's devices,
    whose cgroup keeps the containers from opening them, not us."""
    libc.unshare(CLONE_NEWNS)
    mounts.mount(None, "/", None, mounts.MS_PRIVATE | mounts.MS_REC)
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    mounts.mount_setattr(root, attributes=mounts.MOUNT_ATTR_NODEV, recursive=True)
    os.close(root)


def _enter_running(view: dict[str, Any], fds: Sequence[int], binds: bool) -> int:
    """Join the mount namespace, then leave it with a copy: what is taken off here stays on there.

    A container's user namespace is entered with it: there are its own users then, and no rights but its root's. The bounding set that this
    process has by that, 0: it is as before.
    """
    pid, pidfd = view["pid"], fds[view["pidfd"]]
    try:
        hidden = _kernel_mounts(pid) if binds else []
        userns = idmap.of_process(pid) if view["userns"] else -1
        signal.pidfd_send_signal(pidfd, 0)  # still the same process: its mounts were the ones just read
        libc.setns(pidfd, CLONE_NEWNS)
    except (FileNotFoundError, ProcessLookupError):
        raise Gone("the container ended") from None
    if userns >= 0:
        idmap.become_root(userns)
        os.close(userns)
    _leave_with_copy(hidden, binds)
    return 0 if userns < 0 else capabilities.bounding_now()


def _leave_with_copy(hidden: Sequence[str], binds: bool) -> None:
    if not binds:
        root = mounts.clone_tree(mounts.AT_FDCWD, "/", False)
        mounts.mount_setattr(root, attributes=mounts.MOUNT_ATTR_NODEV)
        os.fchdir(root)
        os.chroot(".")
        os.close(root)
        return
    without_devices()
    for path in hidden:
        with suppress(OSError):  # most are gone with the one they are in
            mounts.umount2(path, mounts.MNT_DETACH | mounts.UMOUNT_NOFOLLOW)


def _kernel_mounts(pid: int) -> list[str]:
    """Mount points, outermost first, of what must not be seen. /dev is docker's tmpfs of device nodes."""
    found: list[str] = []
    with open(f"/proc/{pid}/mountinfo", "rb") as file:
        for line in file:
            before, _, after = line.partition(b" - ")
            place = before.split()[4].decode("unicode_escape").encode("latin-1")
            if place == b"/dev" or after.split()[0].decode(errors="replace") in _KERNEL_FILE_SYSTEMS:
                found.append(os.fsdecode(place))
    return found


def _enter_stopped(view: dict[str, Any], fds: Sequence[int], binds: bool) -> None:
    wanted = view["binds"] if binds else []
    without_devices()
    copies = [_copy_of(bind, fds) for bind in wanted]
    root = overlay.mount_overlay(_lowers(view, fds), view["upper"], view["work"], mounts.MOUNT_ATTR_NODEV)
    # any directory will do, and nobody else sees it there
    place = os.open(view["upper"], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    mounts.move_mount(root, place, view["upper"])
    os.close(place)
    for bind, fd in zip(wanted, copies, strict=True):
        if bind["readonly"]:
            mounts.mount_setattr(fd, attributes=mounts.MOUNT_ATTR_RDONLY, recursive=bind["readonly_recursive"])
        target = mounts.ensure_in_root(root, bind["destination"], os.path.isdir(f"/proc/self/fd/{fd}"))
        if "fd" in bind and bind.get("subpath"):
            fd = mounts.cut_down(fd, bind["subpath"], target)
            target = mounts.ensure_in_root(root, bind["destination"], os.path.isdir(f"/proc/self/fd/{fd}"))
        mounts.move_mount(fd, target, bind["destination"])
        os.close(target)
        os.close(fd)
    mounts.pivot_into(root)
    os.close(root)


def _copy_of(bind: dict[str, Any], fds: Sequence[int]) -> int:
    """A detached mount of what is to be mounted."""
    if "fd" in bind:
        return os.dup(fds[bind["fd"]])
    fd = mounts.clone_below(bind["source"], bind.get("subpath", ""), bind["recursive"])
    if maps := bind.get("maps"):
        try:
            idmap.show_as_inside(fd, maps["uids"], maps["gids"])
        except OSError:  # we have rights there that the container has not
            mounts.mount_setattr(fd, attributes=mounts.MOUNT_ATTR_RDONLY, recursive=True)
    return fd


def shown_as_inside(directory: int, maps: dict[str, Any]) -> int:
    """A directory of the host's with the IDs that a container has for its users. Before enter(), the mount's namespace is left then.

    Raises OSError when its file system cannot be mapped.
    """
    mount = mounts.clone_tree(directory, "", False)
    try:
        idmap.show_as_inside(mount, maps["uids"], maps["gids"])
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=mount)
    finally:
        os.close(mount)


def _lowers(view: dict[str, Any], fds: Sequence[int]) -> list[str | int]:
    return [lower if isinstance(lower, str) else fds[lower] for lower in view["lowers"]]


def lower_of(view: dict[str, Any], fds: Sequence[int]) -> int:
    """A descriptor of the tree below the writable one: the image as the container got it. Raises OSError."""
    lowers = _lowers(view, fds)
    if len(lowers) > 1:
        return overlay.mount_overlay(lowers, "", "", mounts.MOUNT_ATTR_RDONLY | mounts.MOUNT_ATTR_NODEV)
    only = lowers[0]  # overlayfs without an upper layer wants two
    return os.dup(only) if isinstance(only, int) else os.open(only, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
