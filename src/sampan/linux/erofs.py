"""EROFS as a detached, file-backed mount (Linux 6.12 and later; 6.15 to stand under an overlay)."""

import os
from collections.abc import Sequence

from sampan.linux import mounts

_VALUE_MAX = 255


def mount_erofs(image: str, devices: Sequence[str] = ()) -> int:
    """A detached read-only mount of an image file; devices: the further files of a multi-device image, in its order. Raises OSError."""
    held: list[int] = []

    def name(path: str) -> str:
        """fsconfig limits a value to 255 bytes: a longer path becomes the name of a descriptor."""
        if len(os.fsencode(path)) <= _VALUE_MAX:
            return path
        held.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        return f"/proc/self/fd/{held[-1]}"

    context = mounts.fsopen("erofs")
    try:
        mounts.fsconfig_string(context, "source", name(image))
        mounts.fsconfig_flag(context, "ro")
        for device in devices:
            mounts.fsconfig_string(context, "device", name(device))
        mounts.fsconfig_create(context)
        return mounts.fsmount(context, mounts.MOUNT_ATTR_RDONLY | mounts.MOUNT_ATTR_NODEV)
    finally:
        for fd in (context, *held):
            os.close(fd)
