"""`--change` of import and commit: Dockerfile instructions applied to an image's config (moby builder/dockerfile BuildFromConfig). Pure."""

import json
import re
import shlex
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from sampan.errors import InvalidArgument
from sampan.spec.oci_image import ContainerConfig, Healthcheck

_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_DEFAULT_SHELL = ["/bin/sh", "-c"]
_PROTOCOLS = ("tcp", "udp", "sctp")


def _json_array(text: str) -> list[str] | None:
    """The exec form, or None when it is not one."""
    if not text.startswith("["):
        return None
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, list) and all(isinstance(item, str) for item in value) else None


def _command(config: ContainerConfig, text: str) -> list[str]:
    exec_form = _json_array(text)
    return exec_form if exec_form is not None else [*(config.shell or _DEFAULT_SHELL), text]


def _words(text: str, command: str) -> list[str]:
    try:
        return shlex.split(text, posix=True)
    except ValueError as error:
        raise InvalidArgument(f"{command}: {error}") from error


def _pairs(text: str, command: str) -> list[tuple[str, str]]:
    """`k=v k2="v 2"`, or the old form `k the rest`."""
    first = text.split(None, 1)
    if not first:
        raise InvalidArgument(f"{command} requires at least one argument")
    if "=" not in first[0]:
        if len(first) < 2:
            raise InvalidArgument(f"{command} must have two arguments")
        return [(first[0], first[1])]
    pairs: list[tuple[str, str]] = []
    for word in _words(text, command):
        key, equals, value = word.partition("=")
        if not equals:
            raise InvalidArgument(f"Syntax error - can't find = in {json.dumps(word)}. Must be of the form: name=value")
        if not key:
            raise InvalidArgument(f"{command} names can not be blank")
        pairs.append((key, value))
    return pairs


def _cmd(config: ContainerConfig, text: str) -> dict[str, Any]:
    return {"cmd": _command(config, text)}


def _entrypoint(config: ContainerConfig, text: str) -> dict[str, Any]:
    return {"entrypoint": _command(config, text)}


def _env(config: ContainerConfig, text: str) -> dict[str, Any]:
    merged = dict(item.partition("=")[::2] for item in config.env or ())
    merged.update(_pairs(text, "ENV"))
    return {"env": [f"{key}={value}" for key, value in merged.items()]}


def _label(config: ContainerConfig, text: str) -> dict[str, Any]:
    return {"labels": {**(config.labels or {}), **dict(_pairs(text, "LABEL"))}}


def _port_numbers(text: str) -> range:
    low, _, high = text.partition("-")
    if not low.isdecimal() or (high and not high.isdecimal()) or not 0 <= int(low) <= int(high or low) <= 65535:
        raise InvalidArgument(f"Invalid containerPort: {text}")
    return range(int(low), int(high or low) + 1)


def _expose(config: ContainerConfig, text: str) -> dict[str, Any]:
    ports = dict(config.exposed_ports or {})
    for word in _words(text, "EXPOSE"):
        numbers, _, protocol = word.partition("/")
        protocol = protocol.lower() or "tcp"
        if protocol not in _PROTOCOLS:
            raise InvalidArgument(f"Invalid proto: {protocol}")
        ports.update({f"{number}/{protocol}": {} for number in _port_numbers(numbers.rpartition(":")[2])})
    return {"exposed_ports": ports}


def _volume(config: ContainerConfig, text: str) -> dict[str, Any]:
    exec_form = _json_array(text)
    paths = exec_form if exec_form is not None else _words(text, "VOLUME")
    if not paths:
        raise InvalidArgument("VOLUME requires at least one argument")
    if any(not path.strip() for path in paths):
        raise InvalidArgument("VOLUME specified can not be an empty string")
    return {"volumes": {**(config.volumes or {}), **{path.strip(): {} for path in paths}}}


def _user(config: ContainerConfig, text: str) -> dict[str, Any]:
    words = text.split()
    if len(words) != 1:
        raise InvalidArgument("USER requires exactly one argument")
    return {"user": words[0]}


