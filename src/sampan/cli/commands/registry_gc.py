"""sampan registry gc: Sampan's own, collects what nothing refers to any more, beside a running registry too."""

from __future__ import annotations

from sampan.cli.flags import Command, Flag, Parsed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from sampan.cli.main import Context

SPEC = Command(
    "[OPTIONS]",
    "Remove what retention policies say, and content that nothing refers to",
    max_args=0,
    flags=(
        Flag("config", "c", "string", "", "Configuration file (default /etc/sampan/registry.json, if it exists)"),
        Flag("dry-run", "", "bool", False, "Only show what would go, and its bytes"),
        Flag("json", "", "bool", False, "Print the report as JSON"),
        Flag("root", "", "string", "", "Directory of the registry's data (default /var/lib/sampan-registry)"),
    ),
)


def run(ctx: Context, args: Parsed) -> NoReturn:
    """Never returns."""
    from sampan.cli.registry import become

    del ctx
    settings = {"root": args.str("root")} if args.str("root") else {}
    become("gc", config=args.str("config"), settings=settings, dry_run=args.bool("dry-run"), json=args.bool("json"))
