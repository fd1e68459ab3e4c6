"""JSON into our structs with the manners of Go's encoding/json, which docker's clients rely on.

null is the zero value, keys match regardless of case, unknown keys are skipped, the last of several equal keys wins, invalid UTF-8 becomes
U+FFFD. A wrong type is an error in Go's words (`json: cannot unmarshal string into Go struct field HostConfig.Memory of type int64`).
"""

import json
import re
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import msgspec

S = TypeVar("S", bound=msgspec.Struct)
T = TypeVar("T")

_RANGES = {
    "int64": (-(1 << 63), (1 << 63) - 1),
    "int": (-(1 << 63), (1 << 63) - 1),
    "uint": (0, (1 << 64) - 1),
    "uint64": (0, (1 << 64) - 1),
    "uint16": (0, (1 << 16) - 1),
}
MAX_DEPTH = 200
"""Go allows 10,000 levels; nothing in the API has more than ten, and Python's own stack is the lower bound."""


class GoJsonError(ValueError):
    """The message is what Go's decoder would say."""


class TrailingData(GoJsonError):
    """There is more after the first value."""


class _Mismatch(Exception):
    """A value of the wrong type, before the path to it is known."""

    def __init__(self, found: str, wanted: str) -> None:
        super().__init__(found, wanted)
        self.found = found
        self.wanted = wanted


class _Field(msgspec.Struct, frozen=True):
    name: str
    json_name: str
    hint: Any


@cache
def _fields(cls: type[msgspec.Struct]) -> dict[str, _Field]:
    """Fields of a struct by lower-case JSON name."""
    hints = get_type_hints(cls, include_extras=True)
    pairs = zip(cls.__struct_fields__, cls.__struct_encode_fields__, strict=True)
    return {encoded.lower(): _Field(name, encoded, hints[name]) for name, encoded in pairs}


def _bare(hint: Any) -> Any:
    """The hint without `| None`."""
    if get_origin(hint) in (Union, UnionType):
        return next(arm for arm in get_args(hint) if arm is not NoneType)
    return hint


@cache
def _go_type(hint: Any) -> str:
    """The Go type a hint stands for, as error messages write it."""
    hint = _bare(hint)
    origin = get_origin(hint)
    arguments = get_args(hint)
    if origin is Annotated:
        return "string" if arguments[1] == "strslice" else str(arguments[1])
    if origin is list:
        return f"[]{_go_type(arguments[0])}"
    if origin is tuple:
        return f"[{len(arguments)}]{_go_type(arguments[0])}"
    if origin is dict:
        value = "struct {}" if get_origin(arguments[1]) is dict else _go_type(arguments[1])
        return f"map[string]{value}"
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return f"container.{hint.__name__}"
    return {int: "int64", str: "string", bool: "bool", float: "float64"}.get(hint, "interface {}")


def _found(value: object) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, str):
        return "string"
    if isinstance(value, list):
        return "array"
    if isinstance(value, dict):
        return "object"
    return "number"


