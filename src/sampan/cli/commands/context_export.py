"""sampan context export."""

from __future__ import annotations

import os
import sys

from sampan.cli.contextfile import exported
from sampan.cli.contextstore import DEFAULT, ContextStore, check_name
from sampan.cli.flags import Command, Parsed, quote
from sampan.cli.http import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.main import Context

SPEC = Command(
    "[OPTIONS] CONTEXT [FILE|-]",
    "Export a context to a tar archive FILE or a tar stream on STDOUT.",
    min_args=1,
    max_args=2,
    complete="contexts",
)


def run(ctx: Context, args: Parsed) -> int:
    """Write a context's tar to a file of its name, another one, or stdout."""
    name = args.args[0]
    if name != DEFAULT:
        check_name(name)
    path = args.args[1] if len(args.args) == 2 else f"{name}.dockercontext"
    if path == "-" and sys.stdout.isatty():
        raise CliError("cowardly refusing to export to a terminal, specify a file path")
    content = exported(ContextStore(ctx.options), name)
    if path == "-":
        sys.stdout.flush()
        sys.stdout.buffer.write(content)
        return 0
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(content)
    except OSError as error:
        raise CliError(f"open {path}: {(error.strerror or '').lower()}") from None
    ctx.error(f"Written file {quote(path)}")
    return 0
