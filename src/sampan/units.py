"""Sizes, durations and truth as docker writes and reads them (docker/go-units, Go's time.ParseDuration, strconv.ParseBool).

Kept free of imports: `sampan ps` loads it.
"""

from __future__ import annotations

TRUE, FALSE = ("1", "t", "T", "TRUE", "true", "True"), ("0", "f", "F", "FALSE", "false", "False")
_DECIMAL = ("B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB")
_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB")
_MULTIPLES = "kmgtp"
_INT64_MAX = (1 << 63) - 1

_DURATION_UNITS = {"ns": 1, "us": 10**3, "\u00b5s": 10**3, "\u03bcs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
NANOSECONDS = 10**9


def general(value: float, precision: int) -> str:
    """Go's `%.*g`."""
    text = f"{value:.{precision}g}"
    return {"inf": "+Inf", "-inf": "-Inf", "nan": "NaN"}.get(text, text)


def _scale(size: float, base: float, names: tuple[str, ...]) -> tuple[float, str]:
    at = 0
    while size >= base and at < len(names) - 1:
        size /= base
        at += 1
    return size, names[at]


def human_size(size: float, precision: int = 4) -> str:
    """Bytes in decimal units with so many significant digits: `2.746MB`, `0B` (units.HumanSizeWithPrecision)."""
    value, unit = _scale(size, 1000.0, _DECIMAL)
    return general(value, precision) + unit


def bytes_size(size: float) -> str:
    """Bytes in binary units with four significant digits: `23.54GiB` (units.BytesSize)."""
    value, unit = _scale(size, 1024.0, _BINARY)
    return general(value, 4) + unit


def human_duration(nanoseconds: int) -> str:
    """A duration as docker shows ages: `Less than a second`, `About a minute`, `3 weeks` (units.HumanDuration)."""
    seconds = int(nanoseconds / NANOSECONDS)
    if seconds < 1:
        return "Less than a second"
    if seconds < 60:
        return "1 second" if seconds == 1 else f"{seconds} seconds"
    minutes = seconds // 60
    if minutes < 60:
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    hours = int(nanoseconds / (3600 * NANOSECONDS) + 0.5)
    if hours < 48:
        return "About an hour" if hours == 1 else f"{hours} hours"
    for limit, divisor, name in ((24 * 14, 24, "days"), (24 * 60, 24 * 7, "weeks"), (24 * 365 * 2, 24 * 30, "months")):
        if hours < limit:
            return f"{hours // divisor} {name}"
    return f"{int(nanoseconds / (3600 * NANOSECONDS)) // 24 // 365} years"


def parse_size(text: str, *, base: int = 1024) -> int:
    """A size like `64m`, `1.5GiB`, `512` in bytes (units.RAMInBytes; base 1000: FromHumanSize). ValueError in Go's words."""
    number, space, suffix = text.partition(" ")
    if not space:
        end = max((text.rfind(char) for char in "0123456789."), default=-1)
        if end == -1:
            raise ValueError(f"invalid size: '{text}'")
        number, suffix = text[: end + 1], text[end + 1 :]
    size = _parse_float(number)
    if size < 0:
        raise ValueError(f"invalid size: '{text}'")
    if suffix:
        if len(suffix.encode("utf-8", "surrogateescape")) > 3:
            raise ValueError(f"invalid suffix: '{suffix}'")
        suffix = suffix.lower()
        at = _MULTIPLES.find(suffix[0])
        if suffix[1:] not in ("", "b", "ib") or (at < 0 and suffix != "b"):
            raise ValueError(f"invalid suffix: '{suffix}'")
        if at >= 0:
            size *= float(base ** (at + 1))
    return _to_int64(size)


def _to_int64(size: float) -> int:
    # Go's conversion of a float out of range is the smallest int64 on amd64
    return int(size) if size == size and abs(size) <= _INT64_MAX else -_INT64_MAX - 1


def _quote(text: str) -> str:
    """A text in double quotes; what is not printable ASCII as \\xNN, as Go's time package does."""
    out = []
    for byte in text.encode("utf-8", "surrogateescape"):
        char = chr(byte)
        out.append("\\" + char if char in '"\\' else char if 32 <= byte < 127 else f"\\x{byte:02x}")
    return '"' + "".join(out) + '"'


def _parse_float(text: str) -> float:
    """strconv.ParseFloat; ValueError in its words."""
    plain = text.replace("_", "x").lower()
    try:
        if plain.startswith(("0x", "+0x", "-0x")):
            if "p" not in plain:
                raise ValueError
            value = float.fromhex(plain)
        elif not text.isascii() or text != text.strip():
            raise ValueError
        else:
            value = float(plain)
    except (ValueError, OverflowError):
        raise ValueError(f"strconv.ParseFloat: parsing {_quote(text)}: invalid syntax") from None
    if value in (float("inf"), float("-inf")) and "inf" not in plain:
        raise ValueError(f"strconv.ParseFloat: parsing {_quote(text)}: value out of range")
    return value


def parse_duration(text: str) -> int:
    """A duration in Go's syntax (`1m30s`, `-1.5h`) in nanoseconds. ValueError in Go's words (time.ParseDuration)."""
    shown = _quote(text)
    rest = text
    negative = rest[:1] == "-"
    if rest[:1] in ("-", "+"):
        rest = rest[1:]
    if rest == "0":
        return 0
    if not rest:
        raise ValueError(f"time: invalid duration {shown}")
    total = 0
    while rest:
        whole, rest = _digits(rest)
        fraction = ""
        if rest[:1] == ".":
            fraction, rest = _digits(rest[1:])
        if not whole and not fraction:
            raise ValueError(f"time: invalid duration {shown}")
        end = 0
        while end < len(rest) and rest[end] != "." and not "0" <= rest[end] <= "9":
            end += 1
        unit, rest = rest[:end], rest[end:]
        if not unit:
            raise ValueError(f"time: missing unit in duration {shown}")
        if unit not in _DURATION_UNITS:
            raise ValueError(f"time: unknown unit {_quote(unit)} in duration {shown}")
        scale = _DURATION_UNITS[unit]
        total += int(whole or "0") * scale
        if fraction:
            total += int(fraction) * scale // 10 ** len(fraction)
        if total > _INT64_MAX + negative:
            raise ValueError(f"time: invalid duration {shown}")
    return -total if negative else total


def _digits(text: str) -> tuple[str, str]:
    end = 0
    while end < len(text) and "0" <= text[end] <= "9":
        end += 1
    if end > 4000:
        raise ValueError(f'time: invalid duration "{text[:16]}..."')
    return text[:end], text[end:]


def natural_key(text: str) -> list[tuple[int, int, str, int]]:
    """A sort key that puts `net2` before `net10`, as docker sorts names, ports and filters (fvbommel/sortorder NaturalLess).

    Digits come before everything else; numbers count by their value, then by their leading zeros.
    """
    parts: list[tuple[int, int, str, int]] = []
    at = 0
    while at < len(text):
        end = at
        while end < len(text) and "0" <= text[end] <= "9":
            end += 1
        digits = text[at:end].lstrip("0")
        parts.append((0, len(digits), digits, end - at) if end > at else (1, ord(text[at]), "", 0))
        at = max(end, at + 1)
    return parts
