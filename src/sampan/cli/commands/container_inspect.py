"""sampan container inspect."""

from __future__ import annotations

from sampan.cli.flags import Command, Flag, Parsed
from sampan.cli.inspecting import FORMAT_HELP, getter, inspect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.main import Context

SPEC = Command(
    "[OPTIONS] CONTAINER [CONTAINER...]",
    "Display detailed information on one or more containers",
    min_args=1,
    complete="containers:all",
    flags=(Flag("format", "f", "string", "", FORMAT_HELP), Flag("size", "s", "bool", False, "Display total file sizes")),
)


def run(ctx: Context, args: Parsed) -> int:
    """Print what the daemon knows of the containers named."""
    query = {"size": True} if args.bool("size") else None
    return inspect(args.args, args.str("format"), getter(ctx, "*container.InspectResponse", "/containers/{}/json", query))
