"""Values of options that need more than conversion: sizes, durations, ulimits, mounts, networks, ... with docker's messages.

CHECKS: one item of a repeatable option -> the item as it is kept. PARSERS: (text, value so far or None) -> new value.
Both raise ValueError with the text that docker shows after `invalid argument "x" for "--y" flag: `.
"""

from __future__ import annotations

import os

from sampan.cli.flags import parse_bool, parse_int, quote
from sampan.units import parse_duration, parse_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_ULIMITS = (
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
)


def parse_cpus(text: str) -> int:
    """Billionths of a CPU of `1.5` or `3/4`. ValueError in docker's words."""
    from fractions import Fraction

    try:
        value = Fraction(text) * 10**9
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"failed to parse {text} as a rational number") from None
    if value.denominator != 1:
        raise ValueError("value is too precise")
    return value.numerator


def split_csv(text: str) -> list[str]:
    """One CSV record, with Go's quoting rules as far as anybody uses them."""
    if '"' not in text:
        if not text:
            raise ValueError("EOF")
        return text.split(",")
    import csv

    try:
        return next(csv.reader([text], strict=True))
    except (csv.Error, StopIteration):
        raise ValueError(f'parse error on line 1, column 1: bare " in non-quoted-field: {text}') from None


def check_ip(text: str) -> str:
    """An IP address in its canonical form."""
    import ipaddress

    try:
        return str(ipaddress.ip_address(text.strip()))
    except ValueError:
        raise ValueError(f"IP address is not correctly formatted: {text}") from None


def check_mac(text: str) -> bool:
    """Whether text is a MAC address in one of the notations of Go's net.ParseMAC."""
    text = text.strip()
    hexa = "0123456789abcdefABCDEF"
    for mark, width in ((":", 2), ("-", 2), (".", 4)):
        if mark in text:
            parts = text.split(mark)
            return len(parts) * width in (12, 16, 40) and all(len(part) == width and all(char in hexa for char in part) for part in parts)
    return False


def _attach(text: str) -> str:
    lower = text.lower()
    if lower not in ("stdin", "stdout", "stderr"):
        raise ValueError("valid streams are STDIN, STDOUT and STDERR")
    return lower


def _env(text: str) -> str:
    key, equals, _ = text.partition("=")
    if not key:
        raise ValueError(f"invalid environment variable: {text}")
    if not equals and key in os.environ:
        return f"{key}={os.environ[key]}"
    return text


def _label(text: str) -> str:
    key = text.partition("=")[0].lstrip(" \t")
    if not key:
        raise ValueError(f"invalid label '{text}': empty name")
    if " " in key or "\t" in key:
        raise ValueError(f"label '{key}' contains whitespaces")
    return text


def _dns_search(text: str) -> str:
    import re

    text = text.strip(" ")
    if text == ".":
        return text
    label = r":?(?::?[a-zA-Z0-9]|:?[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
    match = re.fullmatch(rf"({label}(?::?\.{label})*)\.?\s*", text)
    if not re.search("[a-zA-Z]", text) or match is None or len(match[1]) >= 255:
        raise ValueError(f"{text} is not a valid domain")
    return match[1]


def _extra_host(text: str) -> str:
    name, colon, address = text.partition("=" if "=" in text else ":")
    if not colon or not name or ":" in name:
        raise ValueError(f"bad format for add-host: {quote(text)}")
    if address.startswith("[") and address.endswith("]"):
        address = address[1:-1]
    if address != "host-gateway":
        try:
            check_ip(address)
        except ValueError:
            raise ValueError(f"invalid IP address in add-host: {quote(address)}") from None
    return f"{name}:{address}"


def _link(text: str) -> str:
    if not text:
        raise ValueError("empty string specified for links")
    if text.count(":") > 1:
        raise ValueError(f"bad format for links: {text}")
    return text


def _cgroup_rule(text: str) -> str:
    import re

    if not re.fullmatch(r"[acb] ([0-9]+|\*):([0-9]+|\*) [rwm]{1,3}", text):
        raise ValueError(f"invalid device cgroup format '{text}'")
    return text


def _tag(text: str) -> str:
    from sampan.errors import InvalidArgument
    from sampan.reference import parse

    try:
        parse(text)
    except InvalidArgument as error:
        raise ValueError(error.message) from None
    return text


CHECKS: dict[str, Callable[[str], str]] = {
    "attach": _attach,
    "env": _env,
    "label": _label,
    "ip": check_ip,
    "dns-search": _dns_search,
    "extra-host": _extra_host,
    "tag": _tag,
    "link": _link,
    "cgroup-rule": _cgroup_rule,
}


