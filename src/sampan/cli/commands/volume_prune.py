"""sampan volume prune."""

from __future__ import annotations

from sampan.cli.flags import Command, Flag, Parsed
from sampan.cli.http import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.main import Context

SPEC = Command(
    "[OPTIONS]",
    "Remove unused local volumes",
    max_args=0,
    flags=(
        Flag("all", "a", "bool", False, "Remove all unused volumes, not just anonymous ones", api="1.42"),
        Flag("filter", "", "filter", None, 'Provide filter values (e.g. "label=<label>")'),
        Flag("force", "f", "bool", False, "Do not prompt for confirmation"),
    ),
)


def run(ctx: Context, args: Parsed) -> int:
    """Remove volumes that no container uses, after asking: anonymous ones, with --all named ones too."""
    from sampan.cli.filters import encode, prune_filters
    from sampan.cli.prompt import confirm, report

    filters = prune_filters(args.get("filter") or {}, ctx.config)
    anonymous = not args.bool("all")
    if args.bool("all"):
        if "all" in filters:
            raise CliError("conflicting options: cannot specify both --all and --filter all=1")
        filters["all"] = ["true"]
    # an older daemon knows no difference: named ones go too
    what = "anonymous local volumes" if anonymous and ctx.client.at_least("1.42") else "all local volumes"
    if not args.bool("force") and not confirm(f"WARNING! This will remove {what} not used by at least one container."):
        return 0
    answer = ctx.client.request("POST", "/volumes/prune", {"filters": encode(filters)}).json()
    report("Deleted Volumes", answer.get("VolumesDeleted") or [], answer.get("SpaceReclaimed") or 0)
    return 0
