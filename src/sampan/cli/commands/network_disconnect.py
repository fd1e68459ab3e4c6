"""sampan network disconnect."""

from __future__ import annotations

from sampan.cli.flags import Command, Flag, Parsed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.main import Context

SPEC = Command(
    "[OPTIONS] NETWORK CONTAINER",
    "Disconnect a container from a network",
    min_args=2,
    max_args=2,
    complete="networks",
    flags=(Flag("force", "f", "bool", False, "Force the container to disconnect from a network"),),
)


def run(ctx: Context, args: Parsed) -> int:
    """Take a container off a network."""
    network, container = args.args
    ctx.client.request("POST", f"/networks/{ctx.path(network)}/disconnect", body={"Container": container, "Force": args.bool("force")})
    return 0
