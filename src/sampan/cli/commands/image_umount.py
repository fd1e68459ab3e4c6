"""sampan image umount: takes off what `image mount` has mounted."""

from __future__ import annotations

from sampan.cli.flags import Command, Parsed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.main import Context

SPEC = Command(
    "DIR [DIR...]",
    "Take an image off a directory of the host",
    min_args=1,
    complete="files",
)


def run(ctx: Context, args: Parsed) -> int:
    """Have the daemon unmount each directory, and print it."""
    import os

    return ctx.each(args.args, lambda name: ctx.client.request("POST", "/images/umount", {"target": os.path.abspath(name)}).read())