def _device_path(text: str) -> tuple[str, str]:
    path, colon, value = text.partition(":")
    if not colon or not path:
        raise ValueError(f"bad format: {text}")
    if not path.startswith("/dev/"):
        raise ValueError(f"bad format for device path: {text}")
    return path, value


def _weight_device(text: str, old: list[dict[str, Any]] | None) -> list[dict[str, Any]]:
    path, value = _device_path(text)
    if not (value.isascii() and value.isdigit()) or int(value) > 1000 or 0 < int(value) < 10:
        raise ValueError(f"invalid weight for device: {text}")
    return [*(old or ()), {"Path": path, "Weight": int(value)}]


def _bps_device(text: str, old: list[dict[str, Any]] | None) -> list[dict[str, Any]]:
    path, value = _device_path(text)
    try:
        rate = parse_size(value)
    except ValueError:
        raise ValueError(
            f"invalid rate for device: {text}. The correct format is <device-path>:<number>[<unit>]. "
            "Number must be a positive integer. Unit is optional and can be kb, mb, or gb"
        ) from None
    return [*(old or ()), {"Path": path, "Rate": rate}]


def _iops_device(text: str, old: list[dict[str, Any]] | None) -> list[dict[str, Any]]:
    path, value = _device_path(text)
    if not (value.isascii() and value.isdigit()):
        raise ValueError(
            f"invalid rate for device: {text}. The correct format is <device-path>:<number>. Number must be a positive integer"
        )
    return [*(old or ()), {"Path": path, "Rate": int(value)}]


def _map(text: str, old: dict[str, str] | None) -> dict[str, str]:
    key, _, value = text.partition("=")
    return {**(old or {}), key: value}


def _string_to_string(text: str, old: dict[str, str] | None) -> dict[str, str]:
    """pflag's: `k=v`, or several with commas between them."""
    pairs = split_csv(text) if text.count("=") > 1 else [text.strip('"')]
    found: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"{pair} must be formatted as key=value")
        found[key] = value
    return {**(old or {}), **found}


def _sysctl(text: str, old: dict[str, str] | None) -> dict[str, str]:
    key, equals, _ = text.partition("=")
    known = ("msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced")
    if not equals or not key or (not key.startswith(("net.", "fs.mqueue.")) and key not in tuple(f"kernel.{name}" for name in known)):
        raise ValueError(f"sysctl '{text}' is not allowed")
    return _map(text, old)


def _ulimit(text: str, old: dict[str, dict[str, Any]] | None) -> dict[str, dict[str, Any]]:
    name, equals, limits = text.partition("=")
    if not equals:
        raise ValueError(f"invalid ulimit argument: {text}")
    if name not in _ULIMITS:
        raise ValueError(f"invalid ulimit type: {name}")
    parts = limits.split(":")
    if len(parts) > 2:
        raise ValueError(f"too many limit value arguments - {limits}, can only have up to two, `soft[:hard]`")
    hard = _decimal(parts[1]) if len(parts) == 2 else None
    soft = _decimal(parts[0])
    hard = soft if hard is None else hard
    if hard != -1:
        if soft == -1:
            raise ValueError(f"ulimit soft limit must be less than or equal to hard limit: soft: -1 (unlimited), hard: {hard}")
        if soft > hard:
            raise ValueError(f"ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}")
    return {**(old or {}), name: {"Name": name, "Hard": hard, "Soft": soft}}


def _decimal(text: str) -> int:
    digits = text[1:] if text[:1] in ("+", "-") else text
    if not (digits.isascii() and digits.isdigit()):
        raise ValueError(f"strconv.ParseInt: parsing {quote(text)}: invalid syntax")
    return parse_int(text[:1].strip("0123456789") + (digits.lstrip("0") or "0"))


def _gpu_count(text: str) -> int:
    if text == "all":
        return -1
    try:
        return _decimal(text)
    except ValueError:
        raise ValueError(f'invalid count ({text}): value must be either "all" or an integer: invalid syntax') from None


def _gpus(text: str, old: list[dict[str, Any]] | None) -> list[dict[str, Any]]:
    request: dict[str, Any] = {"Driver": "", "Count": 0, "DeviceIDs": None, "Capabilities": [["gpu"]], "Options": {}}
    seen: set[str] = set()
    for field in split_csv(text):
        key, equals, value = field.partition("=")
        if key in seen:
            raise ValueError(f"gpu request key '{key}' can be specified only once")
        seen.add(key)
        if not equals:
            seen.add("count")
            request["Count"] = _gpu_count(key)
        elif key == "driver":
            request["Driver"] = value
        elif key == "count":
            request["Count"] = _gpu_count(value)
        elif key == "device":
            request["DeviceIDs"] = value.split(",")
        elif key == "capabilities":
            request["Capabilities"] = [[*value.split(","), "gpu"]]
        elif key == "options":
            request["Options"] = dict(item.partition("=")[::2] for item in split_csv(value))
        else:
            raise ValueError(f"unexpected key '{key}' in '{field}'")
    if "count" not in seen and request["DeviceIDs"] is None:
        request["Count"] = 1
    return [*(old or ()), request]