def _working_dir(config: ContainerConfig, text: str) -> dict[str, Any]:
    parts = [] if text.startswith("/") else [part for part in config.working_dir.split("/") if part]
    for part in text.split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part not in ("", "."):
            parts.append(part)
    return {"working_dir": "/" + "/".join(parts)}


def _stop_signal(config: ContainerConfig, text: str) -> dict[str, Any]:
    import signal

    name = text.strip().upper()
    numbers = {entry.name for entry in signal.Signals} | {entry.name.removeprefix("SIG") for entry in signal.Signals}
    if not (name.isdecimal() and 0 < int(name) <= 64) and name not in numbers and not re.fullmatch(r"(SIG)?RTM(IN\+|AX-)\d+", name):
        raise InvalidArgument(f"Invalid signal: {text.strip()}")
    return {"stop_signal": text.strip()}


def _duration(name: str, text: str) -> int:
    position, total = 0, 0.0
    for match in _DURATION.finditer(text):
        if match.start() != position:
            break
        total += float(match[1]) * _UNITS[match[2]]
        position = match.end()
    if position != len(text) or not text:
        raise InvalidArgument(f"time: invalid duration {json.dumps(text)}")
    if 0 < total < 1_000_000:
        raise InvalidArgument(f"Interval {json.dumps(name)} cannot be less than 1ms")
    return int(total)


def _healthcheck(config: ContainerConfig, text: str) -> dict[str, Any]:
    options: dict[str, str] = {}
    rest = text
    while match := re.match(r"--([a-z-]+)=(\S+)\s*", rest):
        options[match[1]] = match[2]
        rest = rest[match.end() :]
    kind, _, command = rest.partition(" ")
    if kind.upper() == "NONE":
        return {"healthcheck": Healthcheck(test=["NONE"])}
    if kind.upper() != "CMD":
        raise InvalidArgument(f"Unknown type {json.dumps(kind.upper())} in HEALTHCHECK (try CMD)")
    if not command.strip():
        raise InvalidArgument("Missing command after HEALTHCHECK CMD")
    exec_form = _json_array(command.strip())
    values: dict[str, Any] = {"test": ["CMD", *exec_form] if exec_form is not None else ["CMD-SHELL", command.strip()]}
    for name, value in options.items():
        if name == "retries":
            if not value.isdecimal():
                raise InvalidArgument(f"--retries must be at least 1 (not {value})")
            values["retries"] = int(value)
        elif name in ("interval", "timeout", "start-period", "start-interval"):
            values[name.replace("-", "_")] = _duration(name, value)
        else:
            raise InvalidArgument(f"Unknown flag: {name}")
    return {"healthcheck": Healthcheck(**values)}


def _on_build(config: ContainerConfig, text: str) -> dict[str, Any]:
    trigger = text.split(None, 1)[0].upper()
    if trigger == "ONBUILD":
        raise InvalidArgument("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if trigger in ("MAINTAINER", "FROM"):
        raise InvalidArgument(f"{trigger} isn't allowed as an ONBUILD trigger")
    return {"on_build": [*(config.on_build or ()), text]}


_COMMANDS: dict[str, Callable[[ContainerConfig, str], dict[str, Any]]] = {
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "ONBUILD": _on_build,
    "STOPSIGNAL": _stop_signal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _working_dir,
}


def apply_changes(config: ContainerConfig, changes: Iterable[str]) -> ContainerConfig:
    """The config after all changes, one instruction a line. Raises InvalidArgument in docker's words.

    A new entry point takes the former command away, unless the changes have one of their own.
    """
    has_cmd = False
    for change in changes:
        for line in change.splitlines():
            command, _, arguments = line.strip().partition(" ")
            if not command or command.startswith("#"):
                continue
            name = command.upper()
            handler = _COMMANDS.get(name)
            if handler is None:
                raise InvalidArgument(f"{name} is not a valid change command")
            if not arguments.strip():
                raise InvalidArgument(f"{name} requires at least one argument")
            config = msgspec.structs.replace(config, **handler(config, arguments.strip()))
            has_cmd = has_cmd or name == "CMD"
            if name == "ENTRYPOINT" and not has_cmd:
                config = msgspec.structs.replace(config, cmd=None)
    return config
