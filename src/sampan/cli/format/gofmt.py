"""Go's fmt: Sprint, Sprintln and Sprintf over the values of values.py."""

from __future__ import annotations

from sampan.cli.format.values import GoDuration, GoList, GoMap, GoTime, Iface, Methods, Ptr, Shown, Struct, type_name
from sampan.quoting import go_quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


def float_text(value: float, verb: str = "g", precision: int = -1) -> str:
    """A float as %v, %e, %f, %g print it."""
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "+Inf" if value > 0 else "-Inf"
    if verb in "eEfF":
        return f"{value:.{6 if precision < 0 else precision}{verb}}"
    if precision >= 0:
        return f"{value:.{precision}{verb}}"
    if verb == "G":
        return float_text(value).upper()
    digits, _, exponent = f"{value!r}".partition("e")
    power = int(exponent) if exponent else len(digits.lstrip("-").partition(".")[0]) - 1
    if value and not exponent and abs(value) < 1:
        power = int(f"{value:e}".partition("e")[2])
    if value == 0 or -4 <= power < 6:
        text = digits if not exponent else f"{value:.0f}" if power > 0 else f"{value:f}"
        return text.removesuffix(".0")
    if exponent:
        mantissa = digits
    else:
        plain = digits.lstrip("-").replace(".", "").lstrip("0").rstrip("0")
        mantissa = ("-" if value < 0 else "") + plain[0] + (f".{plain[1:]}" if plain[1:] else "")
        exponent = str(power)
    return f"{mantissa}e{'-' if exponent.startswith('-') else '+'}{exponent.lstrip('+-').zfill(2)}"


def text(value: Any, *, plus: bool = False, sharp: bool = False, depth: int = 0) -> str:
    """%v (or %+v) of a value."""
    if isinstance(value, Iface):
        value = value.value
    if value is None:
        return "<nil>"
    if isinstance(value, Ptr):
        if value.target is None:
            return "<nil>"
        # the address of a nested pointer means nothing to anybody: any will do
        return "&" + text(value.target, plus=plus, depth=1) if depth == 0 else "0xc000000000"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return value.shown() if isinstance(value, GoDuration) else str(int(value))
    if isinstance(value, float):
        return float_text(value)
    if isinstance(value, complex):
        return f"({float_text(value.real)}{float_text(value.imag) if value.imag < 0 else '+' + float_text(value.imag)}i)"
    if isinstance(value, str):
        return str(value)
    if isinstance(value, dict):
        keys = sorted(value, key=lambda key: str(key).encode("utf-8", "surrogateescape"))
        return "map[" + " ".join(f"{key}:{text(value[key], plus=plus, depth=depth + 1)}" for key in keys) + "]"
    if isinstance(value, list):
        return "[" + " ".join(text(item, plus=plus, depth=depth + 1) for item in value) + "]"
    if isinstance(value, Shown):
        return value.shown
    if isinstance(value, Struct):
        return _struct(value, value.schema, plus, depth)
    if isinstance(value, GoTime):
        return str(value)
    if isinstance(value, Methods):
        return "&{}"
    return str(value)


def _struct(value: Struct, schema: Any, plus: bool, depth: int) -> str:
    """A struct's fields; embedded structs have braces of their own."""
    inner = []
    for part in schema.shape:
        label = f"{part if isinstance(part, str) else part.name.rpartition('.')[2]}:" if plus else ""
        shown = text(value.fields[part], plus=plus, depth=depth + 1) if isinstance(part, str) else _struct(value, part, plus, depth)
        inner.append(label + shown)
    return "{" + " ".join(inner) + "}"


def sprint(values: Sequence[Any]) -> str:
    """fmt.Sprint: blanks between operands when neither is a string."""
    out = []
    before = True
    for at, value in enumerate(values):
        string = isinstance(value, str)
        if at and not before and not string:
            out.append(" ")
        out.append(text(value))
        before = string
    return "".join(out)


def sprintln(values: Sequence[Any]) -> str:
    """fmt.Sprintln."""
    return " ".join(map(text, values)) + "\n"


class _Spec:
    """One conversion: flags, width, precision."""

    def __init__(self) -> None:
        self.flags = ""
        self.width = -1
        self.precision = -1


