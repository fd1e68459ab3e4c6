"""sampan diff."""

from __future__ import annotations

from sampan.cli.flags import Command, Parsed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.main import Context

SPEC = Command(
    "CONTAINER",
    "Inspect changes to files or directories on a container's filesystem",
    min_args=1,
    max_args=1,
    complete="containers:all",
    aliases=("container diff", "diff"),
)
_LETTERS = {0: "C", 1: "A", 2: "D"}


def run(ctx: Context, args: Parsed) -> int:
    """Print a line for each changed, added or deleted path."""
    found = ctx.client.request("GET", f"/containers/{ctx.path(args.args[0])}/changes").json()
    lines = [f"{_LETTERS.get(change['Kind'], '')} {change['Path']}" for change in found or ()]
    if lines:
        ctx.print("\n".join(lines))
    return 0
