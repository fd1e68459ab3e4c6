"""sampan rm."""

from __future__ import annotations

from sampan.cli.flags import Command, Flag, Parsed
from sampan.cli.http import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.http import Pending
    from sampan.cli.main import Context

SPEC = Command(
    "[OPTIONS] CONTAINER [CONTAINER...]",
    "Remove one or more containers",
    min_args=1,
    complete="containers:all",
    aliases=("container rm", "container remove", "rm"),
    flags=(
        Flag("force", "f", "bool", False, "Force the removal of a running container (uses SIGKILL)"),
        Flag("link", "l", "bool", False, "Remove the specified link"),
        Flag("volumes", "v", "bool", False, "Remove anonymous volumes associated with the container"),
    ),
)


def run(ctx: Context, args: Parsed) -> int:
    """Remove every container named."""
    force = args.bool("force")
    query = {"v": args.bool("volumes") or None, "link": args.bool("link") or None, "force": force or None}

    def begin(name: str) -> Pending:
        name = name.strip("/")
        if not name:
            raise CliError("container name cannot be empty")
        return ctx.client.begin("DELETE", f"/containers/{ctx.path(name)}", query)

    return ctx.each_at_once(args.args, begin, missing_is_fine=force)
