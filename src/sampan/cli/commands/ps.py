"""sampan ps."""

from __future__ import annotations

import sys

from sampan.cli.flags import Command, Flag, Parsed
from sampan.cli.format.containers import HEADER, Container, layout
from sampan.cli.format.formatter import FORMAT_HELP, render

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.main import Context

SPEC = Command(
    "[OPTIONS]",
    "List containers",
    max_args=0,
    aliases=("container ls", "container list", "container ps", "ps"),
    flags=(
        Flag("all", "a", "bool", False, "Show all containers (default shows just running)"),
        Flag("filter", "f", "filter", None, "Filter output based on conditions provided"),
        Flag("format", "", "string", "", FORMAT_HELP),
        Flag("last", "n", "int", -1, "Show n last created containers (includes all states)"),
        Flag("latest", "l", "bool", False, "Show the latest created container (includes all states)"),
        Flag("no-trunc", "", "bool", False, "Don't truncate output"),
        Flag("quiet", "q", "bool", False, "Only display container IDs"),
        Flag("size", "s", "bool", False, "Display total file sizes"),
    ),
)


def _uses_size(text: str) -> bool:
    """Whether a template asks for .Size. Tries it, as docker does: a template that fails is refused before the daemon is asked."""
    if text in ("table", "json", "raw") or ("{{" not in text and "}}" not in text):
        return False
    from sampan.cli.format.execute import Template, TemplateError
    from sampan.cli.http import CliError

    probe = Container({}, trunc=False)
    try:
        template = Template(text)
    except TemplateError as error:
        raise CliError(f"failed to parse template: {error}") from None
    try:
        template.execute(probe)
    except TemplateError as error:
        raise CliError(f"failed to execute template: {error}") from None
    return "Size" in probe.used


def run(ctx: Context, args: Parsed) -> int:
    """List containers."""
    source, quiet, size = args.str("format"), args.bool("quiet"), args.bool("size")
    if not source:
        source = str(ctx.config.get("psFormat") or "")
    elif quiet:
        ctx.error("WARNING: Ignoring custom format, because both --format and --quiet are set.")
    if source and _uses_size(source) and not quiet and not args.changed("size"):
        size = True
    limit = 1 if args.bool("latest") and args.int("last") == -1 else args.int("last")
    query: dict[str, object] = {
        "all": True if args.bool("all") else None,
        "limit": limit if limit > 0 else None,
        "size": True if size else None,
    }
    if args.get("filter"):
        from sampan.cli.filters import encode

        query["filters"] = encode(args.get("filter"))
    summaries = ctx.client.request("GET", "/containers/json", query).json() or []
    rows = [Container(summary, trunc=not args.bool("no-trunc")) for summary in summaries]
    sys.stdout.write(render(layout(source, quiet=quiet, size=size), rows, Container, HEADER))
    return 0
