"""Variables and quotes of a Dockerfile's words, as docker expands them (BuildKit's shell.Lex; not quite what any shell does). Pure.

Time and memory are bounded: what is put in for variables may come to EXPANSION_MAX characters in a word, or with a Budget in all words of
an instruction, and `${…}` may be in one another DEPTH_MAX deep.
"""

import re
from collections.abc import Mapping
from typing import Final

from sampan.build import globs
from sampan.build.words import SPACE
from sampan.errors import InvalidArgument
from sampan.quoting import go_quote

EXPANSION_MAX: Final = 1 << 20
WORK_MAX: Final = 16 << 20
"""Characters that patterns (`${v%x*}`) may look at."""
DEPTH_MAX: Final = 100

_END: Final = ""
"""No more characters; U+FFFD in messages, as Go prints its EOF."""
_SPECIAL_PARAMETERS: Final = "@*#?-$!0"
_MODIFIERS: Final = "+-?#%"


class Budget:
    """What several words may come to together. Counts; raises what `expand` makes InvalidArgument of."""

    def __init__(self) -> None:
        self._grown = 0
        self._work = 0

    def grow(self, value: str) -> str:
        """The value, which is put in."""
        self._grown += len(value)
        if self._grown > EXPANSION_MAX:
            raise _SyntaxProblem(f"syntax error: variables come to more than {EXPANSION_MAX} characters")
        return value

    def look_at(self, value: str, pattern: str) -> None:
        """A pattern is about to."""
        self._work += len(value) + len(pattern)
        if self._work > WORK_MAX:
            raise _SyntaxProblem(f"syntax error: patterns look at more than {WORK_MAX} characters")


def expand(word: str, environment: Mapping[str, str], escape: str = "\\", budget: Budget | None = None) -> str:
    """The word with variables replaced and quotes removed; spaces stay. Raises InvalidArgument in docker's words."""
    if not word or _PLAIN[escape, ""].fullmatch(word):
        return word
    return _Lexer(word, environment, escape, budget=budget).run()


def expand_words(word: str, environment: Mapping[str, str], escape: str = "\\", budget: Budget | None = None) -> list[str]:
    """The same, split at spaces that are in no quotes, after variables are replaced. Raises InvalidArgument."""
    lexer = _Lexer(word, environment, escape, budget=budget)
    lexer.words = _Words()
    lexer.run()
    return lexer.words.done()


def expand_text(text: str, environment: Mapping[str, str], budget: Budget | None = None) -> str:
    """The content of a heredoc with variables replaced: quotes mean nothing, `\\` escapes the next character. Raises InvalidArgument."""
    return _Lexer(text, environment, "\\", quotes=False, budget=budget).run()


def heredoc_words(line: str, *, raw: bool = True) -> list[str]:
    """The words of a line among which heredocs are looked for: nothing is replaced, and with `raw` quotes and escapes stay.

    No words when quotes are left open.
    """
    lexer = _Lexer(line, {}, "\\", raw_quotes=raw, raw_escapes=raw, keep_unset=True)
    lexer.words = _Words()
    try:
        lexer.run()
    except InvalidArgument:
        return []
    return lexer.words.done()


class _SyntaxProblem(Exception):
    """What is wrong with the word; `expand` tells which."""


class _Words:
    """Collects the words of a text."""

    def __init__(self) -> None:
        self._words: list[str] = []
        self._open: list[str] = []

    def raw(self, text: str) -> None:
        """Text whose spaces separate nothing."""
        self._open.append(text)

    def split(self, text: str) -> None:
        """Text whose spaces separate words."""
        at = 0
        for gap in _GAPS.finditer(text):
            self._open.append(text[at : gap.start()])
            self._close()
            at = gap.end()
        self._open.append(text[at:])

    def _close(self) -> None:
        if word := "".join(self._open):
            self._words.append(word)
        self._open.clear()

    def done(self) -> list[str]:
        """All words."""
        self._close()
        return self._words


_GAPS: Final = re.compile(f"[{SPACE}]+")
_PLAIN: Final = {
    (escape, stop): re.compile(f"[^$<'\"{re.escape(escape)}{re.escape(stop)}]+") for escape in ("\\", "`") for stop in ("", "}", "/")
}
_IN_QUOTES: Final = {escape: re.compile(f'[^$"{re.escape(escape)}]+') for escape in ("\\", "`")}


