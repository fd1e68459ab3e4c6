"""A Dockerfile's bytes cut into statements: directives, comments, continuation lines and heredocs dealt with. Pure.

Nothing is known here of what a statement means, but that ADD, COPY and RUN (and ONBUILD with one of them) may have heredocs.
"""

import re
from collections.abc import Iterator
from typing import Final

from msgspec import Struct

from sampan.build.errors import DockerfileError
from sampan.build.expand import heredoc_words
from sampan.build.instructions import DEFAULT_ESCAPE, Directives, EscapeToken, Heredoc, Lines, ParseWarning
from sampan.build.words import SPACE, json_array, split_flags, split_keyword
from sampan.errors import InvalidArgument

LINE_MAX: Final = 65535
"""Bytes of a line without its newline (Go's bufio.MaxScanTokenSize)."""
FILE_MAX: Final = 16 << 20
"""Bytes of a file; dockerd has no limit, BuildKit none that is meant."""
LINES_MAX: Final = 1_000_000

_DIRECTIVE: Final = re.compile(r"([a-zA-Z][a-zA-Z0-9]*)[\t\n\f\r ]*=[\t\n\f\r ]*(.+?)[\t\n\f\r ]*\Z")
_DIRECTIVE_NAMES: Final = ("syntax", "escape", "check")
_HEREDOC: Final = re.compile(r"(\d*)<<(-?)[\t\n\f\r ]*([^<]*)\Z", re.ASCII)
_WITH_HEREDOCS: Final = ("ADD", "COPY", "RUN")


