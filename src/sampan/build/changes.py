"""`--change` of import and commit: Dockerfile instructions applied to an image's config (moby builder/dockerfile BuildFromConfig). Pure."""

from collections.abc import Sequence
from typing import Final

import msgspec

from sampan.build import metadata
from sampan.build.instructions import Cmd, WorkDir
from sampan.build.interpret import interpret
from sampan.build.lex import Lexer
from sampan.build.resolve import resolved
from sampan.build.split import split
from sampan.errors import InvalidArgument
from sampan.spec.oci_image import ContainerConfig

_ALLOWED: Final = frozenset(
    ("CMD", "ENTRYPOINT", "HEALTHCHECK", "ENV", "EXPOSE", "LABEL", "ONBUILD", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR")
)


def apply_changes(config: ContainerConfig, changes: Sequence[str]) -> ContainerConfig:
    """The config after all changes, which together are as one Dockerfile. Raises InvalidArgument in docker's words.

    A new entry point takes the former command away, unless the changes have one of their own before it.
    """
    if not changes:
        return config
    lexer = Lexer("\n".join(changes).encode("utf-8", "surrogateescape"))
    parts = [split(statement, lexer.escape) for statement in lexer]
    instructions = []
    for part in parts:
        if part.keyword.upper() not in _ALLOWED:
            raise InvalidArgument(f"{part.keyword} is not a valid change command")
        instructions.append(interpret(part))
    had_cmd = False
    for instruction in instructions:
        environment = dict(entry.partition("=")[::2] for entry in config.env or ())
        done = resolved(instruction, environment, lexer.escape)
        if isinstance(done, WorkDir):
            config = msgspec.structs.replace(config, working_dir=metadata.working_dir(config, done.path))
        else:
            config = metadata.apply(done, config, had_cmd).config
        had_cmd = had_cmd or (isinstance(done, Cmd) and bool(done.command.words))
    return config
