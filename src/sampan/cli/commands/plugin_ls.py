"""sampan plugin ls."""

from __future__ import annotations

import sys

from sampan.cli.commands.ps import FORMAT_HELP
from sampan.cli.filters import encode
from sampan.cli.flags import Command, Flag, Parsed
from sampan.cli.format.formatter import render
from sampan.cli.format.plugins import HEADER, Plugin
from sampan.units import natural_key

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.main import Context

SPEC = Command(
    "[OPTIONS]",
    "List plugins",
    max_args=0,
    aliases=("plugin ls", "plugin list"),
    flags=(
        Flag("filter", "f", "filter", None, 'Provide filter values (e.g. "enabled=true")'),
        Flag("format", "", "string", "", FORMAT_HELP),
        Flag("no-trunc", "", "bool", False, "Don't truncate output"),
        Flag("quiet", "q", "bool", False, "Only display plugin IDs"),
    ),
)


def run(ctx: Context, args: Parsed) -> int:
    """List the daemon's managed plugins."""
    quiet = args.bool("quiet")
    plugins = ctx.client.request("GET", "/plugins", {"filters": encode(args.get("filter"))}).json() or []
    source = args.str("format") or ("" if quiet else str(ctx.config.get("pluginsFormat") or "")) or "table"
    if source == "table":
        source = "{{.ID}}" if quiet else "table {{.ID}}\t{{.Name}}\t{{.Description}}\t{{.Enabled}}"
    elif source == "raw":
        rest = "" if quiet else "\nname: {{.Name}}\ndescription: {{.Description}}\nenabled: {{.Enabled}}\n"
        source = "plugin_id: {{.ID}}" + rest
    plugins.sort(key=lambda plugin: natural_key(plugin.get("Name") or ""))
    rows = [Plugin(plugin, trunc=not args.bool("no-trunc")) for plugin in plugins]
    sys.stdout.write(render(source, rows, Plugin, HEADER))
    return 0
