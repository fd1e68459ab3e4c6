"""Which snapshot driver works in a data root: found out by using it."""

import errno
import os
from contextlib import suppress
from pathlib import Path

from sampan.archive.trees import remove_tree
from sampan.errors import SystemFailure
from sampan.linux.overlay import mount_overlay


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
            os.close(mount_fd)
    except OSError as error:
        hint = "the data root must be on a file system like ext4 or xfs, and mounting must be allowed here"
        if error.errno in (errno.EPERM, errno.EACCES):
            hint = "mounting is not allowed here: sampand needs root with CAP_SYS_ADMIN"
        raise SystemFailure(f"overlayfs does not work in {root}: {error.strerror}; {hint}") from error
    finally:
        with suppress(OSError):
            remove_tree(parent, base.name)
        os.close(parent)
