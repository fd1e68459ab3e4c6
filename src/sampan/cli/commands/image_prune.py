"""sampan image prune."""

from __future__ import annotations

from sampan.cli.flags import Command, Flag, Parsed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.main import Context

SPEC = Command(
    "[OPTIONS]",
    "Remove unused images",
    max_args=0,
    flags=(
        Flag("all", "a", "bool", False, "Remove all unused images, not just dangling ones"),
        Flag("filter", "", "filter", None, 'Provide filter values (e.g. "until=<timestamp>")'),
        Flag("force", "f", "bool", False, "Do not prompt for confirmation"),
    ),
)


def run(ctx: Context, args: Parsed) -> int:
    """Remove images that nothing uses, after asking."""
    from sampan.cli.filters import encode, prune_filters
    from sampan.cli.prompt import confirm, deleted, report

    every = args.bool("all")
    filters = {key: list(values) for key, values in (args.get("filter") or {}).items()}
    filters.setdefault("dangling", []).append("false" if every else "true")
    filters = prune_filters(filters, ctx.config)
    what = "images without at least one container associated to them" if every else "dangling images"
    if not args.bool("force") and not confirm(f"WARNING! This will remove all {what}."):
        return 0
    answer = ctx.client.request("POST", "/images/prune", {"filters": encode(filters)}).json()
    report("Deleted Images", [deleted(one) for one in answer.get("ImagesDeleted") or ()], answer.get("SpaceReclaimed") or 0)
    return 0
