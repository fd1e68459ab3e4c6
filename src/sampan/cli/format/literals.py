"""Constants in a Go text/template: quoted strings, characters, numbers (strconv.Unquote and text/template/parse's newNumber)."""

from __future__ import annotations

from sampan.quoting import go_quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def unquote(text: str) -> str:
    """strconv.Unquote of a double- or back-quoted string, or of a character constant. ValueError if it is malformed."""
    quote, body = text[0], text[1:-1]
    if len(text) < 2 or text[-1] != quote:
        raise ValueError("invalid syntax")
    if quote == "`":
        return body.replace("\r", "")
    out = bytearray()
    count = at = 0
    named = {"a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11, "\\": 92}
    while at < len(body):
        char = body[at]
        at += 1
        count += 1
        if char == quote or char == "\n":
            raise ValueError("invalid syntax")
        if char != "\\":
            out += char.encode("utf-8", "surrogateescape")
            continue
        escape = body[at : at + 1]
        at += 1
        if escape in named and escape:
            out.append(named[escape])
        elif escape == quote:
            out += quote.encode()
        elif escape and escape in "xuU":
            size = {"x": 2, "u": 4, "U": 8}[escape]
            code = _digits(body[at : at + size], 16, size)
            at += size
            out += _code(code, escape == "x")
        elif escape and escape in "01234567":
            code = _digits(body[at - 1 : at + 2], 8, 3)
            at += 2
            if code > 255:
                raise ValueError("invalid syntax")
            out.append(code)
        else:
            raise ValueError("invalid syntax")
    if quote == "'" and count != 1:
        raise ValueError("invalid syntax")
    return out.decode("utf-8", "surrogateescape")


def _digits(text: str, base: int, size: int) -> int:
    if len(text) != size or any(char not in "0123456789abcdefABCDEF"[: 8 if base == 8 else 22] for char in text):
        raise ValueError("invalid syntax")
    return int(text, base)


def _code(code: int, byte: bool) -> bytes:
    if byte:
        return bytes((code,))
    if code > 0x10FFFF or 0xD800 <= code < 0xE000:
        raise ValueError("invalid syntax")
    return chr(code).encode()


def number(text: str) -> Any:
    """The value of a number's source: int, float, or complex. ValueError in Go's words."""
    if text[0] == "'":
        try:
            return ord(unquote(text))
        except (ValueError, TypeError):
            raise ValueError(f"malformed character constant: {text}") from None
    bad = ValueError(f"illegal number syntax: {go_quote(text)}")
    try:
        if text[-1] == "i":
            return complex(text.replace("_", "")[:-1] + "j")
        digits = text.lstrip("+-")
        if digits.startswith("_") or "__" in digits or digits.endswith("_"):
            raise bad
        if not any(char in digits.lower() for char in (".", "p")) and (digits[:2].lower() == "0x" or "e" not in digits.lower()):
            plain = digits.replace("_", "")
            octal = len(plain) > 1 and plain[0] == "0" and plain.isdigit()
            if octal and not plain.strip("01234567") == "":
                # Go finds that it is no integer but would do as a float, and takes that for an overflow
                raise ValueError(f"integer overflow: {go_quote(text)}")
            value = int(plain, 8) if octal else int(plain, 0)
            if value >= 1 << 64:
                raise ValueError(f"integer overflow: {go_quote(text)}")
            return -value if text[0] == "-" else value
        if digits[:2].lower() == "0x":
            return float.fromhex(text.replace("_", ""))
        return float(text.replace("_", ""))
    except (ValueError, OverflowError) as error:
        raise (error if "overflow:" in str(error) else bad) from None
