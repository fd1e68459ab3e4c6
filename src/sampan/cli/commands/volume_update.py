"""sampan volume update."""

from __future__ import annotations

from sampan.cli.flags import Command, Flag, Parsed
from sampan.cli.http import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.main import Context

SPEC = Command(
    "[OPTIONS] [VOLUME]",
    "Update a volume (cluster volumes only)",
    min_args=1,
    max_args=1,
    complete="volumes",
    flags=(Flag("availability", "", "string", "active", 'Cluster Volume availability ("active", "pause", "drain")'),),
)


def run(ctx: Context, args: Parsed) -> int:
    """Only Swarm has volumes that can be updated."""
    volume = ctx.client.request("GET", f"/volumes/{ctx.path(args.args[0])}").json()
    if not volume.get("ClusterVolume"):
        raise CliError("can only update cluster volumes")
    raise CliError("cluster volumes need docker's own client")
