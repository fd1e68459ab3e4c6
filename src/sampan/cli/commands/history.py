"""sampan history."""

from __future__ import annotations

import sys

from sampan.cli.flags import Command, Flag, Parsed
from sampan.cli.format.formatter import FORMAT_HELP, render
from sampan.cli.format.images import HISTORY_HEADER, History

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.main import Context

SPEC = Command(
    "[OPTIONS] IMAGE",
    "Show the history of an image",
    min_args=1,
    max_args=1,
    aliases=("image history", "history"),
    complete="images",
    flags=(
        Flag("format", "", "string", "", FORMAT_HELP),
        Flag("human", "H", "bool", True, "Print sizes and dates in human readable format"),
        Flag("no-trunc", "", "bool", False, "Don't truncate output"),
        Flag(
            "platform",
            "",
            "string",
            "",
            'Show history for the given platform. Formatted as "os[/arch[/variant]]" (e.g., "linux/amd64")',
            api="1.48",
        ),
        Flag("quiet", "q", "bool", False, "Only show image IDs"),
    ),
)


def run(ctx: Context, args: Parsed) -> int:
    """Show an image's history."""
    query = None
    if args.str("platform"):
        from sampan.cli.platforms import as_json

        query = {"platform": as_json(args.str("platform"), "invalid platform: ")}
    items = ctx.client.request("GET", f"/images/{ctx.path(args.args[0])}/history", query).json() or []
    source, human = args.str("format") or "table", args.bool("human")
    if source == "table":
        table = "table {{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}"
        source = "{{.ID}}" if args.bool("quiet") else table if human else table.replace("Since", "At")
    rows = [History(item, trunc=not args.bool("no-trunc"), human=human) for item in items]
    sys.stdout.write(render(source, rows, History, HISTORY_HEADER))
    return 0