def _pad(spec: _Spec, body: str) -> str:
    if len(body) >= spec.width:
        return body
    if "-" in spec.flags:
        return body.ljust(spec.width)
    if "0" in spec.flags:
        sign = body[0] if body[:1] in ("-", "+") else ""
        return sign + body[len(sign) :].rjust(spec.width - len(sign), "0")
    return body.rjust(spec.width)


def _bad(verb: str, value: Any) -> str:
    return f"%!{verb}(<nil>)" if value is None else f"%!{verb}({type_name(value)}={text(value)})"


def _integer(spec: _Spec, verb: str, value: int) -> str | None:
    value = int(value)
    body = {"d": "d", "v": "d", "b": "b", "o": "o", "O": "o", "x": "x", "X": "X"}.get(verb)
    if body:
        digits = f"{abs(value):{body}}"
        if spec.precision >= 0:
            digits = digits.zfill(spec.precision) if spec.precision or value else ""
            spec.flags = spec.flags.replace("0", "")
        prefix = {"x": "0x", "X": "0X", "b": "0b", "o": "0"}.get(verb, "") if "#" in spec.flags else "0o" if verb == "O" else ""
        sign = "-" if value < 0 else "+" if "+" in spec.flags else " " if " " in spec.flags else ""
        return sign + prefix + digits
    if verb in "cq" and 0 <= value <= 0x10FFFF:
        return chr(value) if verb == "c" else "'" + (chr(value) if chr(value) != "'" else "\\'") + "'"
    if verb in "cq":
        return "\ufffd" if verb == "c" else "'\ufffd'"
    if verb == "U":
        return f"U+{value:04X}" + (f" '{chr(value)}'" if "#" in spec.flags and 0 <= value <= 0x10FFFF else "")
    if verb in "eEfFgG":
        return None
    return None


def _string(spec: _Spec, verb: str, value: str) -> str | None:
    if verb in "xX":
        raw = value.encode("utf-8", "surrogateescape")
        raw = raw[: spec.precision] if spec.precision >= 0 else raw
        spread = raw.hex(" ") if " " in spec.flags else raw.hex()
        return spread.upper() if verb == "X" else spread
    cut = value[: spec.precision] if spec.precision >= 0 else value
    if verb == "q" or (verb == "v" and "#" in spec.flags):
        return f"`{cut}`" if "#" in spec.flags and verb == "q" and "`" not in cut and cut.isprintable() else go_quote(cut)
    return cut if verb in "vs" else None


def _float(spec: _Spec, verb: str, value: float) -> str | None:
    if verb not in "veEfFgG":
        return None
    body = float_text(value, "g" if verb == "v" else verb, spec.precision)
    if "+" in spec.flags and not body.startswith(("-", "+")):
        return "+" + body
    return " " + body if " " in spec.flags and body[:1] not in "-+" else body


def _format(spec: _Spec, verb: str, value: Any) -> str:
    """One operand by one verb; containers apply it to their elements."""
    value = value.value if isinstance(value, Iface) else value
    if verb == "v" and "+" in spec.flags and isinstance(value, (int, float)):
        spec.flags = spec.flags.replace("+", "")  # %+v is about field names, not signs
    if verb == "T":
        return _pad(spec, type_name(value))
    if value is None:
        return _pad(spec, "<nil>") if verb == "v" else f"%!{verb}(<nil>)"
    if isinstance(value, bool):
        body = ("true" if value else "false") if verb in "tv" else None
    elif isinstance(value, GoDuration) and verb in "vs":
        body = value.shown()
    elif isinstance(value, int):
        body = _integer(spec, verb, value)
    elif isinstance(value, float):
        body = _float(spec, verb, value)
    elif isinstance(value, str) or (isinstance(value, GoTime) and verb in "vsqxX"):
        body = _string(spec, verb, str(value))
    elif isinstance(value, list) and verb != "v":
        return "[" + " ".join(_format(spec, verb, item) for item in value) + "]"
    elif isinstance(value, dict) and verb != "v":
        keys = sorted(value)
        return "map[" + " ".join(f"{_format(spec, verb, key)}:{_format(spec, verb, value[key])}" for key in keys) + "]"
    elif isinstance(value, Struct) and verb != "v":
        return "{" + " ".join(_format(spec, verb, item) for item in value.fields.values()) + "}"
    elif verb in "vs":
        body = sharp(value) if "#" in spec.flags else text(value, plus="+" in spec.flags)
    else:
        body = None
    return _bad(verb, value) if body is None else _pad(spec, body)


