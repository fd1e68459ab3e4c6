"""A Dockerfile's bytes to a Dockerfile of typed instructions; docker's words for everything that is wrong. Pure."""

from collections.abc import Callable, Mapping
from typing import TypeVar

from msgspec.structs import replace

from sampan.build.errors import DockerfileError
from sampan.build.instructions import Arg, Dockerfile, Label, Lines, Pair, Stage, StageInstruction
from sampan.build.interpret import from_, interpret
from sampan.build.lex import Lexer
from sampan.build.split import Parts, split
from sampan.errors import InvalidArgument

T = TypeVar("T")


def parse(data: bytes, name: str = "Dockerfile") -> Dockerfile:
    """The file's content, called `name` in messages. Raises DockerfileError."""
    if not data:
        raise DockerfileError(f"the Dockerfile ({name}) cannot be empty")
    try:
        lexer = Lexer(data)
        parts = [split(statement, lexer.escape) for statement in lexer]
    except DockerfileError as error:
        raise DockerfileError(f"failed to parse {name}: {error.message}", error.lines) from None
    args: list[Arg] = []
    stages: list[Stage] = []
    contents: list[list[StageInstruction]] = []
    for part in parts:
        if part.keyword.upper() == "FROM":
            stages.append(replace(_located(part, from_), index=len(stages)))
            contents.append([])
            continue
        instruction = _located(part, interpret)
        if stages:
            contents[-1].append(instruction)
        elif isinstance(instruction, Arg):
            args.append(instruction)
        else:
            raise DockerfileError("no build stage in current context", part.statement.lines)
    if not stages:  # nothing but ARGs: dockerd 28 panics
        raise DockerfileError("no build stage in current context", parts[-1].statement.lines)
    return Dockerfile(
        directives=lexer.directives,
        args=tuple(args),
        stages=tuple(replace(stage, instructions=tuple(content)) for stage, content in zip(stages, contents, strict=True)),
        warnings=tuple(lexer.warnings),
    )


def parse_trigger(text: str) -> StageInstruction:
    """An ONBUILD text of a base image. Raises DockerfileError. Its escape token is `\\`, whatever the child's file says."""
    parts = [split(statement, "\\") for statement in Lexer(text.encode("utf-8", "surrogateescape"))]
    if len(parts) != 1:
        raise DockerfileError("onbuild trigger should be a single expression")
    if parts[0].keyword.upper() == "FROM":
        raise DockerfileError("*instructions.Stage is not a command type")  # Go's name of a type, as docker says it
    try:
        return interpret(parts[0])
    except InvalidArgument as error:
        raise DockerfileError(error.message, parts[0].statement.lines) from None


def label_options(labels: Mapping[str, str]) -> tuple[Label, ...]:
    """What `--label` adds at the end of the target stage, each a step of its own; nothing in them is expanded."""
    return tuple(
        Label(text=f"LABEL {name}={value}", lines=Lines(0, 0), pairs=(Pair(name, value),), expand=False)
        for name, value in sorted(labels.items())
    )


def _located(part: Parts, work: Callable[[Parts], T]) -> T:
    try:
        return work(part)
    except InvalidArgument as error:
        lines = part.statement.lines
        raise DockerfileError(f"dockerfile parse error on line {lines.first}: {error.message}", lines) from None
