"""Statements taken apart into keyword, flags and arguments, by the rules of each instruction; what they mean is interpret.py's. Pure."""

from collections.abc import Callable, Mapping
from typing import Final, Literal, TypeAlias

from msgspec import Struct

from sampan.build.errors import DockerfileError
from sampan.build.lex import Statement
from sampan.build.words import SPACE, json_array, split_first, split_flags, split_keyword, split_whitespace, split_words
from sampan.errors import InvalidArgument
from sampan.quoting import go_quote

Form: TypeAlias = Literal["words", "json", "legacy"]


class Parts(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One instruction, its arguments with quotes and variables still in them."""

    keyword: str
    """As written."""
    flags: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    """ENV and LABEL: name, value, name, value …; HEALTHCHECK: type, then the command's; ONBUILD: the trigger's keyword, and the rest."""
    form: Form = "words"
    """json: the arguments (HEALTHCHECK: but the type) were a JSON array. legacy: `ENV name value`."""
    statement: Statement


_Split: TypeAlias = tuple[list[str], Form]


def split(statement: Statement, escape: str) -> Parts:
    """The parts of a statement; of an unknown instruction the keyword alone. Raises DockerfileError in docker's words."""
    keyword, rest = split_keyword(statement.text)
    flags, arguments = split_flags(rest, escape)
    splitter = _SPLITTERS.get(keyword.upper())
    try:
        words, form = splitter(arguments.strip(SPACE), escape) if splitter else ([], "words")
    except InvalidArgument as error:
        raise DockerfileError(error.message, statement.lines) from None
    return Parts(keyword=keyword, flags=flags, arguments=tuple(words), form=form, statement=statement)


def _whole(rest: str, escape: str) -> _Split:
    return [rest] if rest else [], "words"


def _whitespace(rest: str, escape: str) -> _Split:
    return split_whitespace(rest), "words"


def _shell_words(rest: str, escape: str) -> _Split:
    return split_words(rest, escape), "words"


def _json_or_whole(rest: str, escape: str) -> _Split:
    array = json_array(rest)
    return (array, "json") if array is not None else _whole(rest, escape)


def _json_or_whitespace(rest: str, escape: str) -> _Split:
    array = json_array(rest)
    return (array, "json") if array is not None else _whitespace(rest, escape)


def _pairs(keyword: str) -> Callable[[str, str], _Split]:
    def pairs(rest: str, escape: str) -> _Split:
        words = split_words(rest, escape)
        if words and "=" not in words[0]:
            both = split_first(rest)
            if len(both) < 2:
                raise InvalidArgument(f"{keyword} must have two arguments")
            return both, "legacy"
        out: list[str] = []
        for word in words:
            name, equals, value = word.partition("=")
            if not equals:
                raise InvalidArgument(f"Syntax error - can't find = in {go_quote(word)}. Must be of the form: name=value")
            out += name, value
        return out, "words"

    return pairs


def _health_check(rest: str, escape: str) -> _Split:
    kind = rest.split(None, 1)[0] if rest else ""
    if not kind:
        return [], "words"
    words, form = _json_or_whole(rest[len(kind) :].lstrip(SPACE), escape)
    return [kind, *words], form


def _trigger(rest: str, escape: str) -> _Split:
    """The trigger is checked as far as this module goes: its text is what is kept."""
    if not rest:
        return [], "words"
    keyword, following = split_keyword(rest)
    arguments = split_flags(following, escape)[1].strip(SPACE)
    splitter = _SPLITTERS.get(keyword.upper())
    if splitter is None or splitter is _trigger:
        return [keyword, arguments], "words"
    return [keyword, *splitter(arguments, escape)[0]], "words"


_SPLITTERS: Final[Mapping[str, Callable[[str, str], _Split]]] = {
    "ADD": _json_or_whitespace,
    "ARG": _shell_words,
    "CMD": _json_or_whole,
    "COPY": _json_or_whitespace,
    "ENTRYPOINT": _json_or_whole,
    "ENV": _pairs("ENV"),
    "EXPOSE": _whitespace,
    "FROM": _whitespace,
    "HEALTHCHECK": _health_check,
    "LABEL": _pairs("LABEL"),
    "MAINTAINER": _whole,
    "ONBUILD": _trigger,
    "RUN": _json_or_whole,
    "SHELL": _json_or_whole,
    "STOPSIGNAL": _whole,
    "USER": _whole,
    "VOLUME": _json_or_whitespace,
    "WORKDIR": _whole,
}

KEYWORDS: Final = tuple(_SPLITTERS)
"""Every instruction there is."""