def sharp(value: Any) -> str:
    """%#v of a value."""
    value = value.value if isinstance(value, Iface) else value
    if value is None or (isinstance(value, Ptr) and value.target is None):
        return "interface {}(nil)" if value is None else f"({type_name(value)})(nil)"
    if isinstance(value, str):
        return go_quote(str(value))
    if isinstance(value, (GoMap, GoList)) and value.nil:
        return f"{value.type}(nil)"
    if isinstance(value, dict):
        return f"{type_name(value)}{{{', '.join(f'{sharp(key)}:{sharp(value[key])}' for key in sorted(value))}}}"
    if isinstance(value, list):
        return f"{type_name(value)}{{{', '.join(map(sharp, value))}}}"
    if isinstance(value, Struct):
        return f"{value.type}{{{', '.join(f'{name}:{sharp(item)}' for name, item in value.fields.items())}}}"
    return text(value)


def sprintf(layout: str, values: Sequence[Any]) -> str:
    """fmt.Sprintf, with its notes about wrong operands."""
    out: list[str] = []
    at = 0
    used = 0
    reordered = False
    while at < len(layout):
        percent = layout.find("%", at)
        if percent < 0:
            out.append(layout[at:])
            break
        out.append(layout[at:percent])
        at = percent + 1
        spec = _Spec()
        while at < len(layout) and layout[at] in "+-# 0":
            spec.flags += layout[at]
            at += 1
        if "-" in spec.flags:
            spec.flags = spec.flags.replace("0", "")
        at, used, again = _index(layout, at, used, len(values))
        reordered |= again
        at, used, notes = _numbers(layout, at, used, values, spec)
        out.append(notes)
        at, used, again = _index(layout, at, used, len(values))
        reordered |= again
        if at >= len(layout):
            out.append("%!(NOVERB)")
            break
        verb = layout[at]
        at += 1
        if verb == "%":
            out.append("%")
        elif used < 0:
            out.append(f"%!{verb}(BADINDEX)")
            used = 0
        elif used >= len(values):
            out.append(f"%!{verb}(MISSING)")
        else:
            out.append(_format(spec, verb, values[used]))
            used += 1
    if not reordered and used < len(values):
        rest = ("<nil>" if value is None else f"{type_name(value)}={text(value)}" for value in values[used:])
        out.append("%!(EXTRA " + ", ".join(rest) + ")")
    return "".join(out)


def _index(layout: str, at: int, used: int, count: int) -> tuple[int, int, bool]:
    """An explicit operand, `[n]`."""
    if layout[at : at + 1] != "[":
        return at, used, False
    end = layout.find("]", at)
    if end < 0:
        return at + 1, -1, True
    inner = layout[at + 1 : end]
    if not inner.isdecimal() or len(inner) > 6 or not 1 <= int(inner) <= count:
        return end + 1, -1, True
    return end + 1, int(inner) - 1, True


def _numbers(layout: str, at: int, used: int, values: Sequence[Any], spec: _Spec) -> tuple[int, int, str]:
    """Width and precision, from the text or (*) from operands."""
    notes = ""

    def one(at: int, used: int) -> tuple[int, int, int, bool]:
        if layout[at : at + 1] == "*":
            value = values[used] if 0 <= used < len(values) else None
            good = isinstance(value, int) and not isinstance(value, bool) and -1_000_000 <= value <= 1_000_000
            return at + 1, used + 1, int(value) if good else -1, good  # type: ignore[arg-type]
        end = at
        while end < len(layout) and "0" <= layout[end] <= "9":
            end += 1
        number = int(layout[at:end]) if 0 < end - at <= 7 else -1
        return end, used, number if number <= 1_000_000 else -1, True

    at, used, spec.width, good = one(at, used)
    if not good:
        notes += "%!(BADWIDTH)"
    elif spec.width < -1:
        spec.flags += "-"
        spec.width = -spec.width
    if layout[at : at + 1] == ".":
        at, used, spec.precision, good = one(at + 1, used)
        if not good:
            notes += "%!(BADPREC)"
        elif spec.precision < 0:
            spec.precision = 0
    return at, used, notes
