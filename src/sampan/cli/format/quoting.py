"""Strings as Go quotes and counts them."""

from __future__ import annotations


def go_quote(text: str) -> str:
    """Text as Go's %q (strconv.Quote) prints it. Bytes that are not UTF-8 are surrogate escapes here, \\xNN there."""
    out = ['"']
    names = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v", '"': '\\"', "\\": "\\\\"}
    for char in text:
        code = ord(char)
        if char in names:
            out.append(names[char])
        elif char.isprintable():
            out.append(char)
        elif 0xDC80 <= code <= 0xDCFF:
            out.append(f"\\x{code - 0xDC00:02x}")
        elif code < 0x80:
            out.append(f"\\x{code:02x}")
        else:
            out.append(f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")
    out.append('"')
    return "".join(out)


def byte_len(text: str) -> int:
    """How long Go thinks the string is."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogateescape"))