class _Lexer:
    """One word on its way."""

    def __init__(
        self,
        text: str,
        environment: Mapping[str, str],
        escape: str,
        *,
        quotes: bool = True,
        raw_quotes: bool = False,
        raw_escapes: bool = False,
        keep_unset: bool = False,
        budget: Budget | None = None,
    ) -> None:
        self._text = text
        self._at = 0
        self._environment = environment
        self._escape = escape
        self._quotes = quotes
        self._raw_quotes = raw_quotes
        self._raw_escapes = raw_escapes
        self._keep_unset = keep_unset
        self._budget = budget or Budget()
        self._depth = 0
        self.words: _Words | None = None
        """Where words go, if somebody wants them; the text of `${x:-text}` has none of its own."""

    def run(self) -> str:
        """The whole word expanded."""
        try:
            return self._until("", raw_escapes=self._raw_escapes)
        except _SyntaxProblem as problem:
            raise InvalidArgument(f"failed to process {go_quote(self._text)}: {problem}") from None

    def _peek(self) -> str:
        return self._text[self._at] if self._at < len(self._text) else _END

    def _next(self) -> str:
        char = self._peek()
        self._at += 1 if char else 0
        return char

    def _until(self, stop: str, *, raw_escapes: bool) -> str:
        """Everything up to the character `stop`, which is taken too; to the end for an empty one."""
        before, self._raw_escapes = self._raw_escapes, raw_escapes
        words = self.words if not stop else None
        plain = _PLAIN[self._escape, stop]
        out: list[str] = []
        try:
            while True:
                if run := plain.match(self._text, self._at):
                    self._at = run.end()
                    out.append(run[0])
                    if words:
                        words.split(run[0])
                    continue
                char = self._next()
                if char == stop:
                    return "".join(out)  # the end of the text, if that is what it goes on to
                if char == _END:
                    raise _SyntaxProblem(f"unexpected end of statement while looking for matching {stop}")
                if char == "$":
                    piece = self._dollar()
                elif char in "'\"":
                    piece = self._quoted(char) if self._quotes else char
                elif char == "<":
                    piece = self._possible_heredoc()
                else:  # the escape token
                    piece = (char if raw_escapes else "") + self._next()
                out.append(piece)
                if words:
                    if char == "$":
                        words.split(piece)
                    else:
                        words.raw(piece)
        finally:
            self._raw_escapes = before

    def _possible_heredoc(self) -> str:
        """`<<` keeps the spaces after it: `<< EOT` is one word."""
        if self._peek() != "<":
            return "<"
        start = self._at
        self._at += 1
        while self._peek() in ("\t", "\r", " "):
            self._at += 1
        return "<" + self._text[start : self._at]

    def _quoted(self, quote: str) -> str:
        """After the opening quote, to the closing one."""
        content = self._single() if quote == "'" else self._double()
        return quote + content + quote if self._raw_quotes else content

    def _single(self) -> str:
        end = self._text.find("'", self._at)
        if end < 0:
            self._at = len(self._text)
            raise _SyntaxProblem("unexpected end of statement while looking for matching single-quote")
        content = self._text[self._at : end]
        self._at = end + 1
        return content

    def _double(self) -> str:
        out: list[str] = []
        plain = _IN_QUOTES[self._escape]
        while True:
            if run := plain.match(self._text, self._at):
                self._at = run.end()
                out.append(run[0])
                continue
            char = self._next()
            if char == '"':
                return "".join(out)
            if char == _END:
                raise _SyntaxProblem("unexpected end of statement while looking for matching double-quote")
            if char == "$":
                out.append(self._dollar())
                continue
            # an escape token: it means something before these only
            if self._raw_escapes:
                out.append(char)
            following = self._peek()
            if following == _END:
                continue
            out.append(self._next() if following in ('"', "$", self._escape) else char)

    def _dollar(self) -> str:
        """After the `$`."""
        if self._peek() != "{":
            name = self._name()
            if not name:
                return "$"
            return self._value(name, unset=f"${name}")
        self._at += 1
        if self._peek() == _END:
            raise _SyntaxProblem("syntax error: missing '}'")
        if self._peek() in "{}:":
            raise _SyntaxProblem("syntax error: bad substitution")
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise _SyntaxProblem(f"syntax error: more than {DEPTH_MAX} substitutions within one another")
        try:
            return self._braces(self._name())
        finally:
            self._depth -= 1

    def _name(self) -> str:
        start = self._at
        first = self._peek()
        if first.isdecimal():
            while self._peek().isdecimal():
                self._at += 1
        elif first and first in _SPECIAL_PARAMETERS:
            self._at += 1
        else:
            while (char := self._peek()) == "_" or char.isalpha() or char.isdecimal():
                self._at += 1
        return self._text[start : self._at]

    def _value(self, name: str, unset: str) -> str:
        value = self._environment.get(name)
        if value is None:
            return unset if self._keep_unset else ""
        return self._budget.grow(value)

    def _braces(self, name: str) -> str:
        """`${name` has been read."""
        char = self._next()
        if char == "}":
            return self._value(name, unset=f"${{{name}}}")
        if char == "/":
            return self._replaced(name)
        shown = char or "\ufffd"
        colon = char == ":"
        if colon:
            char = self._next()
            shown += char or "\ufffd"
        elif char == _END or char not in _MODIFIERS:
            raise _SyntaxProblem(f"unsupported modifier ({shown}) in substitution")
        pattern = char in ("#", "%")
        if colon and pattern:
            raise _SyntaxProblem(f"unsupported modifier ({shown}) in substitution")
        word = self._operand("}", raw_escapes=pattern)
        value = self._environment.get(name)
        if value is None and self._keep_unset:
            return f"${{{name}{shown}{word}}}"
        if char == "-":
            return word if value is None or (colon and not value) else self._budget.grow(value)
        if char == "+":
            return "" if value is None or (colon and not value) else word
        if char == "?":
            if value is None:
                raise _SyntaxProblem(f"{name}: {word or 'is not allowed to be unset'}")
            if colon and not value:
                raise _SyntaxProblem(f"{name}: {word or 'is not allowed to be empty'}")
            return self._budget.grow(value)
        if pattern:
            return self._trimmed(value or "", char, word)
        raise _SyntaxProblem(f"unsupported modifier ({shown}) in substitution")

    def _operand(self, stop: str, *, raw_escapes: bool, missing: str = "syntax error: missing '}'") -> str:
        """What follows a modifier, expanded, up to `stop`."""
        try:
            return self._until(stop, raw_escapes=raw_escapes)
        except _SyntaxProblem:
            if self._peek() == _END:
                raise _SyntaxProblem(missing) from None
            raise

    def _trimmed(self, value: str, char: str, word: str) -> str:
        """`#` and `%`; twice: as much as possible."""
        longest = word.startswith(char)
        text = word[1:] if longest else word
        self._budget.look_at(value, text)
        try:
            pattern = globs.compiled(text)
        except globs.BadPattern as bad:
            raise _SyntaxProblem(f"invalid pattern ({text}) in substitution: {bad}") from None
        trim = globs.without_prefix if char == "#" else globs.without_suffix
        return self._budget.grow(trim(value, pattern, longest=longest))

    def _replaced(self, name: str) -> str:
        """`${name/pattern/replacement}`; with two slashes all of them."""
        every = self._peek() == "/"
        self._at += every
        pattern_text = self._operand("/", raw_escapes=True, missing="syntax error: missing '/' in ${}")
        replacement = self._operand("}", raw_escapes=True)
        value = self._environment.get(name)
        if value is None and self._keep_unset:
            return f"${{{name}/{pattern_text}/{replacement}}}"
        value = value or ""
        self._budget.look_at(value, pattern_text)
        try:
            pattern = globs.compiled(pattern_text)
        except globs.BadPattern as bad:
            raise _SyntaxProblem(f"invalid pattern ({pattern_text}) in substitution: {bad}") from None
        if len(replacement) * (len(value) + 1 if every else 1) > EXPANSION_MAX:
            raise _SyntaxProblem(f"syntax error: variables come to more than {EXPANSION_MAX} characters")
        return self._budget.grow(globs.replaced(value, pattern, replacement, every=every))
