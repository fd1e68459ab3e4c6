"""The functions of templates: Go's built-in ones and docker's. Errors are ValueErrors in Go's words; execute.py adds the place."""

from __future__ import annotations

from sampan.cli.format import gofmt, gojson
from sampan.cli.format.quoting import byte_len
from sampan.cli.format.values import GoList, GoMap, Header, Iface, Ptr, elem_type, indirect, kind, truth, type_name, unwrap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_NO_TYPE = "reflect: call of reflect.Value.Type on zero Value"


class Function:
    """A function a template can call. params: Go types of the fixed arguments (any, value, string, int, []string); rest: of the others."""

    __slots__ = ("call", "params", "rest")

    def __init__(self, call: Callable[..., Any], *params: str, rest: str = "") -> None:
        self.call = call
        self.params = params
        self.rest = rest


def _position(index: Any, limit: int) -> int:
    index = unwrap(index)
    if index is None:
        raise ValueError("cannot index slice/array with nil")
    if isinstance(index, bool) or not isinstance(index, int):
        raise ValueError(f"cannot index slice/array with type {type_name(index)}")
    if index < 0 or index > limit:
        raise ValueError(f"index out of range: {index}")
    return int(index)


def _index(item: Any, *indices: Any) -> Any:
    value = unwrap(item)
    if value is None:
        raise ValueError("index of untyped nil")
    for key in indices:
        key = unwrap(key)
        value, nil = indirect(value)
        if nil:
            raise ValueError("index of nil pointer")
        if isinstance(value, (list, str)):
            raw = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
            at = _position(key, len(raw))
            if at >= len(raw):
                raise ValueError(f"reflect: {'string' if isinstance(value, str) else 'slice'} index out of range")
            if isinstance(value, str):
                value = _byte(raw[at])
            else:
                value = Iface(value[at]) if elem_type(type_name(value)) == "interface {}" else value[at]
        elif isinstance(value, dict):
            if key is None:
                raise ValueError("value is nil; should be of type string")
            if type_name(key) != "string":
                raise ValueError(f"value has type {type_name(key)}; should be string")
            value = _entry(value, key)
        else:
            raise ValueError(f"can't index item of type {type_name(value)}" if value is not None else _NO_TYPE)
    return value


def _byte(value: int) -> Any:
    from sampan.cli.format.values import GoInt

    number = GoInt(value)
    number.type = "uint8"
    return number


def _entry(value: dict[str, Any], key: str) -> Any:
    name = elem_type(type_name(value))
    if key in value:
        return Iface(value[key]) if name == "interface {}" else value[key]
    if name == "interface {}":
        return Iface(None)
    return zero(name)


def zero(name: str) -> Any:
    """The zero value of a type."""
    if name == "string":
        return ""
    if name.startswith("[]"):
        return GoList(name)
    if name.startswith("map["):
        return GoMap(name)
    if name.startswith("*"):
        return Ptr(name, None)
    if name == "bool":
        return False
    from sampan.cli.format import schema

    return schema.decode(name, None)


def _slice(item: Any, *indices: Any) -> Any:
    value = unwrap(item)
    if value is None:
        raise ValueError("slice of untyped nil")
    if len(indices) > 3:
        raise ValueError(f"too many slice indexes: {len(indices)}")
    if isinstance(value, str):
        if len(indices) == 3:
            raise ValueError("cannot 3-index slice a string")
    elif not isinstance(value, list):
        raise ValueError(f"can't slice item of type {type_name(value)}")
    raw = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
    bounds = [0, len(raw), len(raw)]
    for at, index in enumerate(indices):
        bounds[at] = _position(index, len(raw))
    if bounds[0] > bounds[1]:
        raise ValueError(f"invalid slice index: {bounds[0]} > {bounds[1]}")
    if len(indices) == 3 and bounds[1] > bounds[2]:
        raise ValueError(f"invalid slice index: {bounds[1]} > {bounds[2]}")
    cut = raw[bounds[0] : bounds[1]]
    if isinstance(cut, bytes):
        return cut.decode("utf-8", "surrogateescape")
    return GoList(type_name(value), list(cut)) if isinstance(value, GoList) else list(cut)


