"""sampan plugin inspect."""

from __future__ import annotations

from sampan.cli.flags import Command, Flag, Parsed
from sampan.cli.inspecting import FORMAT_HELP, getter, inspect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.main import Context

SPEC = Command(
    "[OPTIONS] PLUGIN [PLUGIN...]",
    "Display detailed information on one or more plugins",
    min_args=1,
    flags=(Flag("format", "f", "string", "", FORMAT_HELP),),
)


def run(ctx: Context, args: Parsed) -> int:
    """Print what the daemon knows of the managed plugins named."""
    return inspect(args.args, args.str("format"), getter(ctx, "interface {}", "/plugins/{}/json"))
