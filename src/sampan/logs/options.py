"""LogConfig: which drivers and options there are, in docker's words (moby daemon/logger/factory.go, local/config.go, jsonfilelog.go)."""

import json
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from sampan.errors import InvalidArgument, NotImplementedYet
from sampan.logs import journald, syslog
from sampan.patterns import bounded, compiled

DRIVERS = ("journald", "json-file", "local", "none", "syslog")
DEFAULT_DRIVER = "json-file"
"""What the engine's own default is called, and takes the options of."""
WITH_SERVER = ("journald", "syslog")
"""Their output goes to the segments all the same: for `docker logs` (docker's "dual logging"), and as the buffer."""
OTHER_DRIVERS = ("awslogs", "etwlogs", "fluentd", "gcplogs", "gelf", "splunk")
_CACHE = "cache-"
_COMMON = frozenset({"mode", "max-buffer-size", "cache-disabled", "cache-max-size", "cache-max-file", "cache-compress"})
_OPTIONS = {
    "journald": journald.OPTIONS,
    "syslog": syslog.OPTIONS,
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
    """Raises InvalidArgument for what docker does not know, NotImplementedYet for its other drivers and for what is not built.

    driver "" is the engine's own default.
    """
    driver = driver or DEFAULT_DRIVER
    if driver == "none":
        return
    if driver in OTHER_DRIVERS:
        raise NotImplementedYet(f"log driver '{driver}' is not implemented yet: use local, json-file, syslog, journald or none")
    if config.get("mode", "") not in ("", "blocking", "non-blocking"):
        raise InvalidArgument(f"logger: logging mode not supported: {config['mode']}")
    if "max-buffer-size" in config:
        if config.get("mode") != "non-blocking":
            raise InvalidArgument("logger: max-buffer-size option is only supported with 'mode=non-blocking'")
        _checked("error parsing option max-buffer-size: ", config["max-buffer-size"])
    if (disabled := config.get("cache-disabled")) not in (None, "", *_TRUE, *_FALSE):
        raise InvalidArgument(f"invalid value for option cache-disabled: {disabled}")
    if driver not in DRIVERS:
        raise InvalidArgument(f'error looking up logging plugin {driver}: plugin "{driver}" not found')
    for name in sorted(config):
        if name not in _OPTIONS[driver] and name not in _COMMON:
            where = "json-file log driver" if driver == "json-file" else f"log driver {driver}"
            raise InvalidArgument(f"unknown log opt '{name}' for {where}")
    if driver == "local":
        _validate_local(config)
    elif driver == "syslog":
        syslog.validate(config)
        _validate_local(_of_cache(config))
    elif driver == "journald":
        journald.validate()
        _validate_local(_of_cache(config))
    else:
        _validate_json_file(config)
    if driver != "json-file" and config.get("compress") in _TRUE:
        raise NotImplementedYet("log option 'compress': Sampan compresses only the rotated files of json-file yet")


def _of_cache(config: Mapping[str, str]) -> dict[str, str]:
    """The options of the local copy, as driver local has them."""
    return {name.removeprefix(_CACHE): value for name, value in config.items() if name.startswith(_CACHE) and name != "cache-disabled"}


_START = "failed to create task for container: failed to initialize logging driver: "
"""Docker finds what follows only when the container starts, hence the words; here they are errors of create."""


def _validate_json_file(config: Mapping[str, str]) -> None:
    size, compress = config.get("max-size"), config.get("compress")
    if size is not None and size != "-1":
        _checked(_START, size)
    files = _files(config, _START)
    if files is not None and files < 1:
        raise InvalidArgument(f"{_START}max-file cannot be less than 1")
    if compress is not None and compress not in (*_TRUE, *_FALSE):
        raise InvalidArgument(f'{_START}strconv.ParseBool: parsing "{compress}": invalid syntax')
    if compress in _TRUE and (size in (None, "-1") or (files or 1) < 2):
        raise InvalidArgument(f"{_START}compress cannot be true when max-file is less than 2 or max-size is not set")


def _validate_local(config: Mapping[str, str]) -> None:
    size, compress = config.get("max-size"), config.get("compress")
    if size is not None and _checked(f"{_START}invalid value for max-size: {size}: ", size) == 0:
        raise InvalidArgument(f"{_START}max-size must be a positive number")
    files = _files(config, f"{_START}invalid value for max-file: {config.get('max-file')}: ")
    if files is not None and files < 0:
        raise InvalidArgument(f"{_START}max file count cannot be less than 0")
    if compress is not None and compress not in (*_TRUE, *_FALSE):
        raise InvalidArgument(f'{_START}error reading compress log option: strconv.ParseBool: parsing "{compress}": invalid syntax')
    if files in (0, 1) and compress not in _FALSE:
        raise InvalidArgument(f"{_START}compression cannot be enabled when max file count is 1")


def _checked(prefix: str, text: str) -> int:
    try:
        return _size(text)
    except ValueError as error:
        raise InvalidArgument(f"{prefix}{error}") from None


def _files(config: Mapping[str, str], prefix: str) -> int | None:
    text = config.get("max-file")
    if text is None:
        return None
    try:
        return int(text)
    except ValueError:
        raise InvalidArgument(f'{prefix}strconv.Atoi: parsing "{text}": invalid syntax') from None


class LogInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What of a container the attributes of its log lines are made of. name: without its slash."""

    container_id: str
    name: str
    image_id: str
    image_name: str
    command: str
    labels: Mapping[str, str] = {}
    env: tuple[str, ...] = ()


ATTRIBUTES_MAX = 64 * 1024
"""Bytes of attributes, as JSON: json-file has them on every line, so a container that prints newlines writes so much for each byte."""
_ACTION = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)


def _tag(template: str, info: LogInfo) -> str:
    """The text of a `tag` option (moby daemon/logger/loggerutils/log_tag.go). Its fields only: no functions of Go's templates."""
    fields = {
        ".ID": info.container_id[:12], ".FullID": info.container_id, ".ContainerID": info.container_id,
        ".Name": info.name, ".ContainerName": f"/{info.name}",
        ".ImageID": info.image_id[:12], ".ImageFullID": info.image_id, ".ContainerImageID": info.image_id,
        ".ImageName": info.image_name, ".ContainerImageName": info.image_name,
        ".DaemonName": "docker", ".Command": info.command, ".Hostname": os.uname().nodename,
    }  # fmt: skip

    def value(match: re.Match[str]) -> str:
        word = match[1].strip()
        if word in fields:
            return fields[word]
        if re.fullmatch(r"\.[A-Za-z]\w*", word):
            where = match.start() + 2
            raise InvalidArgument(
                f'{_START}template: log-tag:1:{where}: executing "log-tag" at <{word}>: '
                f"can't evaluate field {word[1:]} in type *logger.Info"
            )
        raise NotImplementedYet(f"log option 'tag': {match[0]}: only fields such as {{{{.Name}}}} are implemented by Sampan yet")

    text = _ACTION.sub(value, template)
    if "{{" in _ACTION.sub("", template):
        raise InvalidArgument(f"{_START}template: log-tag:1: unclosed action")
    return text


def tag_of(config: Mapping[str, str], info: LogInfo) -> str:
    """What a server knows the container by. Raises InvalidArgument, NotImplementedYet."""
    return _tag(config.get("tag") or "{{.ID}}", info)


def _matching(pattern: str, names: Iterable[str]) -> list[str]:
    try:
        return bounded(lambda: list(filter(compiled(pattern).search, names)))
    except re.error as error:
        raise InvalidArgument(f"{_START}error parsing regexp: {error}: `{pattern}`") from None


def attributes(config: Mapping[str, str], info: LogInfo) -> dict[str, str]:
    """What labels, labels-regex, env, env-regex and tag add to a log's lines. Raises InvalidArgument, NotImplementedYet.

    Source: moby daemon/logger/loginfo.go ExtraAttributes.
    """
    found: dict[str, str] = {}
    environment = {name: value for name, equals, value in (entry.partition("=") for entry in info.env) if equals}
    for kind, values in (("labels", info.labels), ("env", environment)):
        chosen = [name for name in config.get(kind, "").split(",") if name in values]
        if config.get(f"{kind}-regex"):
            chosen += _matching(config[f"{kind}-regex"], values)
        found.update((name, values[name]) for name in chosen)
    if config.get("tag"):
        found["tag"] = _tag(config["tag"], info)
    size = len(_as_json(found).encode("utf-8", "surrogatepass"))
    if size > ATTRIBUTES_MAX:
        raise InvalidArgument(f"{_START}the labels, env and tag options make {size} bytes for each line, and {ATTRIBUTES_MAX} are the most")
    return found


def _as_json(extra: Mapping[str, str] | None) -> str:
    """Attributes as json-file has them, "" for none."""
    text = json.dumps(dict(sorted(extra.items())), ensure_ascii=False, separators=(",", ":")) if extra else ""
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def compresses(driver: str, config: Mapping[str, str]) -> bool:
    """Whether rotated files are compressed, which only docker's json-file has: the engine's default is that, too, then."""
    return driver in ("", "json-file") and config.get("compress") in _TRUE


def log_path(driver: str, config: Mapping[str, str], container_id: str, directory: str) -> str:
    """inspect's LogPath: docker's file for json-file, "" for the others. directory is the container's own."""
    is_file = driver == "json-file" or compresses(driver, config)
    return os.path.join(directory, f"{container_id}-json.log") if is_file else ""


def log_settings(
    driver: str, config: Mapping[str, str], container_id: str, directory: str, extra: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """LOG of the keeper's `adopt` for a valid driver and config. directory is the container's own; segments go to its `log`.

    The engine's default (driver "") is kept as `local` is, unless it `compresses`. extra: the attributes of its lines.
    """
    if driver == "none":
        config = {}  # docker takes any options with it
    elif driver in WITH_SERVER:
        mode = config.get("mode", "")
        driver, config = ("none", {}) if config.get("cache-disabled") in _TRUE else ("local", _of_cache(config))
        config = {**config, "mode": mode}
    compressed = compresses(driver, config)
    if compressed:
        driver = "json-file"
    size, files = config.get("max-size"), int(config.get("max-file") or 0)
    if driver in ("", "local"):
        limit = 20 * 1024 * 1024 if size is None else 0 if size == "-1" else _size(size)
        files = files or 5
    else:
        limit = 0 if size in (None, "-1") else _size(str(size))
        files = files or 1
    return {
        "driver": driver or "local", "dir": os.path.join(directory, "log"), "path": log_path(driver, config, container_id, directory),
        "max_size": limit, "max_file": files, "mode": config.get("mode") or "blocking",
        "attrs": _as_json(extra), "compress": compressed,
    }  # fmt: skip
