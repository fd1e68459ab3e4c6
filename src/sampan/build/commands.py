"""What a RUN, CMD or ENTRYPOINT starts: the shell put before its text, and heredocs where BuildKit puts them. Pure."""

from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from sampan.build.instructions import CommandLine
from sampan.build.lex import parse_heredoc

DEFAULT_SHELL: Final = ("/bin/sh", "-c")
SCRIPTS: Final = "/dev/pipes"
"""Where a script that names its own interpreter is to be seen while it runs, and only then."""


class Script(Struct, frozen=True):
    """A file that has to be there, mode 0755, while the command runs."""

    path: str
    content: str


class Command(Struct, frozen=True, omit_defaults=True):
    """A command as it is executed."""

    words: tuple[str, ...]
    script: Script | None = None


def command_of(line: CommandLine, shell: Sequence[str] = ()) -> Command:
    """The command, with the image's `shell` (none: `/bin/sh -c`) before the shell form.

    A lone heredoc is the text of the shell, or, when it begins with `#!`, a script that is executed; any other is left to the shell.
    """
    if not line.shell:
        return Command(line.words)
    prefix = tuple(shell) or DEFAULT_SHELL
    if not line.heredocs:
        return Command(prefix + line.words)
    text = "".join(line.words)
    first = line.heredocs[0]
    if parse_heredoc(text) is None:
        return Command((*prefix, text + "".join(f"\n{heredoc.content}{heredoc.name}" for heredoc in line.heredocs)))
    content = first.stripped()
    if content.startswith("#!"):
        path = f"{SCRIPTS}/{first.name}"
        return Command((*prefix, path), Script(path, content))
    return Command((*prefix, content))
