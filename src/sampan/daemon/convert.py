"""From a flag's text or a JSON value to the value of an option; complaints are those of Go's parsers, as docker shows them."""

import ipaddress
import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from sampan.daemon.jsonfile import Json
from sampan.daemon.options import Option
from sampan.daemon.runtimes import RuntimeProblem, named
from sampan.units import FALSE, TRUE

SIZE: Final = re.compile(r"^(\d+(?:\.\d*)?|\.\d+) ?([a-zA-Z]*)$")
SUFFIX: Final = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50}
GO_TYPE: Final = {
    "bool": "bool", "int": "int", "string": "string", "ip": "string", "bytes": "string", "list": "[]string", "ips": "[]net.IP",
    "map": "map[string]string", "bools": "map[string]bool", "lists": "map[string][]string", "mapmap": "map[string]map[string]string",
    "ulimits": "map[string]*container.Ulimit",
    "runtimes": "map[string]system.Runtime", "pools": "[]*ipamutils.NetworkToSplit", "json": "config.BuilderConfig",
}  # fmt: skip
ELEMENT: Final = {"list": "string", "ips": "string", "map": "string", "bools": "bool"}


class ValueProblem(Exception):
    """A value of the wrong type or form. `path`: the keys that lead to it in daemon.json."""

    def __init__(self, message: str, path: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.path = path


class Ulimit(msgspec.Struct, frozen=True, rename="pascal"):
    """A resource limit of containers; -1 = unlimited."""

    name: str
    soft: int
    hard: int


def parse_bool(text: str) -> bool:
    """Go's strconv.ParseBool. Raises ValueProblem."""
    if text in TRUE or text in FALSE:
        return text in TRUE
    raise ValueProblem(f'strconv.ParseBool: parsing "{text}": invalid syntax')


def parse_int(text: str) -> int:
    """Go's strconv.ParseInt with base 0 (0x, 0o, 0b). Raises ValueProblem."""
    try:
        return int(text, 0) if re.fullmatch(r"[-+]?(0[xXoObB])?[0-9a-fA-F_]+", text) else int("x")
    except ValueError as exc:
        raise ValueProblem(f'strconv.ParseInt: parsing "{text}": invalid syntax') from exc


def parse_size(text: str) -> int:
    """go-units' RAMInBytes: 64m, 1.5GiB, 100; powers of 1024. Raises ValueProblem."""
    match = SIZE.match(text)
    if not match:
        raise ValueProblem(f"invalid size: '{text}'")
    suffix = match[2].lower()
    unit = suffix.removesuffix("b").removesuffix("i") if suffix != "b" else ""
    if unit not in SUFFIX:
        raise ValueProblem(f"invalid suffix: '{match[2]}'")
    return int(float(match[1]) * (1 << SUFFIX[unit]))


def parse_ip(text: str, message: str) -> str:
    """The address in its usual form. Raises ValueProblem with `message`."""
    try:
        return str(ipaddress.ip_address(text.strip()))
    except ValueError as exc:
        raise ValueProblem(message) from exc


def parse_ulimit(text: str) -> Ulimit:
    """name=soft[:hard]. Raises ValueProblem in docker's words."""
    name, equals, limits = text.partition("=")
    if not equals or not name or not limits:
        raise ValueProblem(f"invalid ulimit argument: {text}")
    parts = limits.split(":")
    if len(parts) > 2:
        raise ValueProblem(f"too many limit value arguments - {limits}, can only have up to two, `soft[:hard]`")
    soft = parse_int(parts[0])
    hard = parse_int(parts[1]) if len(parts) == 2 else soft
    if hard != -1 and (soft > hard or soft == -1):
        raise ValueProblem(f"ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}")
    return Ulimit(name, soft, hard)


def pair(text: str) -> tuple[str, str]:
    """key=value of a map flag; docker takes a bare key as empty."""
    key, _, value = text.partition("=")
    return key, value


def pool(text: str) -> dict[str, Any]:
    """base=CIDR,size=N. Raises ValueProblem in docker's words."""
    found: dict[str, Any] = {}
    for field in text.split(","):
        key, equals, value = field.partition("=")
        if not equals:
            raise ValueProblem(f"invalid field '{field}' must be a key=value pair")
        found[key] = parse_int(value) if key == "size" else value
    return found


def from_texts(option: Option, texts: Sequence[str]) -> Any:
    """The value of an option given as a flag, once or several times. Raises ValueProblem."""
    last = texts[-1]
    match option.kind:
        case "bool":
            return parse_bool(last)
        case "int":
            return parse_int(last)
        case "bytes":
            return parse_size(last)
        case "ip":
            return parse_ip(last, f'failed to parse IP: "{last}"')
        case "ips":
            return tuple(parse_ip(one, f"invalid string being converted to IP address: {one}") for t in texts for one in t.split(","))
        case "list":
            for text in texts:
                if option.key == "labels" and "=" not in text:
                    raise ValueProblem(f"bad attribute format: {text}")
            return tuple(texts)
        case "map":
            return dict(pair(text) for text in texts)
        case "runtimes":
            return runtimes_from_texts(texts)
        case "bools":
            return {key: parse_bool(value or "true") for key, value in map(pair, texts)}
        case "mapmap":
            found: dict[str, dict[str, str]] = {}
            for key, value in map(pair, texts):
                found.setdefault(key, {}).update([pair(value)])
            return found
        case "ulimits":
            return {one.name: one for one in map(parse_ulimit, texts)}
        case "pools":
            return tuple(pool(text) for text in texts)
        case _:
            return last


def kind_of(value: Json) -> str:
    """What Go calls a JSON value in `cannot unmarshal ...`."""
    match value:
        case bool():
            return "bool"
        case int():
            return "number" if -(1 << 63) <= value < 1 << 63 else f"number {value}"
        case float():
            return f"number {value}"
        case str():
            return "string"
        case list():
            return "array"
        case dict():
            return "object"
    return "null"


def wrong(option: Option, value: Json, go_type: str = "", deeper: tuple[str, ...] = ()) -> ValueProblem:
    path = (option.key, *deeper)
    text = f"json: cannot unmarshal {kind_of(value)} into Go struct field Config.{'.'.join(path)} of type {go_type or GO_TYPE[option.kind]}"
    return ValueProblem(text, path)


def element(option: Option, value: Json, go_type: str, deeper: tuple[str, ...]) -> Any:
    """A plain value inside a list or map. Raises ValueProblem."""
    good = {"string": str, "bool": bool, "int64": int}[go_type]
    if not isinstance(value, good) or (good is int and isinstance(value, bool)):
        raise wrong(option, value, go_type, deeper)
    return value


def from_json(option: Option, value: Json) -> Any:
    """The value of an option given in daemon.json. Raises ValueProblem."""
    match option.kind, value:
        case ("bool", bool()) | ("string", str()):
            return value
        case "int", int() if not isinstance(value, bool) and -(1 << 63) <= value < 1 << 63:
            return value
        case "bytes", _:
            if not isinstance(value, str):
                raise ValueProblem(f'invalid size: "{value}"', (option.key,))
            return parse_size(value)
        case "ip", str():
            return parse_ip(value, f"invalid IP address: {value}") if value else ""
        case (("list" | "ips"), list()):
            items = [element(option, item, "string", (str(n),)) for n, item in enumerate(value)]
            return tuple(parse_ip(item, f"invalid IP address: {item}") if option.kind == "ips" else item for item in items)
        case (("map" | "bools"), dict()):
            return {key: element(option, item, ELEMENT[option.kind], (key,)) for key, item in value.items()}
        case "lists", dict():
            return {key: list_from_json(option, key, item) for key, item in value.items()}
        case "ulimits", dict():
            return {name: ulimit_from_json(option, name, item) for name, item in value.items()}
        case (("mapmap" | "json"), dict()):
            return value
        case "runtimes", dict():
            return {name: runtime_from_json(option, name, item) for name, item in value.items()}
        case "pools", list():
            return tuple(value)
    raise wrong(option, value)


def runtimes_from_texts(texts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """name=path of OCI runtimes. Raises ValueProblem in docker's words."""
    try:
        return named(texts)
    except RuntimeProblem as problem:
        raise ValueProblem(str(problem)) from None


def runtime_from_json(option: Option, name: str, value: Json) -> dict[str, Any]:
    """An OCI runtime: what docker knows of it. Raises ValueProblem."""
    if not isinstance(value, dict):
        raise wrong(option, value, "system.Runtime", (name,))
    found: dict[str, Any] = {}
    for key, item in value.items():
        if key in ("path", "runtimeType"):
            found[key] = element(option, item, "string", (name, key))
        elif key == "runtimeArgs":
            found[key] = list_from_json(option, name, item)
        elif key == "options":
            if not isinstance(item, dict):
                raise wrong(option, item, "map[string]interface {}", (name, key))
            found[key] = item
    return found


def list_from_json(option: Option, key: str, value: Json) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise wrong(option, value, "[]string", (key,))
    return tuple(element(option, item, "string", (key, str(n))) for n, item in enumerate(value))


def ulimit_from_json(option: Option, name: str, value: Json) -> Ulimit:
    if not isinstance(value, dict):
        raise wrong(option, value, "container.Ulimit", (name,))
    numbers = {key.lower(): element(option, item, "int64", (name, key)) for key, item in value.items() if key.lower() in ("soft", "hard")}
    soft = numbers.get("soft", numbers.get("hard", 0))
    return Ulimit(name, soft, numbers.get("hard", soft))


def shown(option: Option, value: Any, texts: Sequence[str] = ()) -> str:
    """A value as Go's %v prints it, for the complaint about a key given twice."""
    if option.kind in ("ulimits", "runtimes", "pools") and texts:
        return f"[{' '.join(texts)}]"
    return go_value(value)


def go_value(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case list() | tuple():
            return f"[{' '.join(map(go_value, value))}]"
        case dict():
            return f"map[{' '.join(f'{key}:{go_value(value[key])}' for key in sorted(value))}]"
    return "<nil>" if value is None else str(value)
