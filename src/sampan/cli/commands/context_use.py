"""sampan context use."""

from __future__ import annotations

import os

from sampan.cli import configfile
from sampan.cli.contextstore import DEFAULT, ContextStore, check_name
from sampan.cli.flags import Command, Parsed, quote
from sampan.cli.http import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.main import Context

SPEC = Command("CONTEXT", "Set the current docker context", complete="contexts")


def run(ctx: Context, args: Parsed) -> int:
    """Make a context the one that is used when nothing else is said."""
    if len(args.args) != 1:
        raise CliError(f"accepts 1 arg(s), received {len(args.args)}")
    name = args.args[0]
    if name != DEFAULT:
        check_name(name)
        ContextStore(ctx.options).get(name)
    set_current(ctx, "" if name == DEFAULT else name)
    ctx.print(name)
    ctx.error(f"Current context is now {quote(name)}")
    if name != DEFAULT and os.environ.get("DOCKER_HOST"):
        ctx.error(
            "Warning: DOCKER_HOST environment variable overrides the active context. "
            f"To use {quote(name)}, either set the global --context flag, or unset DOCKER_HOST environment variable."
        )
    return 0


def set_current(ctx: Context, name: str) -> None:
    """Keep the current context's name in config.json, "" for none. Raises CliError."""
    path = configfile.path_of(ctx.options)
    config = configfile.read(path)
    if (config.pop("currentContext", None) or "") != name:
        configfile.write(path, {**config, **({"currentContext": name} if name else {})})
