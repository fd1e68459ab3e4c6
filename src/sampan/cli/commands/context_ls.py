"""sampan context ls."""

from __future__ import annotations

import os
import sys

from sampan.cli.commands.ps import FORMAT_HELP
from sampan.cli.connect import current_context
from sampan.cli.contextstore import DOCKER, ContextStore, description_of
from sampan.cli.flags import Command, Flag, Parsed
from sampan.cli.format.formatter import render
from sampan.cli.format.named import HEADER, NamedContext
from sampan.cli.http import CliError
from sampan.units import natural_key

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.contextstore import Document
    from sampan.cli.main import Context

SPEC = Command(
    "[OPTIONS]",
    "List contexts",
    max_args=0,
    aliases=("context ls", "context list"),
    flags=(
        Flag("format", "", "string", "", FORMAT_HELP),
        Flag("quiet", "q", "bool", False, "Only show context names"),
    ),
)
_TABLE = "table {{.Name}}{{if .Current}} *{{end}}\t{{.Description}}\t{{.DockerEndpoint}}\t{{.Error}}"


def run(ctx: Context, args: Parsed) -> int:
    """List the contexts, the current one marked, even if there is none of that name."""
    store = ContextStore(ctx.options)
    current = current_context(ctx.options)
    rows = [_row(document, current) for document in store.all()]
    if all(row.name != current for row in rows):
        rows.append(NamedContext(current, current=True, error=_missing(store, current)))
    rows.sort(key=lambda row: natural_key(row.name))
    source = "{{.Name}}" if args.bool("quiet") else args.str("format") or "table"
    sys.stdout.write(render(_TABLE if source == "table" else source, rows, NamedContext, HEADER))
    if os.environ.get("DOCKER_HOST"):
        ctx.error(
            "Warning: DOCKER_HOST environment variable overrides the active context. "
            "To use a context, either set the global --context flag, or unset DOCKER_HOST environment variable."
        )
    return 0


def _row(document: Document, current: str) -> NamedContext:
    name, endpoint = document["Name"], document["Endpoints"].get(DOCKER)
    if not isinstance(endpoint, dict):
        return NamedContext(name, current=name == current, error="cannot find docker endpoint in context")
    return NamedContext(name, current=name == current, description=description_of(document), host=endpoint.get("Host", ""))


def _missing(store: ContextStore, name: str) -> str:
    try:
        store.get(name)
    except CliError as error:
        return error.message
    return ""
