"""sampan restart."""

from __future__ import annotations

from sampan.cli.commands import stop
from sampan.cli.flags import Command, Parsed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.main import Context

SPEC = Command(
    "[OPTIONS] CONTAINER [CONTAINER...]",
    "Restart one or more containers",
    min_args=1,
    complete="containers:all",
    aliases=("container restart", "restart"),
    flags=stop.FLAGS,
)


def run(ctx: Context, args: Parsed) -> int:
    """Restart every container named."""
    wanted = stop.query(args)
    return ctx.each(args.args, lambda name: ctx.client.request("POST", f"/containers/{ctx.path(name)}/restart", wanted).read())
