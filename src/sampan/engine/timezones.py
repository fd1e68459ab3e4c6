"""A container's time zone (`--tz`): the host's data of it, in a file that is mounted on /etc/localtime.

C libraries read that file whether an image has zones of its own or not. TZ names a zone that most images lack, which then means UTC.
"""

import os
import re
from pathlib import Path

from sampan.engine.launch_failures import StartFailure
from sampan.errors import InvalidArgument

LOCAL = "local"
"""The host's own."""
FILE = "localtime"
"""In /etc of a container, and in its directory."""
_HOSTS = "/etc/localtime"
_NAME = re.compile(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*", re.ASCII)
_MAGIC = b"TZif"
_MAX_BYTES = 1 << 20


def check(zone: str) -> None:
    """Raises InvalidArgument for a zone that the host does not know; "" is none."""
    if zone:
        _read(zone)


def write(zone: str, directory: str) -> None:
    """The file for a run that is about to start: the host may be in another zone since the last. Raises StartFailure."""
    try:
        data = _read(zone)
    except InvalidArgument as error:
        raise StartFailure(error.message, 128) from None
    path = Path(directory, FILE)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    with os.fdopen(fd, "wb") as file:
        file.write(data)


def _read(zone: str) -> bytes:
    if zone == LOCAL:
        return _data(_HOSTS) or _read("UTC")
    if _NAME.fullmatch(zone):
        from zoneinfo import TZPATH  # few containers have a zone

        for directory in TZPATH:
            if data := _data(f"{directory}/{zone}"):
                return data
    raise InvalidArgument(f"unknown time zone {zone}")


def _data(path: str) -> bytes:
    """A zone's data; none where there is no such file."""
    try:
        with open(path, "rb") as file:
            data = file.read(_MAX_BYTES)
    except OSError:
        return b""
    return data if data.startswith(_MAGIC) else b""
