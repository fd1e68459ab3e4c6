"""sampan network create."""

from __future__ import annotations

import ipaddress

from sampan.cli.flags import Command, Flag, Parsed
from sampan.cli.http import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from sampan.cli.main import Context

SPEC = Command(
    "[OPTIONS] NETWORK",
    "Create a network",
    min_args=1,
    max_args=1,
    flags=(
        Flag("attachable", "", "bool", False, "Enable manual container attachment"),
        Flag("aux-address", "", "map", {}, "Auxiliary IPv4 or IPv6 addresses used by Network driver", shown="map[]"),
        Flag("config-from", "", "string", "", "The network from which to copy the configuration"),
        Flag("config-only", "", "bool", False, "Create a configuration only network"),
        Flag("driver", "d", "string", "bridge", "Driver to manage the Network"),
        Flag("gateway", "", "strings", (), "IPv4 or IPv6 Gateway for the master subnet"),
        Flag("ingress", "", "bool", False, "Create swarm routing-mesh network"),
        Flag("internal", "", "bool", False, "Restrict external access to the network"),
        Flag("ip-range", "", "strings", (), "Allocate container ip from a sub-range"),
        Flag("ipam-driver", "", "string", "default", "IP Address Management Driver"),
        Flag("ipam-opt", "", "map", {}, "Set IPAM driver specific options", shown="map[]"),
        Flag("ipv4", "", "bool", True, "Enable or disable IPv4 address assignment"),
        Flag("ipv6", "", "bool", False, "Enable or disable IPv6 address assignment"),
        Flag("label", "", "list", (), "Set metadata on a network"),
        Flag("opt", "o", "map", {}, "Set driver specific options", shown="map[]"),
        Flag("scope", "", "string", "", "Control the network's scope"),
        Flag("subnet", "", "strings", (), "Subnet in CIDR format that represents a network segment"),
    ),
)


def run(ctx: Context, args: Parsed) -> int:
    """Create a network and print its ID."""
    config_from = args.str("config-from")
    body: dict[str, Any] = {
        "Driver": args.str("driver"),
        "Scope": args.str("scope"),
        "IPAM": {
            "Driver": args.str("ipam-driver"),
            "Options": dict(sorted((args.get("ipam-opt") or {}).items())),
            "Config": _subnets(args.list("subnet"), args.list("ip-range"), args.list("gateway"), args.get("aux-address") or {}),
        },
        "Internal": args.bool("internal"),
        "Attachable": args.bool("attachable"),
        "Ingress": args.bool("ingress"),
        "ConfigOnly": args.bool("config-only"),
        "ConfigFrom": {"Network": config_from} if config_from else None,
        "Options": dict(sorted((args.get("opt") or {}).items())),
        "Labels": dict(sorted(text.partition("=")[::2] for text in args.list("label"))),
        "Name": args.args[0],
    }
    for family in ("4", "6"):
        if args.changed(f"ipv{family}"):
            body[f"EnableIPv{family}"] = args.bool(f"ipv{family}")
    ctx.print(ctx.client.request("POST", "/networks/create", body=body).json()["Id"])
    return 0


def _subnets(subnets: Sequence[str], ranges: Sequence[str], gateways: Sequence[str], auxiliary: dict[str, str]) -> list[dict[str, Any]]:
    """One entry for each subnet, with what belongs to it. Raises CliError (docker/cli network/create.go)."""
    if len(subnets) < len(ranges) or len(subnets) < len(gateways):
        raise CliError("every ip-range or gateway must have a corresponding subnet")
    found: dict[str, dict[str, Any]] = {}
    for subnet in subnets:
        for other in found:
            if _overlap(subnet, other):
                raise CliError("multiple overlapping subnet configuration is not supported")
        found[subnet] = {"Subnet": subnet}
    for kind, key, texts in (("range", "IPRange", ranges), ("gateway", "Gateway", gateways)):
        for text in texts:
            subnet = next((name for name in found if _inside(text, name)), "")
            if not subnet:
                raise CliError(f"no matching subnet for {kind} {text}")
            if key in found[subnet]:
                several = "ranges" if kind == "range" else "gateways"
                raise CliError(f"cannot configure multiple {several} ({text}, {found[subnet][key]}) on the same subnet ({subnet})")
            found[subnet][key] = text
    for name, text in sorted(auxiliary.items()):
        subnet = next((item for item in found if _inside(text, item)), "")
        if not subnet:
            raise CliError(f"no matching subnet for aux-address {text}")
        found[subnet].setdefault("AuxiliaryAddresses", {})[name] = text
    return list(found.values())


def _inside(text: str, subnet: str) -> bool:
    try:
        return ipaddress.ip_interface(text).ip in ipaddress.ip_network(subnet, strict=False)
    except ValueError:
        return False


def _overlap(one: str, other: str) -> bool:
    return _inside(one, other) or _inside(other, one)
