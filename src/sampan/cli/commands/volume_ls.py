"""sampan volume ls."""

from __future__ import annotations

import sys

from sampan.cli.filters import encode
from sampan.cli.flags import Command, Flag, Parsed
from sampan.cli.format.formatter import FORMAT_HELP, asked_for, render
from sampan.cli.format.objects import VOLUME_HEADER, Volume
from sampan.units import natural_key

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.main import Context

SPEC = Command(
    "[OPTIONS]",
    "List volumes",
    max_args=0,
    aliases=("volume ls", "volume list"),
    flags=(
        Flag("cluster", "", "bool", False, "Display only cluster volumes, and use cluster volume list formatting"),
        Flag("filter", "f", "filter", None, 'Provide filter values (e.g. "dangling=true")'),
        Flag("format", "", "string", "", FORMAT_HELP),
        Flag("quiet", "q", "bool", False, "Only display volume names"),
    ),
)

_CLUSTER = "table {{.Name}}\t{{.Group}}\t{{.Driver}}\t{{.Availability}}\t{{.Status}}"


def run(ctx: Context, args: Parsed) -> int:
    """List volumes."""
    quiet = args.bool("quiet")
    volumes = ctx.client.request("GET", "/volumes", {"filters": encode(args.get("filter"))}).json().get("Volumes") or []
    if args.bool("cluster"):
        volumes = [volume for volume in volumes if volume.get("ClusterVolume")]
    source = asked_for(ctx, args, "volumesFormat")
    if source == "table":
        source = "{{.Name}}" if quiet else _CLUSTER if args.bool("cluster") else "table {{.Driver}}\t{{.Name}}"
    elif source == "raw":
        source = "name: {{.Name}}" + ("" if quiet else "\ndriver: {{.Driver}}\n")
    volumes.sort(key=lambda volume: natural_key(volume.get("Name") or ""))
    sys.stdout.write(render(source, [Volume(volume) for volume in volumes], Volume, VOLUME_HEADER))
    return 0
