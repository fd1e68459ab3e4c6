"""sampan rename."""

from __future__ import annotations

from sampan.cli.flags import Command, Parsed
from sampan.cli.http import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.main import Context

SPEC = Command(
    "CONTAINER NEW_NAME",
    "Rename a container",
    min_args=2,
    max_args=2,
    complete="containers:all",
    aliases=("container rename", "rename"),
)


def run(ctx: Context, args: Parsed) -> int:
    """Give a container another name."""
    old, new = (word.strip() for word in args.args)
    if not old or not new:
        raise CliError("Error: Neither old nor new names may be empty")
    try:
        ctx.client.request("POST", f"/containers/{ctx.path(old)}/rename", {"name": new}).read()
    except CliError as error:
        ctx.error(error.message)
        raise CliError(f"Error: failed to rename container named {old}") from None
    return 0
