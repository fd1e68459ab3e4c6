"""sampan volume rm."""

from __future__ import annotations

from sampan.cli.flags import Command, Flag, Parsed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.main import Context

SPEC = Command(
    "[OPTIONS] VOLUME [VOLUME...]",
    "Remove one or more volumes",
    long="Remove one or more volumes. You cannot remove a volume that is in use by a container.",
    min_args=1,
    aliases=("volume rm", "volume remove"),
    complete="volumes",
    flags=(Flag("force", "f", "bool", False, "Force the removal of one or more volumes"),),
)


def run(ctx: Context, args: Parsed) -> int:
    """Remove volumes, and print the name of each that is gone."""
    query = {"force": args.bool("force") or None}
    return ctx.each(args.args, lambda name: ctx.client.request("DELETE", f"/volumes/{ctx.path(name)}", query))
