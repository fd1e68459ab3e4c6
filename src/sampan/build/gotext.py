"""Values as Go's fmt writes them: docker's histories are made with it."""

from collections.abc import Sequence

_SHORT = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v", "\\": "\\\\", '"': '\\"'}
_UNITS = (("h", 3_600_000_000_000), ("m", 60_000_000_000))


def quote(text: str) -> str:
    """%q of a string."""
    return '"' + "".join(_SHORT.get(letter) or (letter if letter.isprintable() else _escaped(letter)) for letter in text) + '"'


def _escaped(letter: str) -> str:
    code = ord(letter)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def quoted(texts: Sequence[str]) -> str:
    """%q of a []string."""
    return "[" + " ".join(map(quote, texts)) + "]"


def shown(texts: Sequence[str]) -> str:
    """%v of a []string."""
    return "[" + " ".join(texts) + "]"


def duration(ns: int) -> str:
    """time.Duration's String, of nanoseconds."""
    if not ns:
        return "0s"
    sign, ns = ("-", -ns) if ns < 0 else ("", ns)
    for limit, unit in ((1_000, "ns"), (1_000_000, "µs"), (1_000_000_000, "ms")):
        if ns < limit:
            return sign + _decimal(ns, limit // 1_000) + unit
    text = ""
    for unit, length in _UNITS:
        if ns >= length or text:
            text += f"{ns // length}{unit}"
            ns %= length
    return sign + text + _decimal(ns, 1_000_000_000) + "s"


def _decimal(value: int, unit: int) -> str:
    whole, rest = divmod(value, unit)
    if not rest:
        return str(whole)
    return f"{whole}.{rest:0{len(str(unit)) - 1}d}".rstrip("0")