def _length(item: Any) -> int:
    value, nil = indirect(item)
    if nil:
        raise ValueError("len of nil pointer")
    if isinstance(value, str):
        return byte_len(value)
    if isinstance(value, (list, dict)):
        return len(value)
    raise ValueError(f"len of type {type_name(value)}" if value is not None else _NO_TYPE)


def _call(function: Any, *_args: Any) -> Any:
    value = unwrap(function)
    if value is None:
        raise ValueError("call of nil")
    raise ValueError(f"non-function {{}} of type {type_name(value)}")


_BASIC = ("bool", "int", "uint", "float", "complex", "string")


def _equal(first: Any, *others: Any) -> bool:
    first = unwrap(first)
    if not others:
        raise ValueError("missing argument for comparison")
    mine = kind(first)
    for other in map(unwrap, others):
        theirs = kind(other)
        mine_key = mine if mine in _BASIC else ""
        theirs_key = theirs if theirs in _BASIC else ""
        if mine_key != theirs_key:
            if {mine_key, theirs_key} == {"int", "uint"}:
                if first == other:
                    return True
            elif first is not None and other is not None:
                raise ValueError("incompatible types for comparison")
        elif mine_key:
            if first == other:
                return True
        elif _same(first, other):
            return True
    return False


def _same(first: Any, other: Any) -> bool:
    """Values of kinds that have no order: nil, pointers, structs; maps and slices compare with nil only."""
    nils = [value is None or (isinstance(value, Ptr) and value.target is None) or getattr(value, "nil", False) for value in (first, other)]
    containers = [isinstance(value, (dict, list)) for value in (first, other)]
    if first is not None and other is not None and any(containers) and not any(nils):
        if type_name(first) != type_name(other):
            raise ValueError("incompatible types for comparison")
        raise ValueError(f"non-comparable type {gofmt.text(other)}: {type_name(other)}")
    if any(nils):
        return nils[0] == nils[1]
    if isinstance(first, Ptr) and isinstance(other, Ptr):
        return first.target is other.target
    if type_name(first) != type_name(other):
        return False
    return bool(gofmt.text(first) == gofmt.text(other))


def _not_equal(first: Any, other: Any) -> bool:
    return not _equal(first, other)


def _less(first: Any, other: Any) -> bool:
    first, other = unwrap(first), unwrap(other)
    mine, theirs = kind(first), kind(other)
    if mine not in _BASIC or theirs not in _BASIC:
        raise ValueError("invalid type for comparison")
    if mine != theirs and {mine, theirs} != {"int", "uint"}:
        raise ValueError("incompatible types for comparison")
    if mine in ("bool", "complex"):
        raise ValueError("invalid type for comparison")
    if mine == "string":
        return bool(first.encode("utf-8", "surrogateescape") < other.encode("utf-8", "surrogateescape"))
    return bool(first < other)


def _less_equal(first: Any, other: Any) -> bool:
    return _less(first, other) or _equal(first, other)


def _greater(first: Any, other: Any) -> bool:
    return not _less_equal(first, other)


def _greater_equal(first: Any, other: Any) -> bool:
    return not _less(first, other)


def _plain(values: tuple[Any, ...]) -> str:
    """The text of arguments as html, js and urlquery take it."""
    shown = []
    for value in values:
        value = unwrap(value)
        while isinstance(value, Ptr) and value.target is not None:
            value = value.target
        shown.append("<no value>" if value is None else value)
    return gofmt.sprint(shown)


def _html(*values: Any) -> str:
    out = _plain(values)
    for char, escaped in (("&", "&amp;"), ("\x00", "\ufffd"), ('"', "&#34;"), ("'", "&#39;"), ("<", "&lt;"), (">", "&gt;")):
        out = out.replace(char, escaped)
    return out


def _js(*values: Any) -> str:
    out = []
    special = {"\\": "\\\\", "'": "\\'", '"': '\\"', "<": "\\u003C", ">": "\\u003E", "&": "\\u0026", "=": "\\u003D"}
    for char in _plain(values):
        if char in special:
            out.append(special[char])
        elif char < " " or not char.isprintable():
            out.append(f"\\u{ord(char):04X}")
        else:
            out.append(char)
    return "".join(out)


