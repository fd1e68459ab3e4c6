"""Go's words for what Python words differently. Imported only where there is something to complain about."""

from __future__ import annotations

import json


def json_error(raw: bytes) -> str:
    """Why raw is no JSON, as encoding/json says it."""
    text = raw.decode("utf-8", "replace")
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return _in_gos_words(text, error)
    return "invalid JSON"


def _in_gos_words(text: str, error: json.JSONDecodeError) -> str:
    if not text[error.pos :].strip():
        return "unexpected end of JSON input"
    char = text[error.pos :].lstrip()[0]
    place = {
        "Expecting property name enclosed in double quotes": "looking for beginning of object key string",
        "Expecting value": "looking for beginning of value",
        "Expecting ':' delimiter": "after object key",
        "Extra data": "after top-level value",
    }.get(error.msg)
    if error.msg == "Expecting ',' delimiter":
        place = "after array element" if _innermost(text[: error.pos]) == "[" else "after object key:value pair"
    quoted = {"'": r"'\''", '"': "'\"'"}.get(char, f"'{char}'")
    return f"invalid character {quoted} {place}" if place else error.msg.lower()


def _innermost(text: str) -> str:
    """The bracket that is open at the end of the beginning of a JSON text."""
    opened: list[str] = []
    in_string = escaped = False
    for char in text:
        if in_string:
            in_string = escaped or char != '"'
            escaped = char == "\\" and not escaped
        elif char == '"':
            in_string = True
        elif char in "[{":
            opened.append(char)
        elif char in "]}" and opened:
            opened.pop()
    return opened[-1] if opened else ""
