"""AppArmor: whether the kernel enforces profiles, and which one is this process's after its next execve."""

import os


def enabled(sysfs: str = "/sys") -> bool:
    """What /sys/module/apparmor/parameters/enabled says."""
    try:
        with open(f"{sysfs}/module/apparmor/parameters/enabled") as file:
            return file.read().startswith("Y")
    except OSError:
        return False


def confine_at_exec(profile: str, attributes: str = "/proc/self/attr") -> None:
    """Have a loaded profile, or `unconfined`, from the next execve on (aa_change_onexec). "" changes nothing. Raises OSError.

    Its own directory came with Linux 5.8; before, and with only this module, the file is all modules'.
    """
    if not profile:
        return
    path = f"{attributes}/apparmor/exec"
    path = path if os.path.exists(path) else f"{attributes}/exec"
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, f"exec {profile}".encode())
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    finally:
        os.close(fd)
