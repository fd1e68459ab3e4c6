"""LogConfig: which drivers and options there are, in docker's words (moby daemon/logger/factory.go, local/config.go, jsonfilelog.go)."""

import os
import re
from collections.abc import Mapping
from typing import Any

from sampan.errors import InvalidArgument, NotImplementedYet

DRIVERS = ("json-file", "local", "none")
OTHER_DRIVERS = ("awslogs", "etwlogs", "fluentd", "gcplogs", "gelf", "journald", "splunk", "syslog")
_COMMON = frozenset({"mode", "max-buffer-size"})
_OPTIONS = {
    "local": frozenset({"max-size", "max-file", "compress"}),
    "json-file": frozenset({"max-size", "max-file", "compress", "labels", "labels-regex", "env", "env-regex", "tag"}),
}
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([kKmMgGtTpP])?(?:i?[bB])?\Z")
_TRUE = ("1", "t", "T", "TRUE", "true", "True")
_FALSE = ("0", "f", "F", "FALSE", "false", "False")


def _size(text: str) -> int:
    """go-units RAMInBytes: 1024-based. Raises ValueError in its words."""
    match = _SIZE.match(text)
    if match is None:
        raise ValueError(f"invalid size: '{text}'")
    return int(float(match[1]) * 1024 ** " kmgtp".index((match[2] or " ").lower()))


def validate(driver: str, config: Mapping[str, str]) -> None:
    """Raises InvalidArgument for what docker does not know, NotImplementedYet for its other drivers."""
    if driver == "none":
        return
    if driver in OTHER_DRIVERS:
        raise NotImplementedYet(f"log driver '{driver}' is not implemented yet: use local, json-file or none")
    if config.get("mode", "") not in ("", "blocking", "non-blocking"):
        raise InvalidArgument(f"logger: logging mode not supported: {config['mode']}")
    if "max-buffer-size" in config:
        if config.get("mode") != "non-blocking":
            raise InvalidArgument("logger: max-buffer-size option is only supported with 'mode=non-blocking'")
        _checked("error parsing option max-buffer-size: ", config["max-buffer-size"])
    if driver not in DRIVERS:
        raise InvalidArgument(f"logger: no log driver named '{driver}' is registered")
    for name in sorted(config):
        if name not in _OPTIONS[driver] and name not in _COMMON:
            where = "json-file log driver" if driver == "json-file" else f"log driver {driver}"
            raise InvalidArgument(f"unknown log opt '{name}' for {where}")
    _validate_values(driver, config)


def _validate_values(driver: str, config: Mapping[str, str]) -> None:
    """Docker finds these only when the container starts, hence the words; here they are errors of create."""
    start = "failed to initialize logging driver: "
    size = config.get("max-size")
    if size is not None and not (driver == "json-file" and size == "-1"):
        _checked(start if driver == "json-file" else f"{start}invalid value for max-size: {size}: ", size)
    files = _files(config.get("max-file"))
    compress = config.get("compress")
    if compress is not None and compress not in (*_TRUE, *_FALSE):
        raise InvalidArgument(f'{start}error reading compress log option: strconv.ParseBool: parsing "{compress}": invalid syntax')
    if driver == "json-file" and compress in _TRUE and (size in (None, "-1") or (files or 1) < 2):
        raise InvalidArgument(f"{start}compress cannot be true when max-file is less than 2 or max-size is not set")


def _checked(prefix: str, text: str) -> int:
    try:
        return _size(text)
    except ValueError as error:
        raise InvalidArgument(f"{prefix}{error}") from None


def _files(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        files = int(text)
    except ValueError:
        raise InvalidArgument(f'strconv.Atoi: parsing "{text}": invalid syntax') from None
    if files < 1:
        raise InvalidArgument("failed to initialize logging driver: max-file cannot be less than 1")
    return files


def log_path(driver: str, container_id: str, directory: str) -> str:
    """inspect's LogPath: docker's file for json-file, "" for the others. directory is the container's own."""
    return os.path.join(directory, f"{container_id}-json.log") if driver == "json-file" else ""


def log_settings(driver: str, config: Mapping[str, str], container_id: str, directory: str) -> dict[str, Any]:
    """LOG of the keeper's `adopt` for a valid driver and config. directory is the container's own; segments go to its `log`."""
    if driver == "none":
        config = {}  # docker takes any options with it
    size, files = config.get("max-size"), _files(config.get("max-file"))
    if driver == "local":
        limit = 20 * 1024 * 1024 if size is None else 0 if size == "-1" else _size(size)
        files = files or 5
    else:
        limit = 0 if size in (None, "-1") else _size(str(size))
        files = files or 1
    return {
        "driver": driver, "dir": os.path.join(directory, "log"), "path": log_path(driver, container_id, directory),
        "max_size": limit, "max_file": files, "mode": config.get("mode") or "blocking",
    }  # fmt: skip
