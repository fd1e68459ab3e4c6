"""sampan volume create."""

from __future__ import annotations

from sampan.cli.flags import Command, Flag, Parsed
from sampan.cli.http import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.main import Context

_CLUSTER = ("availability", "group", "limit-bytes", "required-bytes", "scope", "secret", "sharing", "topology-preferred",
            "topology-required", "type")  # fmt: skip
SPEC = Command(
    "[OPTIONS] [VOLUME]",
    "Create a volume",
    max_args=1,
    flags=(
        Flag("availability", "", "string", "active", 'Cluster Volume availability ("active", "pause", "drain")'),
        Flag("driver", "d", "string", "local", "Specify volume driver name"),
        Flag("group", "", "string", "", "Cluster Volume group (cluster volumes)"),
        Flag("label", "", "list", (), "Set metadata for a volume"),
        Flag("limit-bytes", "", "bytes", 0, "Minimum size of the Cluster Volume in bytes"),
        Flag("name", "", "string", "", "Specify volume name", hidden=True),
        Flag("opt", "o", "map", {}, "Set driver specific options", shown="map[]"),
        Flag("required-bytes", "", "bytes", 0, "Maximum size of the Cluster Volume in bytes"),
        Flag("scope", "", "string", "single", 'Cluster Volume access scope ("single", "multi")'),
        Flag("secret", "", "map", {}, "Cluster Volume secrets", shown="map[]"),
        Flag("sharing", "", "string", "none", 'Cluster Volume access sharing ("none", "readonly", "onewriter", "all")'),
        Flag("topology-preferred", "", "list", (), "A topology that the Cluster Volume would be preferred in"),
        Flag("topology-required", "", "list", (), "A topology that the Cluster Volume must be accessible from"),
        Flag("type", "", "string", "block", 'Cluster Volume access type ("mount", "block")'),
    ),
)


def run(ctx: Context, args: Parsed) -> int:
    """Create a volume and print its name."""
    name = args.str("name")
    if args.args:
        if name:
            raise CliError("conflicting options: cannot specify a volume-name through both --name and as a positional arg")
        name = args.args[0]
    if any(args.changed(flag) for flag in _CLUSTER):
        raise CliError("cluster volumes need a Docker Engine in swarm mode and docker's own client")
    body: dict[str, Any] = {
        "Driver": args.str("driver"),
        "DriverOpts": dict(sorted((args.get("opt") or {}).items())),
        "Labels": dict(sorted(text.partition("=")[::2] for text in args.list("label"))),
        "Name": name,
    }
    body = {key: value for key, value in body.items() if value}
    ctx.print(ctx.client.request("POST", "/volumes/create", body=body).json()["Name"])
    return 0
