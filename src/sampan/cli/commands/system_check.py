"""sampan system check: Sampan's own, whether what the engine has on the host fits together."""

from __future__ import annotations

import sys

from sampan.cli.flags import Command, Flag, Parsed
from sampan.cli.format.formatter import FORMAT_HELP, render
from sampan.cli.format.objects import CHECK_HEADER, Finding

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.main import Context

SPEC = Command(
    "[OPTIONS]",
    "Check layers, images, containers, mounts, cgroups and the database against each other",
    max_args=0,
    flags=(
        Flag("deep", "", "bool", False, "Read every layer and compare it with its digest"),
        Flag("format", "", "string", "", FORMAT_HELP),
        Flag("repair", "", "bool", False, "Repair what is certain; running containers are left alone"),
    ),
)
_TABLE = "table {{.Kind}}\t{{.Subject}}\t{{.Problem}}\t{{.Remedy}}\t{{.Repaired}}"


def run(ctx: Context, args: Parsed) -> int:
    """A line for each thing that is wrong, with what is done about it. 1: something is wrong, and still is."""
    method = "POST" if args.bool("repair") else "GET"
    report = ctx.client.request(method, "/system/check", {"deep": True if args.bool("deep") else None}).json()
    findings = report.get("Findings") or []
    source = args.str("format")
    if source:
        source = _TABLE if source == "table" else source
        sys.stdout.write(render(source, [Finding(one) for one in findings], Finding, CHECK_HEADER))
    else:
        for one in findings:
            ctx.print(line(one))
        if not findings:
            read = f"; {report['LayersRead']} layers read" if args.bool("deep") else ""
            ctx.print(f"Everything fits together{read}.")
    return int(any(not one.get("Repaired") for one in findings))


def line(one: dict[str, Any]) -> str:
    """One finding."""
    text = f"{one['Kind']} {one['Subject']} {one['Problem']}"
    if one.get("Repaired"):
        return f"{text}: repaired"
    return f"{text}: --repair will {one['Remedy']}" if one.get("Repairable") else f"{text}: {one['Remedy']}"
