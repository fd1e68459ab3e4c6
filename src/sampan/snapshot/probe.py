"""Which snapshot driver works in a data root: found out by using it."""

import errno
import os
from contextlib import suppress
from pathlib import Path
from threading import Thread

from sampan.archive import layerfile, writer
from sampan.archive.reader import DIRECTORY, REGULAR
from sampan.archive.trees import remove_tree
from sampan.errors import SystemFailure
from sampan.linux.erofs import mount_erofs
from sampan.linux.overlay import mount_overlay

Status = list[tuple[str, str]]


def choose(root: Path, wanted: str) -> tuple[str, Status, str]:
    """(driver of new layers, rows for `docker info`, why erofs cannot be used or ""). wanted: "" for the best that works.

    Raises SystemFailure when what is wanted, or overlayfs at all, does not work in this data root.
    """
    probe_overlay(root)
    reason = ""
    try:
        probe_erofs(root)
    except SystemFailure as error:
        reason = error.message
    if wanted == "erofs" and reason:
        raise SystemFailure(f"storage-driver erofs: {reason}")
    by = "storage-driver" if wanted else "probe"
    if wanted in ("", "erofs") and not reason:
        return "erofs", [("Backing Filesystem", backing(root)), ("Chosen by", by)], ""
    rows = [("Backing Filesystem", backing(root)), ("Supports d_type", "true"), ("Using metacopy", "false"), ("Chosen by", by)]
    if reason:  # also when overlay2 was asked for: layers that erofs made cannot be mounted
        rows.append(("Not erofs", reason))
    return "overlay2", rows, reason


def backing(root: Path) -> str:
    """The kind of file system the data root is on, in dockerd's words."""
    device = os.stat(root).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    kind = "unknown"
    with open("/proc/self/mountinfo") as file:
        for line in file:
            fields = line.split()
            if fields[2] == wanted:
                kind = fields[fields.index("-") + 1]
    return {"ext2": "extfs", "ext3": "extfs", "ext4": "extfs", "btrfs": "btrfs"}.get(kind, kind)


_FILE_XATTR = (b"security.capability", b"\1\0\0\2\0\4" + bytes(14))
_DIRECTORY_XATTR = (b"user.sampan", b"probe")


def _probe_layer() -> bytes:
    """A layer with what real ones have."""
    content = b"lower".ljust(6000, b".")
    return b"".join(
        (
            writer.header(b"d", DIRECTORY, mode=0o755, xattrs=dict([_DIRECTORY_XATTR])),
            writer.header(b"d/.wh.gone", REGULAR, mode=0o600),
            writer.header(b"d/file", REGULAR, mode=0o755, size=len(content), mtime=-1, xattrs=dict([_FILE_XATTR])),
            content,
            writer.padding(len(content)),
            writer.END,
        )
    )


def probe_erofs(root: Path) -> None:
    """Use a layer file as the driver does: detached, under an overlay, with another overlay upon that. Raises SystemFailure.

    Never by version number: file-backed mounts came with 6.12, detached ones under an overlay with 6.15; tmpfs cannot hold the file, some
    kernels count EROFS as a level of stacking, others lack its xattrs.
    """
    base = root / "erofs-probe"
    parent = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    held: list[int] = []
    try:
        remove_tree(parent, base.name)
        for name in ("low/d", "upper", "work", "upper2", "work2"):
            (base / name).mkdir(mode=0o755, parents=True)
        (base / "low/d/gone").touch()
        file = os.open(base / "layer", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        held.append(file)
        archive = memoryview(_probe_layer())
        position = 0

        def read(limit: int) -> bytes:
            nonlocal position
            piece = bytes(archive[position : position + limit])
            position += len(piece)
            return piece

        layerfile.write(read, file)
        layer = mount_erofs(str(base / "layer"))
        held.append(layer)
        tree = mount_overlay([layer, str(base / "low")], str(base / "upper"), str(base / "work"))
        held.append(tree)
        _check_tree(tree)
        held.append(mount_overlay([tree, str(base / "low")], str(base / "upper2"), str(base / "work2")))
        os.close(os.open("d/file", os.O_RDWR | os.O_CLOEXEC, dir_fd=held[-1]))  # copy-up
    except OSError as error:
        raise SystemFailure(f"file-backed EROFS layers do not work in {root}: {error.strerror or error}") from error
    finally:
        _unmount(held)
        with suppress(OSError):
            remove_tree(parent, base.name)
        os.close(parent)


def _unmount(fds: list[int]) -> None:
    """Close detached mounts, the last first, in the background: each waits for a grace period of the kernel, sampand's start for none."""

    def close() -> None:
        for fd in reversed(fds):
            os.close(fd)

    Thread(target=close).start()


def _check_tree(tree: int) -> None:
    """Read the probe's layer through an overlay. Raises OSError."""
    file = os.open("d/file", os.O_RDONLY | os.O_CLOEXEC, dir_fd=tree)
    directory = os.open("d", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=tree)
    try:
        if os.read(file, 8000) != b"lower".ljust(6000, b".") or os.fstat(file).st_mtime_ns != -1_000_000_000:
            raise OSError(errno.EIO, "a file has another content than it should")
        if os.getxattr(file, _FILE_XATTR[0]) != _FILE_XATTR[1] or os.getxattr(directory, _DIRECTORY_XATTR[0]) != _DIRECTORY_XATTR[1]:
            raise OSError(errno.EIO, "extended attributes are not kept")
        if os.listdir(directory) != ["file"]:
            raise OSError(errno.EIO, "a whiteout hides nothing")
    finally:
        os.close(file)
        os.close(directory)


def probe_overlay(root: Path) -> None:
    """Mount a small overlay inside the data root and use it. Raises SystemFailure that says what is wrong and what helps.

    Never by version number: tmpfs may lack xattrs, an overlay data root cannot hold upper directories, a sandbox may forbid mount.
    """
    base = root / "overlay-probe"
    parent = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    names = ("low", "low2", "upper", "work")
    try:
        remove_tree(parent, base.name)  # left by a probe that was killed
        for name in names:
            (base / name).mkdir(mode=0o755, parents=True)
        (base / "low/file").write_bytes(b"lower")
        os.setxattr(base / "low2", "trusted.overlay.opaque", b"y")
        mount_fd = mount_overlay([str(base / "low"), str(base / "low2")], str(base / "upper"), str(base / "work"))
        try:
            file = os.open("file", os.O_RDWR | os.O_CLOEXEC, dir_fd=mount_fd)
            os.pwrite(file, b"UPPER", 0)  # copy-up
            os.close(file)
            os.unlink("file", dir_fd=mount_fd)  # whiteout
        finally:
            _unmount([mount_fd])
    except OSError as error:
        hint = "the data root must be on a file system like ext4 or xfs, and mounting must be allowed here"
        if error.errno in (errno.EPERM, errno.EACCES):
            hint = "mounting is not allowed here: sampand needs root with CAP_SYS_ADMIN"
        raise SystemFailure(f"overlayfs does not work in {root}: {error.strerror}; {hint}") from error
    finally:
        with suppress(OSError):
            remove_tree(parent, base.name)
        os.close(parent)
