"""Whether the kernel enforces AppArmor profiles."""

from pathlib import Path


def enabled(sysfs: str = "/sys") -> bool:
    """What /sys/module/apparmor/parameters/enabled says."""
    try:
        return Path(sysfs, "module/apparmor/parameters/enabled").read_text().startswith("Y")
    except OSError:
        return False
