"""sampan image bootstrap: Sampan's own, makes a base image where there is no registry."""

from __future__ import annotations

import sys

from sampan.cli.flags import Command, Parsed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.main import Context

SPEC = Command(
    "IMAGE",
    "Make a base image from this machine's distribution packages (busybox)",
    min_args=1,
    max_args=1,
    complete="words:busybox",
)


def run(ctx: Context, args: Parsed) -> int:
    """Have the daemon make the image; prints its progress."""
    from sampan.cli.progress import display

    response = ctx.client.request("POST", "/images/create", {"fromSrc": "bootstrap", "repo": args.args[0]})
    display(response.lines(), sys.stdout)
    return 0
