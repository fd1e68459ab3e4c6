"""sampan context import."""

from __future__ import annotations

import sys

from sampan.cli.contextfile import imported
from sampan.cli.contextstore import ContextStore
from sampan.cli.flags import Command, Parsed, quote
from sampan.cli.http import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.main import Context

SPEC = Command("CONTEXT FILE|-", "Import a context from a tar or zip file", min_args=2, max_args=2, complete="files")


def run(ctx: Context, args: Parsed) -> int:
    """Make a context of an exported one."""
    name, path = args.args
    store = ContextStore(ctx.options)
    store.check_new(name)
    if path == "-":
        imported(store, name, sys.stdin.buffer)
    else:
        try:
            file = open(path, "rb")  # noqa: SIM115
        except OSError as error:
            raise CliError(f"open {path}: {(error.strerror or '').lower()}") from None
        with file:
            imported(store, name, file)
    ctx.print(name)
    ctx.error(f"Successfully imported context {quote(name)}")
    return 0