def _network(text: str, old: list[dict[str, Any]] | None) -> list[dict[str, Any]]:
    """One --network: a name, or the long form name=...,alias=... as a dict with only the keys given."""
    import re

    if not re.search(r"\w+=\w+(,\w+=\w+)*", text):
        return [*(old or ()), {"name": text}]
    options: dict[str, Any] = {}
    for field in split_csv(text):
        key, equals, value = (part.strip() for part in field.lower().partition("="))
        if not equals or not key:
            raise ValueError(f"invalid field {field}")
        if key in ("name", "ip", "ip6", "mac-address"):
            options[key] = value
        elif key in ("alias", "link-local-ip"):
            options.setdefault(key, []).append(value)
        elif key == "driver-opt":
            name, sep, setting = value.partition("=")
            if not sep or not name:
                raise ValueError("invalid key value pair format in driver options")
            options.setdefault(key, {})[name.strip()] = setting.strip()
        elif key == "gw-priority":
            try:
                options[key] = _decimal(value)
            except ValueError:
                raise ValueError(f"invalid gw-priority ({value}): invalid syntax") from None
        else:
            raise ValueError(f"invalid field key {key}")
    if not options.get("name"):
        raise ValueError("network name/id is not specified")
    return [*(old or ()), options]


def _mount(text: str, old: list[dict[str, Any]] | None) -> list[dict[str, Any]]:
    from sampan.cli.mountopt import parse_mount

    return [*(old or ()), parse_mount(text)]


def _filter(text: str, old: dict[str, list[str]] | None) -> dict[str, list[str]]:
    result = {key: list(values) for key, values in (old or {}).items()}
    if not text:
        return result
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError("bad format of filter (expected name=value)")
    values = result.setdefault(name.strip().lower(), [])
    if value.strip() not in values:
        values.append(value.strip())
    return result


PARSERS: dict[str, Callable[[str, Any], Any]] = {
    "bytes": lambda text, _: parse_size(text),
    "swap-bytes": lambda text, _: -1 if text == "-1" else parse_size(text),
    "duration": lambda text, _: parse_duration(text),
    "decimal": lambda text, _: parse_cpus(text),
    "strings": lambda text, old: [*(old or ()), *split_csv(text)],
    "map": _map,
    "stringToString": _string_to_string,
    "sysctl": _sysctl,
    "ulimit": _ulimit,
    "gpu-request": _gpus,
    "network": _network,
    "mount": _mount,
    "filter": _filter,
    "weight-device": _weight_device,
    "bps-device": _bps_device,
    "iops-device": _iops_device,
}


def read_key_values(files: list[str], given: list[str], *, environment: bool) -> list[str]:
    """The lines of --env-file/--label-file files, then the values given. A name without value takes the environment's, if `environment`.

    Raises ValueError in docker's words.
    """
    lines: list[str] = []
    for path in files:
        try:
            with open(path, "rb") as file:
                raw = file.read()
        except OSError as error:
            text = (error.strerror or "").lower()
            raise ValueError(f"invalid env file ({path}): read {path}: {text}" if os.path.isdir(path) else f"open {path}: {text}") from None
        try:
            lines += _key_values(raw, environment)
        except ValueError as error:
            raise ValueError(f"invalid env file ({path}): {error}") from None
    return lines + given


def _key_values(raw: bytes, environment: bool) -> list[str]:
    lines: list[str] = []
    for number, part in enumerate(raw.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        try:
            line = part.removesuffix(b"\r").decode("utf-8").lstrip()
        except UnicodeDecodeError:
            raise ValueError(f"invalid utf8 bytes at line {number}: [{' '.join(str(byte) for byte in part)}]") from None
        if not line or line[0] == "#":
            continue
        key, equals, _ = line.partition("=")
        if not key:
            raise ValueError(f"no variable name on line '{line}'")
        if " " in key or "\t" in key:
            raise ValueError(f"variable '{key}' contains whitespaces")
        if equals:
            lines.append(line)
        elif environment and key in os.environ:
            lines.append(f"{key}={os.environ[key]}")
    return lines


def to_bool(text: str, key: str) -> bool:
    """A boolean inside a --mount value."""
    try:
        return parse_bool(text)
    except ValueError:
        raise ValueError(f"invalid value for {key}: {text}") from None
