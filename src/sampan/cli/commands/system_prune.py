"""sampan system prune."""

from __future__ import annotations

from sampan.cli.flags import Command, Flag, Parsed
from sampan.cli.http import CliError
from sampan.units import natural_key

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.main import Context

SPEC = Command(
    "[OPTIONS]",
    "Remove unused data",
    max_args=0,
    flags=(
        Flag("all", "a", "bool", False, "Remove all unused images not just dangling ones"),
        Flag("filter", "", "filter", None, 'Provide filter values (e.g. "label=<key>=<value>")'),
        Flag("force", "f", "bool", False, "Do not prompt for confirmation"),
        Flag("volumes", "", "bool", False, "Prune anonymous volumes"),
    ),
)


def run(ctx: Context, args: Parsed) -> int:
    """Remove what nothing uses, after asking: containers first, for they use the rest."""
    from sampan.cli.filters import encode, prune_filters
    from sampan.cli.prompt import confirm, deleted, list_removed, total

    every, volumes = args.bool("all"), args.bool("volumes")
    given: dict[str, list[str]] = {key: list(values) for key, values in (args.get("filter") or {}).items()}
    if volumes and "until" in given:
        raise CliError('ERROR: The "until" filter is not supported with "--volumes"')
    filters = prune_filters(given, ctx.config)
    if not args.bool("force") and not confirm(question(filters, all=every, volumes=volumes)):
        return 0
    images = {**filters, "dangling": [*filters.get("dangling", ()), "false" if every else "true"]}
    steps: list[tuple[str, str, str, dict[str, Any]]] = [
        ("containers", "Deleted Containers", "ContainersDeleted", {"filters": encode(filters)}),
        ("networks", "Deleted Networks", "NetworksDeleted", {"filters": encode(filters)}),
        *([("volumes", "Deleted Volumes", "VolumesDeleted", {"filters": encode(filters)})] if volumes else []),
        ("images", "Deleted Images", "ImagesDeleted", {"filters": encode(images)}),
        ("build", "Deleted build cache objects", "CachesDeleted", {"all": True if every else None, "filters": encode(filters) or ""}),
    ]
    reclaimed = 0
    for kind, title, key, query in steps:
        answer = ctx.client.request("POST", f"/{kind}/prune", query).json()
        reclaimed += answer.get("SpaceReclaimed") or 0
        list_removed(title, [deleted(one) for one in answer.get(key) or ()])
    total(reclaimed)
    return 0


def question(filters: dict[str, list[str]], *, all: bool, volumes: bool) -> str:
    """What will be removed, as docker's prompt says it."""
    what = [
        "all stopped containers",
        "all networks not used by at least one container",
        *(["all anonymous volumes not used by at least one container"] if volumes else []),
        "all images without at least one container associated to them" if all else "all dangling images",
        "all build cache" if all else "unused build cache",
    ]
    lines = ["WARNING! This will remove:", *(f"  - {item}" for item in what)]
    shown = sorted((f"{key}={value}" for key in ("label", "label!", "until") for value in filters.get(key, ())), key=natural_key)
    if shown:
        lines += ["", "  Items to be pruned will be filtered with:", *(f"  - {item}" for item in shown)]
    return "\n".join([*lines, ""])