def _urlquery(*values: Any) -> str:
    safe = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.~"
    raw = _plain(values).encode("utf-8", "surrogateescape")
    return "".join(chr(byte) if byte in safe else "+" if byte == 32 else f"%{byte:02X}" for byte in raw)


def _json(value: Any) -> str:
    return gojson.dumps(value).strip()


def _title(text: str) -> str:
    """strings.Title: the first letter of each word in upper case; words end at what is neither letter, digit nor underscore."""
    out = []
    before = " "
    for char in text:
        starts = not (before.isalnum() or before == "_") if before.isascii() else before.isspace()
        out.append((char.title() if len(char.title()) == 1 else char) if starts else char)
        before = char
    return "".join(out)


def _split(text: str, separator: str) -> GoList:
    return GoList("[]string", list(text) if separator == "" else text.split(separator))


def _join(items: list[str], separator: str) -> str:
    return separator.join(items)


def _pad(text: str, prefix: int, suffix: int) -> str:
    if not text:
        return text
    if prefix < 0 or suffix < 0:
        raise ValueError("strings: negative Repeat count")
    if prefix + suffix > 1 << 27:
        raise ValueError("strings: Repeat output length overflow")
    return " " * prefix + text + " " * suffix


def _truncate(text: str, length: int) -> str:
    raw = text.encode("utf-8", "surrogateescape")
    if len(raw) < length:
        return text
    if length < 0:
        raise ValueError(f"runtime error: slice bounds out of range [:{length}]")
    return raw[:length].decode("utf-8", "surrogateescape")


def _lower(text: str) -> str:
    return "".join(char.lower() if len(char.lower()) == 1 else char for char in text)


def _upper(text: str) -> str:
    return "".join(char.upper() if len(char.upper()) == 1 else char for char in text)


BUILTINS: dict[str, Function] = {
    "and": Function(truth, "value", rest="value"),
    "or": Function(truth, "value", rest="value"),
    "not": Function(lambda value: not truth(value), "value"),
    "call": Function(_call, "value", rest="value"),
    "html": Function(_html, rest="any"),
    "js": Function(_js, rest="any"),
    "urlquery": Function(_urlquery, rest="any"),
    "index": Function(_index, "value", rest="value"),
    "slice": Function(_slice, "value", rest="value"),
    "len": Function(_length, "value"),
    "print": Function(lambda *values: gofmt.sprint([unwrap(value) for value in values]), rest="any"),
    "printf": Function(lambda layout, *values: gofmt.sprintf(layout, [unwrap(value) for value in values]), "string", rest="any"),
    "println": Function(lambda *values: gofmt.sprintln([unwrap(value) for value in values]), rest="any"),
    "eq": Function(_equal, "value", rest="value"),
    "ne": Function(_not_equal, "value", "value"),
    "lt": Function(_less, "value", "value"),
    "le": Function(_less_equal, "value", "value"),
    "gt": Function(_greater, "value", "value"),
    "ge": Function(_greater_equal, "value", "value"),
}
DOCKER: dict[str, Function] = {
    "json": Function(_json, "any"),
    "split": Function(_split, "string", "string"),
    "join": Function(_join, "[]string", "string"),
    "title": Function(_title, "string"),
    "lower": Function(_lower, "string"),
    "upper": Function(_upper, "string"),
    "pad": Function(_pad, "string", "int", "int"),
    "truncate": Function(_truncate, "string", "int"),
}


def _same_text(text: str, *_rest: Any) -> str:
    return text


# in the header row the texts are titles: functions leave them alone
HEADER: dict[str, Function] = {
    "json": Function(_same_text, "string"),
    "split": Function(_same_text, "string", "string"),
    "join": Function(_same_text, "string", "string"),
    "title": Function(_same_text, "string"),
    "lower": Function(_same_text, "string"),
    "upper": Function(_same_text, "string"),
    "truncate": Function(_same_text, "string", "int"),
}
__all__ = ["BUILTINS", "DOCKER", "HEADER", "Function", "Header", "zero"]
