"""sampan image mount: Sampan's own, shows an image's files on the host."""

from __future__ import annotations

from sampan.cli.flags import Command, Parsed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.main import Context

SPEC = Command(
    "IMAGE DIR",
    "Show an image's files read-only at a directory of the host",
    min_args=2,
    max_args=2,
    complete="images",
)


def run(ctx: Context, args: Parsed) -> int:
    """Have the daemon mount the image."""
    import os

    image, directory = args.args
    ctx.client.request("POST", f"/images/{ctx.path(image)}/mount", {"target": os.path.abspath(directory)}).read()
    return 0
