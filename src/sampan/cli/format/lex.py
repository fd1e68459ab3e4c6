"""The tokens of a Go text/template, as Go 1.24 cuts them (its package text/template/parse)."""

from __future__ import annotations

from sampan.cli.format.quoting import byte_len
from sampan.quoting import go_quote

LEFT, RIGHT = "{{", "}}"
_SPACE = " \t\r\n"
KEYWORDS = (".", "block", "break", "continue", "define", "else", "end", "if", "range", "nil", "template", "with")
_TERMINATORS = " \t\r\n.,|:)("


class TemplateError(Exception):
    """A template that cannot be parsed or executed; the message is Go's."""


class Token:
    """One token. kind: text left right space pipe declare assign char constant number string rawstring field variable identifier bool
    dot keyword lparen rparen error eof. pos is an index into the template's text."""

    __slots__ = ("kind", "line", "pos", "value")

    def __init__(self, kind: str, pos: int, value: str, line: int) -> None:
        self.kind = kind
        self.pos = pos
        self.value = value
        self.line = line

    def __str__(self) -> str:
        if self.kind == "eof":
            return "EOF"
        if self.kind == "error":
            return self.value
        if self.kind in ("dot", "keyword"):
            return f"<{self.value}>"
        if byte_len(self.value) > 10:
            return go_quote(self.value[:10]) + "..."
        return go_quote(self.value)


def _rune(char: str) -> str:
    if not char:
        return "U+FFFFFFFFFFFFFFFF"
    return f"U+{ord(char):04X}" + (f" '{char}'" if char.isprintable() else "")


def _is_word(char: str) -> bool:
    return char != "" and (char == "_" or char.isalpha() or char.isdecimal())


