"""LogConfig of a container: which driver, which options, checked in docker's words."""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from sampan.errors import InvalidArgument, NotImplementedYet

LOCAL_MAX_SIZE, LOCAL_MAX_FILE = 20 << 20, 5
_OPTIONS = {
    "local": ("max-size", "max-file", "compress"),
    "json-file": ("max-size", "max-file", "compress", "labels", "labels-regex", "env", "env-regex", "tag"),
    "none": (),
}
_OTHER = ("syslog", "journald", "gelf", "fluentd", "awslogs", "gcplogs", "splunk", "etwlogs")
_COMMON = ("mode", "max-buffer-size", "cache-disabled", "cache-max-size", "cache-max-file", "cache-compress")
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([kKmMgGtTpP])?[iI]?[bB]?")
_FACTORS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}


class LogSettings(msgspec.Struct, frozen=True):
    """What the keeper and the readers need. Sizes in bytes; -1 is unlimited. log_path: json-file's LogPath, else empty."""

    driver: str
    max_size: int
    max_file: int
    log_path: str

    def wire(self, directory: str) -> dict[str, Any]:
        """The LOG object of the keeper's `adopt`."""
        return {"driver": self.driver, "dir": directory, "max_size": self.max_size, "max_file": self.max_file, "path": self.log_path}


def _size(text: str) -> int:
    match = _SIZE.fullmatch(text)
    if match is None:
        raise InvalidArgument(f"invalid value for max-size: invalid size: '{text}'")
    return int(float(match[1]) * _FACTORS[(match[2] or "").lower()])


def log_settings(driver: str, config: Mapping[str, str], container_id: str, directory: str) -> LogSettings:
    """Check a LogConfig; directory is the container's own. Raises InvalidArgument, NotImplementedYet."""
    if driver in _OTHER:
        raise NotImplementedYet(f"log driver {driver}: not implemented by Sampan yet; use local, json-file or none")
    if driver not in _OPTIONS:
        raise InvalidArgument(f"logger: no log driver named '{driver}' is registered")
    for key in config:
        if key not in _OPTIONS[driver] and key not in _COMMON:
            raise InvalidArgument(f"unknown log opt '{key}' for {driver} log driver")
    max_size, max_file = (LOCAL_MAX_SIZE, LOCAL_MAX_FILE) if driver == "local" else (-1, 1)
    if "max-size" in config and config["max-size"] != "-1":
        max_size = _size(config["max-size"])
    if "max-file" in config:
        if not config["max-file"].isdecimal() or int(config["max-file"]) < 1:
            raise InvalidArgument("max-file cannot be less than 1")
        max_file = int(config["max-file"])
    if driver == "json-file" and max_file > 1 and max_size <= 0:
        raise InvalidArgument("max-file cannot be more than 1 when max-size is not set")
    path = f"{directory}/{container_id}-json.log" if driver == "json-file" else ""
    return LogSettings(driver, max_size, max_file, path)
