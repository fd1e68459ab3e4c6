"""sampan pause."""

from __future__ import annotations

from sampan.cli.flags import Command, Parsed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.main import Context

SPEC = Command(
    "CONTAINER [CONTAINER...]",
    "Pause all processes within one or more containers",
    min_args=1,
    complete="containers:running",
    aliases=("container pause", "pause"),
)


def run(ctx: Context, args: Parsed) -> int:
    """Pause every container named."""
    return ctx.each_at_once(args.args, lambda name: ctx.client.begin("POST", f"/containers/{ctx.path(name)}/pause"))
