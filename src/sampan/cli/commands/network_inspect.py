"""sampan network inspect."""

from __future__ import annotations

from sampan.cli.flags import Command, Flag, Parsed
from sampan.cli.inspecting import FORMAT_HELP, getter, inspect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.main import Context

SPEC = Command(
    "[OPTIONS] NETWORK [NETWORK...]",
    "Display detailed information on one or more networks",
    min_args=1,
    complete="networks",
    flags=(Flag("format", "f", "string", "", FORMAT_HELP), Flag("verbose", "v", "bool", False, "Verbose output for diagnostics")),
)


def run(ctx: Context, args: Parsed) -> int:
    """Print what the daemon knows of the networks named."""
    query = {"verbose": "true"} if args.bool("verbose") else None
    return inspect(args.args, args.str("format"), getter(ctx, "network.Inspect", "/networks/{}", query))
