"""JSON as Go's encoding/json writes it."""

from __future__ import annotations

from sampan.cli.format.values import GoList, GoMap, GoStr, GoTime, Iface, Methods, Ptr, Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SHORT = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def quote(text: str, *, html: bool) -> str:
    """A JSON string. html: escape <, > and & too, as json.Marshal does and an encoder without SetEscapeHTML(false)."""
    plain = text.isascii() and text.isprintable() and '"' not in text and "\\" not in text
    if plain and not (html and ("<" in text or ">" in text or "&" in text)):
        return f'"{text}"'
    out = ['"']
    for char in text:
        if char in _SHORT:
            out.append(_SHORT[char])
        elif char < " " or char in "\u2028\u2029" or (html and char in "<>&"):
            out.append(f"\\u{ord(char):04x}")
        elif "\udc80" <= char <= "\udcff":
            out.append("\\ufffd")
        else:
            out.append(char)
    out.append('"')
    return "".join(out)


def number(value: float) -> str:
    """A float64 in JSON: shortest form, exponent below 1e-6 and from 1e21 on."""
    if value != 0 and (abs(value) < 1e-6 or abs(value) >= 1e21):
        mantissa, _, exponent = repr(value).partition("e")
        if not exponent:
            mantissa, _, exponent = f"{value:e}".partition("e")
            mantissa = mantissa.rstrip("0").rstrip(".")
        return f"{mantissa.removesuffix('.0')}e{exponent[0] if exponent[0] in '+-' else '+'}{exponent.lstrip('+-').lstrip('0')}"
    text = repr(value)
    if "e" in text:
        mantissa, _, exponent = text.lstrip("-").partition("e")
        whole, _, part = mantissa.partition(".")
        power = int(exponent)
        digits = whole + part
        if power < 0:
            digits = "0." + "0" * (-power - 1) + digits
        else:
            digits = digits.ljust(power + 1, "0")
        return ("-" if value < 0 else "") + digits
    return text.removesuffix(".0").rstrip(".")


def dumps(value: Any, *, html: bool = False) -> str:
    """A value as compact JSON: maps sorted by key, structs in their own order."""
    if isinstance(value, Iface):
        value = value.value
    if isinstance(value, Ptr):
        value = value.target
    if value is None or (isinstance(value, (GoMap, GoList)) and value.nil):
        return "null"
    if isinstance(value, GoStr) and value.type == "json.Number":
        return str(value) or "0"
    if isinstance(value, str):
        return quote(value, html=html)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, float):
        return number(value)
    if isinstance(value, dict):
        items = sorted(value.items(), key=lambda item: str(item[0]).encode("utf-8", "surrogateescape"))
        return "{" + ",".join(quote(str(key), html=html) + ":" + dumps(item, html=html) for key, item in items) + "}"
    if isinstance(value, list):
        return "[" + ",".join(dumps(item, html=html) for item in value) + "]"
    if isinstance(value, Methods):
        return dumps(value.as_json(), html=True)
    if isinstance(value, GoTime):
        return quote(value.text, html=html)
    if isinstance(value, Struct):
        return "{" + ",".join(f"{quote(key, html=html)}:{dumps(item, html=html)}" for key, item in value.schema.json_items(value)) + "}"
    raise TypeError(f"json: unsupported type: {type(value).__name__}")


def indent(text: str, step: str = "    ") -> str:
    """A JSON document laid out anew, everything else byte for byte (json.Indent): keys and numbers stay as the daemon wrote them."""
    out: list[str] = []
    depth = at = 0
    size = len(text)
    while at < size:
        char = text[at]
        if char == '"':
            end = at + 1
            while end < size and text[end] != '"':
                end += 2 if text[end] == "\\" else 1
            out.append(text[at : end + 1])
            at = end + 1
            continue
        if char in "{[":
            closing = at + 1
            while closing < size and text[closing] in " \t\r\n":
                closing += 1
            if closing < size and text[closing] in "}]":
                out.append(char + text[closing])
                at = closing + 1
                continue
            depth += 1
            out.append(char + "\n" + step * depth)
        elif char in "}]":
            depth -= 1
            out.append("\n" + step * depth + char)
        elif char == ",":
            out.append(",\n" + step * depth)
        elif char == ":":
            out.append(": ")
        elif char not in " \t\r\n":
            out.append(char)
        at += 1
    return "".join(out)


def compact(text: str) -> str:
    """A JSON document without blanks, everything else byte for byte (json.Compact)."""
    out: list[str] = []
    at = 0
    while at < len(text):
        start = text.find('"', at)
        if start < 0:
            out.append("".join(text[at:].split()))
            break
        out.append("".join(text[at:start].split()))
        end = start + 1
        while end < len(text) and text[end] != '"':
            end += 2 if text[end] == "\\" else 1
        out.append(text[start : end + 1])
        at = end + 1
    return "".join(out)
