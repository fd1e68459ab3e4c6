"""sampan volume inspect."""

from __future__ import annotations

from sampan.cli.flags import Command, Flag, Parsed
from sampan.cli.inspecting import FORMAT_HELP, getter, inspect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.main import Context

SPEC = Command(
    "[OPTIONS] VOLUME [VOLUME...]",
    "Display detailed information on one or more volumes",
    min_args=1,
    complete="volumes",
    flags=(Flag("format", "f", "string", "", FORMAT_HELP),),
)


def run(ctx: Context, args: Parsed) -> int:
    """Print what the daemon knows of the volumes named."""
    return inspect(args.args, args.str("format"), getter(ctx, "volume.Volume", "/volumes/{}"))
