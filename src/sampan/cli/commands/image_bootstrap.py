"""sampan image bootstrap: Sampan's own, makes a base image where there is no registry."""

from __future__ import annotations

import sys

from sampan.cli.flags import Command, Flag, Parsed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.main import Context

SPEC = Command(
    "[OPTIONS] IMAGE",
    "Make a base image from distribution packages: busybox, debian:RELEASE[-slim], ubuntu:RELEASE",
    min_args=1,
    max_args=1,
    complete="words:busybox,debian:bookworm,debian:bookworm-slim",
    flags=(Flag("include", "", "list", (), "Install further packages (debian and ubuntu)"),),
)


def run(ctx: Context, args: Parsed) -> int:
    """Have the daemon make the image; prints its progress."""
    from sampan.cli.progress import display

    query: dict[str, object] = {"fromSrc": "bootstrap", "repo": args.args[0], "include": args.list("include") or None}
    response = ctx.client.request("POST", "/images/create", query)
    display(response.lines(), sys.stdout)
    return 0
