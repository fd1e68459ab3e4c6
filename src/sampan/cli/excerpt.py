"""The place in a Dockerfile that an error of the daemon's is about, drawn below its message: ours alone, docker's client has none."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_AROUND = 2
_WIDTH = 160


def lines_of(message: str) -> tuple[int, int] | None:
    """(first, last) of `… parse error on line 2: …`."""
    _, found, rest = message.partition("parse error on line ")
    number = rest.partition(":")[0]
    return (int(number), int(number)) if found and number.isascii() and number.isdecimal() and len(number) < 8 else None


def excerpt(text: bytes, shown: str, lines: tuple[int, int], message: str) -> str:
    """The lines with some around them, and a caret under what the message names; empty if there are no such lines."""
    content = text.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace").split("\n")
    first, last = lines
    last = min(max(first, last), first + 10, len(content))
    if not 1 <= first <= len(content):
        return ""
    begin, end = max(1, first - _AROUND), min(len(content), last + _AROUND)
    width = len(str(end))
    out = [f"{shown}:{first}"]
    for number in range(begin, end + 1):
        line = _printable(content[number - 1])
        out.append(f" {number:>{width}} | {line}".rstrip())
        if number == first:
            at, length = _marked(line, message)
            out.append(f" {'':{width}} | {' ' * at}{'^' * length}")
    return "\n".join(out)


def _printable(line: str) -> str:
    line = line.rstrip("\r").expandtabs(4)
    return "".join(char if char.isprintable() else "\ufffd" for char in line[:_WIDTH])


def _marked(line: str, message: str) -> tuple[int, int]:
    """(column, length) of the word that the message is about, or of all there is."""
    for word in _named(message):
        at = line.lower().find(word.lower())
        if at >= 0:
            return at, len(word)
    content = line.strip()
    return len(line) - len(line.lstrip()), max(1, len(content))


def _named(message: str) -> Iterable[str]:
    """What the message quotes, the longest first: `unknown flag: --foo`, `invalid network mode "foo"`."""
    told = message.partition("parse error on line ")[2].partition(": ")[2] or message
    told = told.partition(" (did you mean")[0]
    words = told.split('"')[1::2] + told.split("'")[1::2]
    for start in ("unknown instruction: ", "unknown flag: ", "flag specified: ", "value on flag: ", "value for flag "):
        if start in told:
            words.append(told.partition(start)[2].partition(",")[0])
    keyword = told.partition(" ")[0]
    if keyword.isupper():
        words.append(keyword)
    return sorted(filter(None, words), key=len, reverse=True)
