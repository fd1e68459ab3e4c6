"""sampan network connect."""

from __future__ import annotations

from sampan.cli.endpointsettings import endpoint_settings
from sampan.cli.flags import Command, Flag, Parsed
from sampan.cli.http import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.main import Context

SPEC = Command(
    "[OPTIONS] NETWORK CONTAINER",
    "Connect a container to a network",
    min_args=2,
    max_args=2,
    complete="networks",
    flags=(
        Flag("alias", "", "strings", (), "Add network-scoped alias for the container"),
        Flag("driver-opt", "", "strings", (), "driver options for the network"),
        Flag("gw-priority", "", "int", 0, "Highest gw-priority provides the default gateway. Accepts positive and negative values."),
        Flag("ip", "", "string", "", 'IPv4 address (e.g., "172.30.100.104")'),
        Flag("ip6", "", "string", "", 'IPv6 address (e.g., "2001:db8::33")'),
        Flag("link", "", "list", (), "Add link to another container"),
        Flag("link-local-ip", "", "strings", (), "Add a link-local address for the container"),
    ),
)


def run(ctx: Context, args: Parsed) -> int:
    """Put a container on a network."""
    network, container = args.args
    options: dict[str, str] = {}
    for text in args.list("driver-opt"):
        key, separator, value = text.partition("=")
        if not separator:
            raise CliError("invalid key/value pair format in driver options")
        options[key.strip()] = value.strip()
    ipam: dict[str, Any] = {"IPv4Address": args.str("ip"), "IPv6Address": args.str("ip6"), "LinkLocalIPs": list(args.list("link-local-ip"))}
    settings = endpoint_settings(
        IPAMConfig={key: value for key, value in ipam.items() if value},
        Links=list(args.list("link")) or None,
        Aliases=list(args.list("alias")),
        MacAddress="",
        DriverOpts=options,
        GwPriority=args.get("gw-priority"),
    )
    ctx.client.request("POST", f"/networks/{ctx.path(network)}/connect", body={"Container": container, "EndpointConfig": settings})
    return 0