class Statement(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One instruction's text: continuation lines joined, comments left out."""

    text: str
    lines: Lines
    heredocs: tuple[Heredoc, ...] = ()


class Lexer:
    """Reads a file once: iterate over it, then `directives` and `warnings` are complete.

    Raises DockerfileError from the iteration. Who finds a statement wrong stops there, so that the first error of the file is told.
    """

    def __init__(self, data: bytes) -> None:
        if len(data) > FILE_MAX:
            raise DockerfileError(f"the Dockerfile is too large: {len(data)} bytes, {FILE_MAX} at most")
        if data.count(b"\n") > LINES_MAX:
            raise DockerfileError(f"the Dockerfile is too large: more than {LINES_MAX} lines")
        self.warnings: list[ParseWarning] = []
        self._lines = _Lines(data)
        self._directives: dict[str, str] = {}
        self._directives_over = False

    @property
    def escape(self) -> EscapeToken:
        """The escape token, known before the first statement."""
        return "`" if self._directives.get("escape") == "`" else DEFAULT_ESCAPE

    @property
    def directives(self) -> Directives:
        """Those of the file."""
        return Directives(syntax=self._directives.get("syntax", ""), escape=self.escape, check=self._directives.get("check", ""))

    def __iter__(self) -> Iterator[Statement]:
        none = True
        for line in self._lines:
            content = line.lstrip(SPACE)
            if not self._directives_over:
                self._directive(content)
            if not content or content.startswith("#"):
                continue
            yield self._statement(content)
            none = False
        if none:
            raise DockerfileError("file with no instructions")
        if self._lines.too_long:
            number = self._lines.number + 1
            raise DockerfileError(f"dockerfile line greater than max allowed size of {LINE_MAX}", Lines(number, number))

    def _directive(self, line: str) -> None:
        match = _DIRECTIVE.match(line[1:].lstrip(SPACE)) if line.startswith("#") else None
        name = match[1].lower() if match else ""
        if not match or name not in _DIRECTIVE_NAMES:
            self._directives_over = True
            return
        here = Lines(self._lines.number, self._lines.number)
        if name in self._directives:
            raise DockerfileError(f"only one {name} parser directive can be used", here)
        if name == "escape" and match[2] not in ("\\", "`"):
            raise DockerfileError(f"invalid escape token '{match[2]}' does not match ` or \\", here)
        self._directives[name] = match[2]

    def _statement(self, line: str) -> Statement:
        """The statement that begins with this line."""
        first = self._lines.number
        piece, continued = self._continued(line)
        pieces = [piece]
        empty = False
        while continued and (following := self._lines.next()) is not None:
            content = following.lstrip(SPACE)
            if content.startswith("#"):
                continue
            if not content:
                empty = True
                continue
            piece, continued = self._continued(following)
            pieces.append(piece)
        text = "".join(pieces)
        if empty:
            self.warnings.append(ParseWarning(message=f"Empty continuation line found in: {text}", line=self._lines.number))
        heredocs = tuple(self._bodies(text, first))
        return Statement(text=text, lines=Lines(first, self._lines.number), heredocs=heredocs)

    def _continued(self, line: str) -> tuple[str, bool]:
        """(the line without an escape token at its end, whether there was one). Two of them are none."""
        content = line.rstrip(" \t")
        if content.endswith(self.escape) and content[-2:-1] != self.escape:
            return content[:-1], True
        return line, False

    def _bodies(self, text: str, first: int) -> Iterator[Heredoc]:
        if "<<" not in text or not _may_have_heredocs(text, self.escape):
            return
        for word in heredoc_words(text):
            heredoc = parse_heredoc(word)
            if heredoc is not None:
                yield self._body(heredoc, first)

    def _body(self, heredoc: Heredoc, first: int) -> Heredoc:
        content: list[str] = []
        while (line := self._lines.next_whole()) is not None:
            terminator = line.rstrip("\r\n")
            if (terminator.lstrip("\t") if heredoc.strip_tabs else terminator) == heredoc.name:
                return Heredoc(
                    name=heredoc.name,
                    content="".join(content),
                    expand=heredoc.expand,
                    strip_tabs=heredoc.strip_tabs,
                    descriptor=heredoc.descriptor,
                )
            content.append(line)
        raise DockerfileError("unterminated heredoc", Lines(first, self._lines.number))


class _Lines:
    """The lines of a file, and how many have been read. A line that is too long ends the file, as it ends Go's scanner."""

    def __init__(self, data: bytes) -> None:
        # not splitlines(): only a newline ends a line
        self._raw = iter(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"))
        self._held = next(self._raw, b"")
        self._over = False
        self.number = 0
        self.too_long = False

    def next_whole(self) -> str | None:
        """The next line with its newline; None at the end."""
        if self._over:
            return None
        line = self._held
        following = next(self._raw, None)
        if following is None:
            self._over = True
            if not line:
                return None
        else:
            self._held = following
        if len(line) > LINE_MAX:
            self._over = self.too_long = True
            return None
        self.number += 1
        return (line if following is None else line + b"\n").decode("utf-8", "surrogateescape")

    def next(self) -> str | None:
        """The next line without what ends it; None at the end."""
        line = self.next_whole()
        return None if line is None else line.rstrip("\r\n")

    def __iter__(self) -> Iterator[str]:
        while (line := self.next()) is not None:
            yield line


def _may_have_heredocs(text: str, escape: str) -> bool:
    keyword, rest = split_keyword(text)
    arguments = split_flags(rest, escape)[1].strip(SPACE)
    if keyword.upper() == "ONBUILD":
        return _may_have_heredocs(arguments, escape) if split_keyword(arguments)[0].upper() != "ONBUILD" else False
    if keyword.upper() not in _WITH_HEREDOCS:
        return False
    try:
        return json_array(arguments) is None
    except InvalidArgument:
        return False  # whoever takes the statement apart finds the same, and says so


def parse_heredoc(word: str) -> Heredoc | None:
    """A heredoc without content, if the word (quotes still in it) is one: `<<EOT`, `<<-'EOT'`, `3<<EOT`."""
    match = _HEREDOC.match(word)
    if not match or not match[3]:
        return None
    names = heredoc_words(match[3], raw=False)
    if len(names) != 1:
        return None
    # it is quoted if quotes are gone from it
    raw = heredoc_words(match[3])
    expand = len(raw) == 1 and _quotes(raw[0]) == _quotes(names[0])
    return Heredoc(name=names[0], content="", expand=expand, strip_tabs=bool(match[2]), descriptor=int(match[1][:9] or 0))


def _quotes(text: str) -> int:
    return text.count("'") + text.count('"')
