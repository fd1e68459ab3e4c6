"""sampan search."""

from __future__ import annotations

import sys

from sampan.cli.creating import registry_auth
from sampan.cli.filters import encode
from sampan.cli.flags import Command, Flag, Parsed
from sampan.cli.format.formatter import render
from sampan.cli.format.search import HEADER, Found

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.main import Context

TABLE = "table {{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}"
SPEC = Command(
    "[OPTIONS] TERM",
    "Search Docker Hub for images",
    min_args=1,
    max_args=1,
    complete="none",
    flags=(
        Flag("filter", "f", "filter", None, "Filter output based on conditions provided"),
        Flag("format", "", "string", "", "Pretty-print search using a Go template"),
        Flag("limit", "", "int", 0, "Max number of search results"),
        Flag("no-trunc", "", "bool", False, "Don't truncate output"),
    ),
)


def run(ctx: Context, args: Parsed) -> int:
    """Show what an index finds, in its order."""
    term = args.args[0]
    first = term.partition("/")[0]
    domain = first if "/" in term and ("." in first or ":" in first or first == "localhost") else "docker.io"
    query: dict[str, object] = {"term": term, "limit": args.int("limit") or None, "filters": encode(args.get("filter"))}
    headers = {"X-Registry-Auth": registry_auth(ctx, domain)}
    found = ctx.client.request("GET", "/images/search", query, headers=headers).json() or []
    source = args.str("format") or "table"
    rows = [Found(item, trunc=not args.bool("no-trunc"), terminal=source == "table") for item in found]
    sys.stdout.write(render(TABLE if source == "table" else source, rows, Found, HEADER))
    return 0
