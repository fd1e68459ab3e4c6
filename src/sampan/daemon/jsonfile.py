"""JSON with positions: daemon.json is edited by hand, so every complaint says line and column.

The standard parser forgets where a value stood, and words its errors differently from docker's. This one keeps the offset of
each key and uses the words of Go's encoding/json, which is what people paste into a search engine.
"""

from typing import Final, NoReturn, TypeAlias

Json: TypeAlias = bool | int | float | str | list["Json"] | dict[str, "Json"] | None
Path: TypeAlias = tuple[str, ...]

SPACE: Final = " \t\r\n"
ESCAPES: Final = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
MAX_DEPTH: Final = 200
"""Lists and objects in each other: no configuration has as many, and the parser's own stack has room for them."""


class JsonError(ValueError):
    """Text that is not JSON: Go's message, and the offset of the offending character."""

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message)
        self.offset = offset


def line_and_column(text: str, offset: int) -> str:
    """The place of `offset` in `text` for people: `line 3, column 7`, both counted from 1."""
    before = text[:offset]
    return f"line {before.count(chr(10)) + 1}, column {offset - (before.rfind(chr(10)) + 1) + 1}"


class Parser:
    """One pass over one text. `places` maps the path of each key to the offset where the key begins."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.pos = 0
        self.places: dict[Path, int] = {}

    def document(self) -> Json:
        """The whole text's value. Raises JsonError."""
        value = self.value((), 0)
        self.space()
        if self.pos < len(self.text):
            self.fail("after top-level value")
        return value

    def fail(self, where: str) -> NoReturn:
        if self.pos >= len(self.text):
            raise JsonError("unexpected end of JSON input", self.pos)
        shown = self.text[self.pos]
        quoted = {"'": r"'\''", '"': "'\"'"}.get(shown, repr(shown))
        raise JsonError(f"invalid character {quoted} {where}", self.pos)

    def space(self) -> None:
        while self.pos < len(self.text) and self.text[self.pos] in SPACE:
            self.pos += 1

    def peek(self) -> str:
        self.space()
        return self.text[self.pos] if self.pos < len(self.text) else ""

    def value(self, path: Path, depth: int) -> Json:
        if depth > MAX_DEPTH:
            raise JsonError("exceeded max depth", self.pos)
        match self.peek():
            case "{":
                return self.object(path, depth)
            case "[":
                return self.array(path, depth)
            case '"':
                return self.string()
            case "t":
                return self.literal("true", True)
            case "f":
                return self.literal("false", False)
            case "n":
                return self.literal("null", None)
            case first if first and first in "-0123456789":
                return self.number()
            case _:
                self.fail("looking for beginning of value")

    def object(self, path: Path, depth: int) -> dict[str, Json]:
        found: dict[str, Json] = {}
        self.pos += 1
        if self.peek() == "}":
            self.pos += 1
            return found
        while True:
            if self.peek() != '"':
                self.fail("looking for beginning of object key string")
            place = self.pos
            key = self.string()
            self.places[(*path, key)] = place
            if self.peek() != ":":
                self.fail("after object key")
            self.pos += 1
            found[key] = self.value((*path, key), depth + 1)
            if self.ends_with("}", "after object key:value pair"):
                return found

    def array(self, path: Path, depth: int) -> list[Json]:
        found: list[Json] = []
        self.pos += 1
        if self.peek() == "]":
            self.pos += 1
            return found
        while True:
            self.peek()
            self.places[(*path, str(len(found)))] = self.pos
            found.append(self.value((*path, str(len(found))), depth + 1))
            if self.ends_with("]", "after array element"):
                return found

    def ends_with(self, close: str, where: str) -> bool:
        """Step over a comma (False) or over `close` (True)."""
        mark = self.peek()
        if mark not in (",", close) or not mark:
            self.fail(where)
        self.pos += 1
        return mark == close

    def literal(self, word: str, meaning: bool | None) -> bool | None:
        for n, letter in enumerate(word):
            if self.text[self.pos : self.pos + 1] != letter:
                self.fail(f"in literal {word} (expecting {letter!r})" if n else "looking for beginning of value")
            self.pos += 1
        return meaning

    def number(self) -> int | float:
        begin = self.pos
        if self.text[self.pos] == "-":
            self.pos += 1
            if not self.text[self.pos : self.pos + 1].isdecimal():
                self.fail("in numeric literal")
        if self.text[self.pos] == "0":
            self.pos += 1
        else:
            self.digits("in numeric literal")
        whole = True
        if self.text[self.pos : self.pos + 1] == ".":
            self.pos, whole = self.pos + 1, False
            self.digits("after decimal point in numeric literal")
        if self.text[self.pos : self.pos + 1] in ("e", "E"):
            self.pos, whole = self.pos + 1, False
            if self.text[self.pos : self.pos + 1] in ("+", "-"):
                self.pos += 1
            self.digits("in exponent of numeric literal")
        shown = self.text[begin : self.pos]
        return int(shown) if whole and len(shown) < 400 else float(shown)

    def digits(self, where: str) -> None:
        begin = self.pos
        while self.text[self.pos : self.pos + 1] in tuple("0123456789"):
            self.pos += 1
        if self.pos == begin:
            self.fail(where)

    def string(self) -> str:
        parts: list[str] = []
        self.pos += 1
        while True:
            letter = self.text[self.pos : self.pos + 1]
            if letter == '"':
                self.pos += 1
                return "".join(parts)
            if letter < " ":
                self.fail("in string literal")
            self.pos += 1
            parts.append(self.escape() if letter == "\\" else letter)

    def escape(self) -> str:
        letter = self.text[self.pos : self.pos + 1]
        if letter in ESCAPES:
            self.pos += 1
            return ESCAPES[letter]
        if letter != "u":
            self.fail("in string escape code")
        self.pos += 1
        high = self.hex4()
        if 0xD800 <= high < 0xDC00 and self.text[self.pos : self.pos + 2] == "\\u":
            self.pos += 2
            low = self.hex4()
            if 0xDC00 <= low < 0xE000:
                return chr(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00))
            high = 0xFFFD
        return "\ufffd" if 0xD800 <= high < 0xE000 else chr(high)

    def hex4(self) -> int:
        number = 0
        for _ in range(4):
            letter = self.text[self.pos : self.pos + 1]
            if letter not in tuple("0123456789abcdefABCDEF"):
                self.fail("in \\u hexadecimal character escape")
            number = number * 16 + int(letter, 16)
            self.pos += 1
        return number
