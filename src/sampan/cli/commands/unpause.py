"""sampan unpause."""

from __future__ import annotations

from sampan.cli.flags import Command, Parsed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.main import Context

SPEC = Command(
    "CONTAINER [CONTAINER...]",
    "Unpause all processes within one or more containers",
    min_args=1,
    complete="containers:paused",
    aliases=("container unpause", "unpause"),
)


def run(ctx: Context, args: Parsed) -> int:
    """Unpause every container named."""
    return ctx.each_at_once(args.args, lambda name: ctx.client.begin("POST", f"/containers/{ctx.path(name)}/unpause"))
