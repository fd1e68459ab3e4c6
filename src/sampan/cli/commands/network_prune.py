"""sampan network prune."""

from __future__ import annotations

from sampan.cli.flags import Command, Flag, Parsed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.main import Context

SPEC = Command(
    "[OPTIONS]",
    "Remove all unused networks",
    max_args=0,
    flags=(
        Flag("filter", "", "filter", None, 'Provide filter values (e.g. "until=<timestamp>")'),
        Flag("force", "f", "bool", False, "Do not prompt for confirmation"),
    ),
)


def run(ctx: Context, args: Parsed) -> int:
    """Remove all networks that no container uses, after asking."""
    from sampan.cli.filters import encode, prune_filters
    from sampan.cli.prompt import confirm, list_removed

    filters = prune_filters(args.get("filter") or {}, ctx.config)
    warning = "WARNING! This will remove all custom networks not used by at least one container."
    if not args.bool("force") and not confirm(warning):
        return 0
    removed = ctx.client.request("POST", "/networks/prune", {"filters": encode(filters)}).json().get("NetworksDeleted") or []
    list_removed("Deleted Networks", removed)
    return 0
