"""docker's Go types (gotypes.json: struct -> fields `GoName[=json name][,] type`, a comma for omitempty, `<type` for an embedded one),
and JSON decoded into them: templates of inspect, info, version and events see fields by Go's names, with Go's zero values and types.
"""

from __future__ import annotations

import os

from sampan.cli import fastjson
from sampan.cli.format.values import GoDuration, GoInt, GoList, GoMap, GoStr, GoTime, Ptr, Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_ZERO_TIME = "0001-01-01T00:00:00Z"
_loaded: dict[str, dict[str, Any]] = {}
_structs: dict[str, StructType] = {}
_INTEGERS = ("int64", "int32", "int16", "int8", "uint", "uint8", "uint16", "uint32", "uint64")


class Field:
    """A field of a struct."""

    __slots__ = ("json", "name", "omit", "type")

    def __init__(self, text: str) -> None:
        head, _, self.type = text.partition(" ")
        self.omit = head.endswith(",")
        self.name, _, json = head.rstrip(",").partition("=")
        self.json = json or self.name


class StructType:
    """A struct's name and its fields, those of embedded structs in place; `shape` has the embedded structs as they are."""

    __slots__ = ("fields", "name", "shape")

    def __init__(self, name: str, parts: list[Field | StructType]) -> None:
        self.name = name
        self.fields: list[Field] = []
        for part in parts:
            self.fields += part.fields if isinstance(part, StructType) else [part]
        self.shape = [part if isinstance(part, StructType) else part.name for part in parts]

    def json_items(self, value: Struct) -> list[tuple[str, Any]]:
        """Keys and values as encoding/json writes them."""
        items = [
            (field.json, value.fields[field.name])
            for field in self.fields
            if not (field.omit and _is_empty(value.fields[field.name], field.type))
        ]
        # docker's registry settings are written by way of a map
        return sorted(items, key=lambda item: item[0]) if self.name.startswith("registry.") else items


def _is_empty(value: Any, type_: str) -> bool:
    if type_ == "interface {}":
        return value is None
    if isinstance(value, Ptr):
        return value.target is None
    return not isinstance(value, (Struct, GoTime)) and not value


def _tables() -> dict[str, dict[str, Any]]:
    if not _loaded:
        with open(os.path.join(os.path.dirname(__file__), "gotypes.json"), "rb") as file:
            _loaded.update(fastjson.loads(file.read()))
    return _loaded


def struct(name: str) -> StructType | None:
    """The struct of that name, if it is one of ours."""
    known = _structs.get(name)
    if known is None:
        lines = _tables()["structs"].get(name)
        if lines is None:
            return None
        parts: list[Field | StructType] = []
        for line in lines:
            embedded = struct(line[1:]) if line.startswith("<") else None
            parts.append(embedded if embedded is not None else Field(line))
        known = _structs[name] = StructType(name, parts)
    return known


def has_field(name: str, field: str) -> bool:
    """Whether a struct has the field."""
    known = struct(name)
    return known is not None and any(one.name == field for one in known.fields)


def decode(name: str, raw: Any) -> Any:
    """A JSON value as a value of that Go type; None and what does not fit give the zero value."""
    if name.startswith("*"):
        return Ptr(name, None if raw is None else decode(name[1:], raw))
    if name == "interface {}":
        return raw
    if name.startswith(("[]", "[2]")):
        elem = name[name.index("]") + 1 :]
        return GoList(name, [decode(elem, item) for item in raw] if isinstance(raw, list) else None if name[1] == "]" else ["", ""])
    if name.startswith("map["):
        elem = name[name.index("]") + 1 :]
        return GoMap(name, {key: decode(elem, item) for key, item in raw.items()} if isinstance(raw, dict) else None)
    if name == "struct {}":
        return Struct(StructType(name, []), {})
    if name == "string":
        return raw if isinstance(raw, str) else ""
    if name == "bool":
        return raw is True
    if name in ("int", "float64"):
        return raw if isinstance(raw, (int, float)) else 0
    if name in _INTEGERS:
        number = GoInt(raw if isinstance(raw, int) else 0)
        number.type = name
        return number
    if name == "time.Duration":
        return GoDuration(raw if isinstance(raw, int) else 0)
    if name == "time.Time":
        return GoTime(raw if isinstance(raw, str) else _ZERO_TIME)
    return _named(name, raw)


def _named(name: str, raw: Any) -> Any:
    known = struct(name)
    if known is not None:
        raw = raw if isinstance(raw, dict) else {}
        return Struct(known, {field.name: decode(field.type, _lookup(raw, field.json)) for field in known.fields})
    base = _tables()["named"].get(name, "interface {}")
    value = decode(base, raw)
    if base == "string":
        text = GoStr(value)
        text.type = name
        return text
    if isinstance(value, (GoMap, GoList, GoInt)):
        value.type = name
    return value


def _lookup(raw: dict[str, Any], key: str) -> Any:
    if key in raw:
        return raw[key]
    # encoding/json takes keys in any case
    lower = key.lower()
    for other, value in raw.items():
        if other.lower() == lower:
            return value
    return None
