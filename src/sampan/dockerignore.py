"""`.dockerignore`, and the patterns of COPY's sources: Go's filepath.Match, and `**` as moby/patternmatcher understands it. Pure.

The command line leaves files out by it, the engine everything else; so it is a leaf. Paths are relative, separated by `/`.
"""

from __future__ import annotations

import posixpath
import re

_LINE_MAX = 65535
_PLAIN = re.compile(r"[^*?\[\\]*\Z")
_REPEATS_MAX = 2
"""Stars that a regular expression is trusted with: its time grows by the path's length with each. Beyond it is an automaton of ours."""


FILE_NAME = ".dockerignore"


class BadPattern(ValueError):
    """Go's `syntax error in pattern`, or docker's sentence."""

    def __init__(self, message: str = "syntax error in pattern") -> None:
        super().__init__(message)


def read(data: bytes) -> list[str]:
    """The patterns of a file: cleaned, without comments and leading slashes (ignorefile.ReadAll). Raises BadPattern."""
    patterns = []
    if max(map(len, data.split(b"\n"))) > _LINE_MAX:
        raise BadPattern("bufio.Scanner: token too long")
    for line in data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape").split("\n"):
        if line.startswith("#"):
            continue
        pattern = line.strip()
        if not pattern:
            continue
        inverted = pattern.startswith("!")
        if inverted:
            pattern = pattern[1:].strip()
        if pattern:
            pattern = _clean(pattern)
            if len(pattern) > 1 and pattern.startswith("/"):
                pattern = pattern[1:]
        patterns.append("!" + pattern if inverted else pattern)
    return patterns


def withheld(data: bytes, dockerfile: str) -> list[str]:
    """Which of the Dockerfile and the file itself COPY is not to see, by what the file says of them. Of a bad pattern the client tells."""
    try:
        matcher = Matcher(read(data))
    except BadPattern:
        return []
    return [name for name in (FILE_NAME, dockerfile) if matcher.excludes(name)]


def _clean(path: str) -> str:
    """Go's filepath.Clean."""
    cleaned = posixpath.normpath(path)
    return cleaned[1:] if cleaned.startswith("//") else cleaned


class Matcher:
    """Tells what a list of patterns excludes; the last that matches decides."""

    def __init__(self, patterns: list[str] | tuple[str, ...]) -> None:
        """Raises BadPattern."""
        self._patterns: list[tuple[Glob, bool]] = []
        for text in patterns:
            text = text.strip()
            if not text:
                continue
            text = _clean(text)
            exclusion = text.startswith("!")
            if text == "!":
                raise BadPattern('illegal exclusion pattern: "!"')
            self._patterns.append((Glob(text[1:] if exclusion else text), exclusion))
        self._roots = [glob.text for glob, exclusion in self._patterns if exclusion]

    def excludes(self, path: str) -> bool:
        """The path, or a directory it is in, is excluded, and not brought back by a later `!`."""
        return self.step(path, None)[0]

    def step(self, path: str, parent: tuple[bool, ...] | None) -> tuple[bool, tuple[bool, ...]]:
        """(excluded, what each pattern said), for a walk: `parent` is the second of the directory's; None: nobody asked about it."""
        verdicts: list[bool] = []
        excluded = False
        for number, (glob, exclusion) in enumerate(self._patterns):
            match = parent is not None and parent[number]
            if not match:
                if exclusion != excluded:
                    verdicts.append(False)
                    continue
                match = glob.matches(path) or (parent is None and any(map(glob.matches, _parents(path))))
            verdicts.append(match)
            if match:
                excluded = not exclusion
        return excluded, tuple(verdicts)

    def may_include_below(self, directory: str) -> bool:
        """Some `!` may bring back what is in an excluded directory, by its text: `!*/x` is none, docker does not look for it either."""
        prefix = directory + "/"
        return any((root + "/").startswith(prefix) for root in self._roots)


def _parents(path: str) -> list[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[: end + 1]) for end in range(len(parts))]


def match(pattern: str, name: str) -> bool:
    """Go's filepath.Match: no star crosses a slash, two are as one. Raises BadPattern."""
    return Glob(pattern, deep=False).matches(name)


def matches(pattern: str, name: str) -> bool:
    """match(), of which a pattern that is none is not the name of anything."""
    try:
        return match(pattern, name)
    except BadPattern:
        return False


# what a pattern is made of; a token that is a text is that character
_ANY = 0
_STAR = 1
_DEEP = 2
_REST = 3


class _Class:
    """`[a-z]`, `[^x]`: any one character, a slash too."""

    def __init__(self, ranges: list[tuple[str, str]], negated: bool) -> None:
        self.ranges = ranges
        self.negated = negated

    def has(self, char: str) -> bool:
        """The character is one of them."""
        return any(low <= char <= high for low, high in self.ranges) != self.negated

    def expression(self) -> str:
        """As a regular expression."""
        if all(low > high for low, high in self.ranges):
            return r"[\s\S]" if self.negated else r"[^\s\S]"
        ranges = "".join(f"{re.escape(low)}-{re.escape(high)}" for low, high in self.ranges if low <= high)
        return f"[{'^' if self.negated else ''}{ranges}]"


