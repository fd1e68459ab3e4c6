"""sampan container prune."""

from __future__ import annotations

from sampan.cli.flags import Command, Flag, Parsed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.main import Context

SPEC = Command(
    "[OPTIONS]",
    "Remove all stopped containers",
    max_args=0,
    flags=(
        Flag("filter", "", "filter", None, 'Provide filter values (e.g. "until=<timestamp>")'),
        Flag("force", "f", "bool", False, "Do not prompt for confirmation"),
    ),
)


def run(ctx: Context, args: Parsed) -> int:
    """Remove all stopped containers, after asking."""
    from sampan.cli.filters import encode, prune_filters
    from sampan.cli.prompt import confirm, report

    filters = prune_filters(args.get("filter") or {}, ctx.config)
    if not args.bool("force") and not confirm("WARNING! This will remove all stopped containers."):
        return 0
    answer = ctx.client.request("POST", "/containers/prune", {"filters": encode(filters)}).json()
    report("Deleted Containers", answer.get("ContainersDeleted") or [], answer.get("SpaceReclaimed") or 0)
    return 0