class Lexer:
    """Cuts a template into tokens, one at a time: the parser stops at the first error, so what comes after it does not matter."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.pos = 0
        self.start = 0
        self.line = 1
        self.inside = False
        self.depth = 0
        self.ended = False

    def next(self) -> Token:
        """The next token; `eof` or `error` again and again at the end."""
        if self.ended:
            return Token("eof", len(self.text), "EOF", self.line)
        token = self._action() if self.inside else self._text()
        if token.kind in ("eof", "error"):
            self.ended = True
        return token

    def _emit(self, kind: str) -> Token:
        value = self.text[self.start : self.pos]
        token = Token(kind, self.start, value, self.line)
        self.line += value.count("\n")
        self.start = self.pos
        return token

    def _ignore(self) -> None:
        self.line += self.text.count("\n", self.start, self.pos)
        self.start = self.pos

    def _error(self, message: str) -> Token:
        return Token("error", self.start, message, self.line)

    def _peek(self) -> str:
        return self.text[self.pos : self.pos + 1]

    def _text(self) -> Token:
        while True:
            at = self.text.find(LEFT, self.pos)
            if at < 0:
                self.pos = len(self.text)
                return self._emit("text") if self.pos > self.start else Token("eof", self.pos, "EOF", self.line)
            trim = self._left_trim(at + 2)
            if at > self.pos:
                self.pos = len(self.text[self.start : at].rstrip(_SPACE)) + self.start if trim else at
                token = self._emit("text") if self.pos > self.start else None
                self.pos = at
                self._ignore()
                if token:
                    return token
            after = at + 2 + (2 if trim else 0)
            if self.text.startswith("/*", after):
                self.pos = after
                self._ignore()
                failed = self._comment()
                if failed:
                    return failed
                continue
            self.pos = at + 2
            token = self._emit("left")
            self.pos = after
            self._ignore()
            self.inside = True
            self.depth = 0
            return token

    def _left_trim(self, at: int) -> bool:
        return self.text[at : at + 1] == "-" and self.text[at + 1 : at + 2] in tuple(_SPACE)

    def _right(self) -> tuple[bool, bool]:
        """Whether the closing delimiter is here, and whether it trims."""
        if self._peek() in tuple(_SPACE) and self.text.startswith("-" + RIGHT, self.pos + 1):
            return True, True
        return self.text.startswith(RIGHT, self.pos), False

    def _comment(self) -> Token | None:
        self.pos += 2
        end = self.text.find("*/", self.pos)
        if end < 0:
            return self._error("unclosed comment")
        self.pos = end + 2
        closes, trim = self._right()
        if not closes:
            return self._error("comment ends before closing delimiter")
        self.pos += 4 if trim else 2
        if trim:
            self._skip_space()
        self._ignore()
        return None

    def _skip_space(self) -> None:
        while self._peek() in tuple(_SPACE):
            self.pos += 1

    def _close(self, trim: bool) -> Token:
        if trim:
            self.pos += 2
            self._ignore()
        self.pos += 2
        token = self._emit("right")
        if trim:
            self._skip_space()
            self._ignore()
        self.inside = False
        return token

    def _action(self) -> Token:
        closes, trim = self._right()
        if closes:
            return self._close(trim) if self.depth == 0 else self._error("unclosed left paren")
        char = self._peek()
        if not char:
            return self._error("unclosed action")
        if char in _SPACE:
            return self._space()
        self.pos += 1
        simple = {"=": "assign", "|": "pipe", "(": "lparen"}.get(char)
        if simple:
            self.depth += char == "("
            return self._emit(simple)
        if char == ":":
            if self._peek() != "=":
                return self._error("expected :=")
            self.pos += 1
            return self._emit("declare")
        if char == ")":
            self.depth -= 1
            return self._emit("rparen") if self.depth >= 0 else self._error("unexpected right paren")
        if char in "\"'`":
            return self._quoted(char)
        if char == "$":
            return self._field("variable")
        following = self._peek()
        if char == "." and following and not "0" <= following <= "9":
            return self._field("field")
        self.pos -= 1
        if char in "+-." or "0" <= char <= "9":
            return self._number()
        if _is_word(char):
            return self._identifier()
        self.pos += 1
        if char < "\x7f" and char.isprintable():
            return self._emit("char")
        return self._error(f"unrecognized character in action: {_rune(char)}")

    def _space(self) -> Token:
        count = 0
        while self._peek() and self._peek() in _SPACE:
            self.pos += 1
            count += 1
        # the blank of a trimming " -}}" belongs to the delimiter
        if self.text.startswith("-" + RIGHT, self.pos):
            self.pos -= 1
            if count == 1:
                return self._action_close()
        return self._emit("space")

    def _action_close(self) -> Token:
        if self.depth:
            return self._error("unclosed left paren")
        return self._close(True)

    def _at_end(self) -> bool:
        char = self._peek()
        return not char or char in _TERMINATORS or self.text.startswith(RIGHT, self.pos)

    def _field(self, kind: str) -> Token:
        if self._at_end():
            return self._emit("dot" if kind == "field" else kind)
        while _is_word(self._peek()):
            self.pos += 1
        if not self._at_end():
            return self._error(f"bad character {_rune(self._peek())}")
        return self._emit(kind)

    def _identifier(self) -> Token:
        while _is_word(self._peek()):
            self.pos += 1
        word = self.text[self.start : self.pos]
        if not self._at_end():
            return self._error(f"bad character {_rune(self._peek())}")
        if word in KEYWORDS:
            return self._emit("keyword")
        return self._emit("bool" if word in ("true", "false") else "identifier")

    def _quoted(self, quote: str) -> Token:
        kind, name = {'"': ("string", "quoted string"), "'": ("constant", "character constant"), "`": ("rawstring", "raw quoted string")}[
            quote
        ]
        while True:
            char = self._peek()
            self.pos += 1
            if char == "\\" and quote != "`":
                char = self._peek()
                self.pos += 1
                if char and char != "\n":
                    continue
            if not char or (char == "\n" and quote != "`"):
                return self._error(f"unterminated {name}")
            if char == quote:
                return self._emit(kind)

    def _run(self, chars: str) -> None:
        while self._peek() and self._peek() in chars:
            self.pos += 1

    def _accept(self, chars: str) -> bool:
        if self._peek() and self._peek() in chars:
            self.pos += 1
            return True
        return False

    def _scan_number(self) -> bool:
        self._accept("+-")
        digits = "0123456789_"
        if self._accept("0"):
            if self._accept("xX"):
                digits = "0123456789abcdefABCDEF_"
            elif self._accept("oO"):
                digits = "01234567_"
            elif self._accept("bB"):
                digits = "01_"
        self._run(digits)
        if self._accept("."):
            self._run(digits)
        if (len(digits) == 11 and self._accept("eE")) or (len(digits) == 23 and self._accept("pP")):
            self._accept("+-")
            self._run("0123456789_")
        self._accept("i")
        if _is_word(self._peek()):
            self.pos += 1
            return False
        return True

    def _number(self) -> Token:
        good = self._scan_number()
        if good and self._peek() and self._peek() in "+-":
            good = self._scan_number() and self.text[self.pos - 1] == "i"
        if not good:
            return self._error(f"bad number syntax: {go_quote(self.text[self.start : self.pos])}")
        return self._emit("number")
