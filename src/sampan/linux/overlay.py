"""overlayfs as a detached mount."""

import errno
import os

from sampan.linux import mounts


def mount_overlay(lowers: list[str], upper: str, work: str, attributes: int = 0) -> int:
    """A detached overlay, lowers top first, `upper` empty for a read-only one. Raises OSError.

    `lowerdir+` (6.5 and later) has no limit on the length of all paths together; older kernels get one `lowerdir=`,
    which fsconfig limits to 255 bytes, so paths are shortened through descriptors.
    """
    context = mounts.fsopen("overlay")
    held: list[int] = []
    try:
        try:
            for lower in lowers:
                mounts.fsconfig_string(context, "lowerdir+", lower)
        except OSError as error:
            if error.errno != errno.EINVAL or not lowers:
                raise
            os.close(context)
            context = mounts.fsopen("overlay")
            held = [os.open(lower, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for lower in lowers]
            mounts.fsconfig_string(context, "lowerdir", ":".join(f"/proc/self/fd/{fd}" for fd in held))
        if upper:
            mounts.fsconfig_string(context, "upperdir", upper)
            mounts.fsconfig_string(context, "workdir", work)
        # Without xino `du -x` and st_dev/st_ino lie across layers.
        mounts.fsconfig_string(context, "xino", "on")
        mounts.fsconfig_string(context, "source", "overlay")
        mounts.fsconfig_create(context)
        return mounts.fsmount(context, attributes)
    finally:
        os.close(context)
        for fd in held:
            os.close(fd)
