"""Values as Go's fmt writes them: docker's histories are made with it."""

from collections.abc import Sequence

from sampan.quoting import go_quote

_UNITS = (("h", 3_600_000_000_000), ("m", 60_000_000_000))


def quoted(texts: Sequence[str]) -> str:
    """%q of a []string."""
    return "[" + " ".join(map(go_quote, texts)) + "]"


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
