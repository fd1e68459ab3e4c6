"""sampan mirror ls: Sampan's own, the mirrors of each registry and whether they are in use."""

from __future__ import annotations

import sys

from sampan.cli import daemonfile, mirrors
from sampan.cli.flags import Command, Parsed
from sampan.cli.format.table import tabulate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.main import Context

SPEC = Command(
    "[OPTIONS]",
    "List mirrors in the order they are asked",
    max_args=0,
    aliases=("mirror ls", "mirror list"),
    flags=(mirrors.registry_flag(""), mirrors.CONFIG_FLAG),
)


def run(ctx: Context, args: Parsed) -> int:
    """A table; what sampand says of failing mirrors goes to stderr."""
    daemon = daemonfile.find(ctx, args.str("config-file"))
    document, _ = daemonfile.read(daemon.path)
    info = mirrors.info_of(ctx, daemon)
    known = mirrors.in_use(info)
    warnings = [line for line in info.get("Warnings") or () if line.startswith("WARNING: the mirror ")]
    found = mirrors.all_of(info, document, daemon.path)
    only = args.str("registry")
    rows = ["REGISTRY\tMIRROR\tSTATUS"]
    for name, urls in found.items():
        for url in urls if only in ("", name) else ():
            if not daemon.pid:
                status = "sampand does not run"
            elif url not in known.get(name, ()):
                status = "not loaded"
            elif any(line.startswith(f"WARNING: the mirror {url} of {name} ") for line in warnings):
                status = "set aside"
            else:
                status = "in use"
            rows.append(f"{name}\t{url}\t{status}")
    sys.stdout.write(tabulate("\n".join(rows)) + "\n")
    for line in warnings:
        if only in ("", line.partition(" of ")[2].partition(" ")[0]):
            ctx.error(line)
    return 0
