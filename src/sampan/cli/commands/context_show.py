"""sampan context show."""

from __future__ import annotations

from sampan.cli.connect import current_context
from sampan.cli.flags import Command, Parsed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.main import Context

SPEC = Command("", "Print the name of the current context", max_args=0)


def run(ctx: Context, args: Parsed) -> int:
    """Print the name."""
    ctx.print(current_context(ctx.options))
    return 0
