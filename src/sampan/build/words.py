"""How the text after an instruction is taken apart: flags, words, JSON. Quotes and variables stay. Pure.

Every function is linear in its input: one instruction may be as long as the file.
"""

import json
import math
import re
from typing import Final

from sampan.errors import InvalidArgument

SPACE: Final = "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
"""What Go's unicode.IsSpace holds for space; Python's str.strip has four control characters more."""

_GAP: Final = re.compile(r"[\t\v\f\r ]+")


def split_keyword(line: str) -> tuple[str, str]:
    """(keyword as written, the rest)."""
    parts = _GAP.split(line.strip(SPACE), maxsplit=1)
    return parts[0], parts[1] if len(parts) == 2 else ""


def split_whitespace(text: str) -> list[str]:
    """Words between gaps, quotes of no meaning (FROM, EXPOSE, paths of COPY)."""
    return _GAP.split(text) if text else []


def split_first(text: str) -> list[str]:
    """The first word, and the rest if there is one (ENV of old: name, value)."""
    return _GAP.split(text, maxsplit=1)


def _word_pattern(escape: str) -> re.Pattern[str]:
    token = re.escape(escape)
    # an escape token takes the next character with it, but not within single quotes; a quote that is never closed goes on to the end
    return re.compile(
        rf"""(?>{token}[\s\S]|'[^']*+(?:'|\Z)|"(?>{token}[\s\S]|{token}\Z|[^"{token}]++)*+(?:"|\Z)|{token}\Z|[^{SPACE}'"{token}]++)++"""
    )


_WORDS: Final = {escape: _word_pattern(escape) for escape in ("\\", "`")}


def split_words(text: str, escape: str) -> list[str]:
    """Words as a shell sees them, quotes and escape tokens still in them (moby's parseWords)."""
    words = []
    for word in _WORDS[escape].findall(text):
        if word.endswith(escape) and _ends_open(word, escape):
            word = word[:-1]  # an escape token at the very end escapes nothing, and is dropped
            if not word:
                continue
        words.append(word)
    return words


def _ends_open(word: str, escape: str) -> bool:
    """The last character is an escape token that nothing follows, and is no text of single quotes."""
    quote = ""
    at = 0
    while at < len(word):
        char = word[at]
        if char == escape and quote != "'":
            if at + 1 == len(word):
                return True
            at += 1
        elif quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        at += 1
    return False


def split_flags(text: str, escape: str) -> tuple[tuple[str, ...], str]:
    """(the `--name=value` before the arguments without their quotes, what follows them). A `--` alone ends the flags."""
    flags: list[str] = []
    at = 0
    while True:
        while at < len(text) and text[at] in SPACE:
            at += 1
        if not text.startswith("--", at):
            return tuple(flags), text[at:]
        flag, quoted, at = _flag(text, at, escape)
        if flag == "--" and at < len(text):
            return tuple(flags), text[at:]
        if flag != "--" and (flag or quoted):
            flags.append(flag)


def _flag(text: str, at: int, escape: str) -> tuple[str, bool, int]:
    """One flag from `at` on: (text without quotes, whether there were any, where it ends)."""
    out: list[str] = []
    quote = ""
    quoted = False
    while at < len(text):
        char = text[at]
        if char == escape:
            at += 1
            out.append(text[at : at + 1])
        elif quote:
            if char == quote:
                quote = ""
            else:
                out.append(char)
        elif char in SPACE:
            break
        elif char in "'\"":
            quote, quoted = char, True
        else:
            out.append(char)
        at += 1
    return "".join(out), quoted, min(at, len(text))


def _number(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(text)  # Go has no number for it: not JSON
    return value


def _constant(text: str) -> None:
    raise ValueError(text)


_DECODER: Final = json.JSONDecoder(parse_int=_number, parse_float=_number, parse_constant=_constant)


def json_array(text: str) -> list[str] | None:
    """The strings of a JSON array, None for what is none. Raises InvalidArgument when something else than strings is in it."""
    text = text.strip(SPACE)
    if not text.startswith("["):
        return None
    try:
        value = _DECODER.decode(text)
    except (ValueError, RecursionError):
        return None
    if not all(isinstance(item, str) for item in value):
        raise InvalidArgument("when using JSON array syntax, arrays must be comprised of strings only")
    return [_scalars(item) for item in value]


def _scalars(text: str) -> str:
    """Without half surrogate pairs and bytes that are no UTF-8, as encoding/json has it."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