_Token = str | int | _Class


class Glob:
    """One pattern. `deep`: `**` goes through directories, and at the end takes everything."""

    def __init__(self, text: str, *, deep: bool = True) -> None:
        """Raises BadPattern."""
        self.text = text
        self._expression: re.Pattern[str] | None = None
        self._automaton: _Automaton | None = None
        self._exact = bool(_PLAIN.match(text))
        self._prefix = self._suffix = ""
        if self._exact:
            return
        if deep and text.endswith("**") and _PLAIN.match(text[:-2]):
            self._prefix = text[:-2]
            if self._prefix:
                return
        tokens = _tokens(text, deep=deep)
        if deep and text.startswith("**") and text != "**" and _PLAIN.match(text[2:]):
            self._suffix = text[2:]
            return
        if sum(token in (_STAR, _DEEP, _REST) for token in tokens if isinstance(token, int)) <= _REPEATS_MAX:
            self._expression = re.compile("".join(map(_expression, tokens)) + r"\Z", re.DOTALL)
        else:
            self._automaton = _Automaton(tokens)

    def matches(self, path: str) -> bool:
        """The whole path matches."""
        if self._exact:
            return path == self.text
        if self._prefix:
            return path.startswith(self._prefix)
        if self._suffix:
            # a slash after ** is a directory's, and there need be none
            return path.endswith(self._suffix) or (self._suffix[0] == "/" and path == self._suffix[1:])
        if self._expression:
            return self._expression.match(path) is not None
        return self._automaton is not None and self._automaton.matches(path)


def _tokens(text: str, *, deep: bool) -> list[_Token]:
    tokens: list[_Token] = []
    at = 0
    while at < len(text):
        char = text[at]
        at += 1
        if char == "*":
            if deep and text.startswith("*", at):
                at += 1
                at += text.startswith("/", at)
                tokens.append(_REST if at == len(text) else _DEEP)
            elif not tokens or tokens[-1] != _STAR:
                tokens.append(_STAR)
        elif char == "?":
            tokens.append(_ANY)
        elif char == "\\":
            if at == len(text):
                raise BadPattern
            tokens.append(text[at])
            at += 1
        elif char == "[":
            token, at = _class(text, at)
            tokens.append(token)
        else:
            tokens.append(char)
    return tokens


def _class(text: str, at: int) -> tuple[_Class, int]:
    negated = text.startswith("^", at)
    at += negated
    ranges: list[tuple[str, str]] = []
    while not (ranges and text.startswith("]", at)):
        low, at = _class_character(text, at)
        high = low
        if text.startswith("-", at):
            high, at = _class_character(text, at + 1)
        ranges.append((low, high))
    return _Class(ranges, negated), at + 1


def _class_character(text: str, at: int) -> tuple[str, int]:
    char = text[at : at + 1]
    if char in ("", "-", "]"):
        raise BadPattern
    if char == "\\":
        at += 1
        char = text[at : at + 1]
    if at + 1 >= len(text):
        raise BadPattern
    return char, at + 1


def _expression(token: _Token) -> str:
    if isinstance(token, str):
        return re.escape(token)
    if isinstance(token, _Class):
        return token.expression()
    return {_ANY: "[^/]", _STAR: "[^/]*", _DEEP: "(?:.*/)?", _REST: ".*"}[token]


class _Automaton:
    """All positions in the pattern at once, one bit each: as many steps as the path has characters, whatever the pattern.

    `**/` has two: before it, from where it may be left out, and within it, from where a slash leads out.
    """

    def __init__(self, tokens: list[_Token]) -> None:
        self._literal: dict[str, int] = {}
        self._classes: list[tuple[int, _Class]] = []
        self._any = 0  # one character but a slash leads on
        self._stay_in_name = 0
        self._stay = 0
        self._slash = 0  # a slash leads on
        self._skip_one = 0
        self._skip_two = 0
        bit = 1
        for token in tokens:
            if isinstance(token, str):
                self._literal[token] = self._literal.get(token, 0) | bit
            elif isinstance(token, _Class):
                self._classes.append((bit, token))
            elif token == _ANY:
                self._any |= bit
            elif token == _STAR:
                self._stay_in_name |= bit
                self._skip_one |= bit
            elif token == _REST:
                self._stay |= bit
                self._skip_one |= bit
            else:
                self._skip_one |= bit
                self._skip_two |= bit
                bit <<= 1
                self._stay |= bit
                self._slash |= bit
            bit <<= 1
        self._end = bit

    def _without_reading(self, states: int) -> int:
        while True:
            more = states | (states & self._skip_one) << 1 | (states & self._skip_two) << 2
            if more == states:
                return states
            states = more

    def matches(self, path: str) -> bool:
        """The whole path matches."""
        states = self._without_reading(1)
        for char in path:
            onwards = self._literal.get(char, 0)
            stay = self._stay
            if char == "/":
                onwards |= self._slash
            else:
                onwards |= self._any
                stay |= self._stay_in_name
            for bit, characters in self._classes:
                if states & bit and characters.has(char):
                    onwards |= bit
            states = self._without_reading((states & onwards) << 1 | (states & stay))
            if not states:
                return False
        return bool(states & self._end)