def _integer(value: object, go_type: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _Mismatch(_found(value), go_type)
    low, high = _RANGES[go_type]
    if not isinstance(value, int) or not low <= value <= high:
        raise _Mismatch(f"number {value}", go_type)
    return value


def _annotated(value: Any, go_type: str) -> Any:
    if go_type != "strslice":
        return _integer(value, go_type)
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        raise _Mismatch(_found(value), "string")
    return _sequence(value, str)


def _sequence(values: list[Any], hint: Any) -> list[Any]:
    return [_zero(hint) if value is None else _convert(value, hint) for value in values]


def _zero(hint: Any) -> Any:
    """Go's zero value of a type, for a null inside a list or map."""
    if get_origin(hint) in (Union, UnionType):
        return None
    origin = get_origin(hint) or hint
    if origin is Annotated:
        return [] if get_args(hint)[1] == "strslice" else 0
    return None if origin is Any or not isinstance(origin, type) else origin()


def _convert(value: Any, hint: Any) -> Any:
    """A non-null JSON value as the hint says."""
    hint = _bare(hint)
    if hint is str or hint is bool:
        if type(value) is not hint:
            raise _Mismatch(_found(value), _go_type(hint))
        return value
    if hint is int:
        return _integer(value, "int64")
    origin = get_origin(hint)
    arguments = get_args(hint)
    if origin is Annotated:
        return _annotated(value, arguments[1])
    if origin is list:
        if not isinstance(value, list):
            raise _Mismatch(_found(value), _go_type(hint))
        return _sequence(value, arguments[0])
    if origin is tuple:
        if not isinstance(value, list):
            raise _Mismatch(_found(value), _go_type(hint))
        padded = [*value, *([None] * len(arguments))][: len(arguments)]
        return tuple(_zero(arm) if item is None else _convert(item, arm) for item, arm in zip(padded, arguments, strict=True))
    if origin is dict:
        if not isinstance(value, dict):
            raise _Mismatch(_found(value), _go_type(hint))
        return {key: _zero(arguments[1]) if item is None else _convert(item, arguments[1]) for key, item in value.items()}
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return from_builtins(value, hint)
    return value


class _FieldMismatch(_Mismatch):
    """A mismatch whose field is known; outer structs put their names before it."""

    def __init__(self, found: str, wanted: str, path: str) -> None:
        super().__init__(found, wanted)
        self.path = path


def from_builtins(value: Any, cls: type[S]) -> S:
    """A decoded JSON object as a struct. Raises an internal mismatch; use decode()."""
    if not isinstance(value, dict):
        raise _Mismatch(_found(value), f"container.{cls.__name__}")
    fields = _fields(cls)
    arguments: dict[str, Any] = {}
    for key, item in value.items():
        field = fields.get(key.lower())
        if field is None or item is None:
            continue
        try:
            arguments[field.name] = _convert(item, field.hint)
        except _FieldMismatch as problem:
            raise _FieldMismatch(problem.found, problem.wanted, f"{field.json_name}.{problem.path}") from None
        except _Mismatch as problem:
            raise _FieldMismatch(problem.found, problem.wanted, field.json_name) from None
    return cls(**arguments)


def _reject_constant(text: str) -> Any:
    if text.startswith("-"):
        raise GoJsonError("invalid character 'I' in numeric literal")
    raise GoJsonError(f"invalid character '{text[0]}' looking for beginning of value")


_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_DECODER = json.JSONDecoder(parse_constant=_reject_constant)


def _too_deep(text: str) -> bool:
    """Whether brackets nest deeper than MAX_DEPTH (strings are not looked into: this may err towards deep)."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return False
    depth = 0
    for character in text:
        if character in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                return True
        elif character in "]}":
            depth -= 1
    return False


def parse(data: bytes, *, whole: bool = False) -> Any:
    """The one JSON value in data, as Python's own types. whole: what ends too early is told as json.Unmarshal does.

    Raises TrailingData if more follows it, GoJsonError in Go's words if it is malformed or data is empty.
    """
    text = data.decode("utf-8", "replace")
    stripped = text.lstrip(" \t\r\n")
    if not stripped:
        raise GoJsonError("got EOF while reading request body")
    if _too_deep(stripped):
        raise GoJsonError("exceeded max depth")
    try:
        value, end = _DECODER.raw_decode(stripped)
    except GoJsonError:
        raise
    except (RecursionError, ValueError) as problem:
        message = _syntax_message(stripped, problem)
        raise GoJsonError("unexpected end of JSON input" if whole and message == "unexpected EOF" else message) from None
    if stripped[end:].strip(" \t\r\n"):
        raise TrailingData("unexpected content after JSON")
    return _without_surrogates(value) if _SURROGATE.search(stripped) else value


def _without_surrogates(value: Any) -> Any:
    """Half a surrogate pair becomes U+FFFD, as in Go; Python would keep what no encoder takes."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
    return value


def _syntax_message(text: str, problem: Exception) -> str:
    """Go's words for a syntax error, from the place where Python stopped."""
    if not isinstance(problem, json.JSONDecodeError):
        return "invalid number literal"
    place = problem.pos
    while place < len(text) and text[place] in " \t\r\n":
        place += 1
    if place >= len(text) or problem.msg.startswith("Unterminated string"):
        return "unexpected EOF"
    character = "'\\''" if text[place] == "'" else f"'{text[place]}'"
    if problem.msg.startswith("Expecting ',' delimiter"):
        before = text[:place].rstrip()
        in_array = before.count("[") > before.count("]") and before.rfind("[") > before.rfind("{")
        inside = "array element" if in_array else "object key:value pair"
        return f"invalid character {character} after {inside}"
    if problem.msg.startswith("Expecting ':' delimiter"):
        return f"invalid character {character} after object key"
    if problem.msg.startswith("Expecting property name"):
        return f"invalid character {character} looking for beginning of object key string"
    if problem.msg.startswith(("Invalid control", "Invalid \\")):
        return f"invalid character {character} in string literal"
    return f"invalid character {character} looking for beginning of value"


def convert(value: Any, cls: type[S]) -> S:
    """A parsed value as a struct; null is the empty one. Raises GoJsonError in Go's words."""
    if value is None:
        return cls()
    try:
        return from_builtins(value, cls)
    except _FieldMismatch as problem:
        place = f"Go struct field {cls.__name__}.{problem.path}"
        raise GoJsonError(f"json: cannot unmarshal {problem.found} into {place} of type {problem.wanted}") from None
    except _Mismatch as problem:
        raise GoJsonError(f"json: cannot unmarshal {problem.found} into Go value of type {problem.wanted}") from None


def typed(value: Any, kind: type[T]) -> T | None:
    """A parsed value as a list or map of a kind; null is None. Raises GoJsonError in Go's words, but for the place within the value."""
    try:
        return None if value is None else cast("T", _convert(value, kind))
    except _FieldMismatch as problem:
        raise GoJsonError(f"json: cannot unmarshal {problem.found} into Go struct field .{problem.path} of type {problem.wanted}") from None
    except _Mismatch as problem:
        raise GoJsonError(f"json: cannot unmarshal {problem.found} into Go value of type {problem.wanted}") from None


def decode(data: bytes, cls: type[S]) -> S:
    """One JSON document as a struct. Raises GoJsonError (TrailingData if more follows)."""
    return convert(parse(data), cls)
