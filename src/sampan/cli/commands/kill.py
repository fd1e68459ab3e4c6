"""sampan kill."""

from __future__ import annotations

from sampan.cli.flags import Command, Flag, Parsed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.main import Context

SPEC = Command(
    "[OPTIONS] CONTAINER [CONTAINER...]",
    "Kill one or more running containers",
    min_args=1,
    complete="containers:running",
    aliases=("container kill", "kill"),
    flags=(Flag("signal", "s", "string", "", "Signal to send to the container", complete="signals"),),
)


def run(ctx: Context, args: Parsed) -> int:
    """Send a signal (KILL unless said otherwise) to every container named."""
    query = {"signal": args.str("signal") or None}
    return ctx.each_at_once(args.args, lambda name: ctx.client.begin("POST", f"/containers/{ctx.path(name)}/kill", query))
