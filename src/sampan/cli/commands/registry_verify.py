"""sampan registry verify: Sampan's own, reads everything that a registry has, beside the running registry too."""

from __future__ import annotations

from sampan.cli.flags import Command, Flag, Parsed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from sampan.cli.main import Context

SPEC = Command(
    "[OPTIONS]",
    "Check all content against its digests, and that everything named is there",
    max_args=0,
    flags=(
        Flag("config", "c", "string", "", "Configuration file (default /etc/sampan/registry.json, if it exists)"),
        Flag("json", "", "bool", False, "Print the report as JSON"),
        Flag("root", "", "string", "", "Directory of the registry's data (default /var/lib/sampan-registry)"),
    ),
)


def run(ctx: Context, args: Parsed) -> NoReturn:
    """Never returns."""
    from sampan.cli.registry import become

    del ctx
    settings = {"root": args.str("root")} if args.str("root") else {}
    become("verify", config=args.str("config"), settings=settings, json=args.bool("json"))
