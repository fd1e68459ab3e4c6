"""sampan network ls."""

from __future__ import annotations

import sys

from sampan.cli.filters import encode
from sampan.cli.flags import Command, Flag, Parsed
from sampan.cli.format.formatter import FORMAT_HELP, asked_for, render
from sampan.cli.format.objects import NETWORK_HEADER, Network
from sampan.units import natural_key

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.main import Context

SPEC = Command(
    "[OPTIONS]",
    "List networks",
    max_args=0,
    aliases=("network ls", "network list"),
    flags=(
        Flag("filter", "f", "filter", None, 'Provide filter values (e.g. "driver=bridge")'),
        Flag("format", "", "string", "", FORMAT_HELP),
        Flag("no-trunc", "", "bool", False, "Do not truncate the output"),
        Flag("quiet", "q", "bool", False, "Only display network IDs"),
    ),
)


def run(ctx: Context, args: Parsed) -> int:
    """List networks."""
    quiet = args.bool("quiet")
    networks = ctx.client.request("GET", "/networks", {"filters": encode(args.get("filter"))}).json() or []
    source = asked_for(ctx, args, "networksFormat")
    if source == "table":
        source = "{{.ID}}" if quiet else "table {{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}"
    elif source == "raw":
        source = "network_id: {{.ID}}" + ("" if quiet else "\nname: {{.Name}}\ndriver: {{.Driver}}\nscope: {{.Scope}}\n")
    networks.sort(key=lambda network: natural_key(network.get("Name") or ""))
    rows = [Network(network, trunc=not args.bool("no-trunc")) for network in networks]
    sys.stdout.write(render(source, rows, Network, NETWORK_HEADER))
    return 0
