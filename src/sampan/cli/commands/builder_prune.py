"""sampan builder prune."""

from __future__ import annotations

from sampan.cli.flags import Command, Flag, Parsed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.main import Context

SPEC = Command(
    "",
    "Remove build cache",
    max_args=0,
    flags=(
        Flag("all", "a", "bool", False, "Remove all unused build cache, not just dangling ones"),
        Flag("filter", "", "filter", None, 'Provide filter values (e.g. "until=24h")'),
        Flag("force", "f", "bool", False, "Do not prompt for confirmation"),
        Flag("keep-storage", "", "bytes", 0, "Amount of disk space to keep for cache"),
    ),
)


def run(ctx: Context, args: Parsed) -> int:
    """Remove what builds have kept, after asking."""
    from sampan.cli.filters import encode, prune_filters
    from sampan.cli.prompt import confirm_on_one_line, report

    every = args.bool("all")
    what = "all build cache" if every else "all dangling build cache"
    if not args.bool("force") and not confirm_on_one_line(f"WARNING! This will remove {what}. Are you sure you want to continue?"):
        return 0
    filters = prune_filters({key: list(values) for key, values in (args.get("filter") or {}).items()}, ctx.config)
    query = {"all": every or None, "keep-storage": args.int("keep-storage") or None, "filters": encode(filters) if filters else None}
    answer = ctx.client.request("POST", "/build/prune", query).json()
    report("Deleted build cache objects", answer.get("CachesDeleted") or [], answer.get("SpaceReclaimed") or 0)
    return 0
