"""Instructions with their variables replaced, as docker replaces them for each. Pure.

RUN, CMD, ENTRYPOINT, HEALTHCHECK, SHELL and ONBUILD come back as they are: variables in them are the shell's, or the child's.
The options of RUN --mount are expanded by `mounts.py`, FROM by `graph.py`.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from msgspec.structs import replace

from sampan.build.expand import Budget, expand, expand_text, expand_words
from sampan.build.instructions import (
    Add,
    Arg,
    ArgDeclaration,
    Copy,
    Env,
    Expose,
    Instruction,
    Label,
    Pair,
    StopSignal,
    Transfer,
    User,
    Volume,
    WorkDir,
)
from sampan.errors import InvalidArgument

I = TypeVar("I", bound=Instruction)  # noqa: E741
T = TypeVar("T", bound=Transfer)


def resolved(instruction: I, environment: Mapping[str, str], escape: str = "\\") -> I:
    """The instruction with the environment before it put in: all values of one ENV see that one. Raises InvalidArgument.

    All its words have one budget.
    """
    budget = Budget()

    def single(word: str) -> str:
        return expand(word, environment, escape, budget)

    match instruction:
        case Env() | Label(expand=True):
            return replace(instruction, pairs=tuple(Pair(single(pair.name), single(pair.value)) for pair in instruction.pairs))
        case Add():
            return replace(_transfer(instruction, single, environment, budget), checksum=single(instruction.checksum))
        case Copy():
            return _transfer(instruction, single, environment, budget)
        case Expose():
            return replace(
                instruction, ports=tuple(port for word in instruction.ports for port in expand_words(word, environment, escape, budget))
            )
        case User():
            return replace(instruction, user=single(instruction.user))
        case Volume():
            return replace(instruction, paths=_volumes(map(single, instruction.paths)))
        case WorkDir():
            return replace(instruction, path=single(instruction.path))
        case StopSignal():
            return replace(instruction, signal=single(instruction.signal))
        case Arg():
            return replace(instruction, declarations=tuple(_declared(declaration, single) for declaration in instruction.declarations))
    return instruction


def _volumes(paths: Iterable[str]) -> tuple[str, ...]:
    volumes = tuple(paths)
    if "" in volumes:
        raise InvalidArgument("VOLUME specified can not be an empty string")
    return volumes


def _transfer(instruction: T, single: Callable[[str], str], environment: Mapping[str, str], budget: Budget) -> T:
    return replace(
        instruction,
        chown=single(instruction.chown),
        chmod=single(instruction.chmod),
        sources=tuple(map(single, instruction.sources)),
        destination=single(instruction.destination),
        files=tuple(
            replace(file, content=expand_text(file.content, environment, budget), expand=False) if file.expand else file
            for file in instruction.files
        ),
    )


def _declared(declaration: ArgDeclaration, single: Callable[[str], str]) -> ArgDeclaration:
    return ArgDeclaration(single(declaration.name), None if declaration.default is None else single(declaration.default))
