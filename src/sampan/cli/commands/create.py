"""sampan create."""

from __future__ import annotations

from sampan.cli.createflags import CREATE_ONLY_FLAGS
from sampan.cli.flags import Command, Parsed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.main import Context

SPEC = Command(
    "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    "Create a new container",
    min_args=1,
    interspersed=False,
    complete="images",
    aliases=("container create", "create"),
    flags=CREATE_ONLY_FLAGS,
)


def run(ctx: Context, args: Parsed) -> int:
    """Create a container and print its ID."""
    from sampan.cli.creating import create_container, request_body

    body = request_body(ctx, args, "create")
    ctx.print(create_container(ctx, args, body))
    return 0
