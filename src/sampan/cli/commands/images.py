"""sampan images."""

from __future__ import annotations

import sys

from sampan.cli.filters import encode
from sampan.cli.flags import Command, Flag, Parsed
from sampan.cli.format.formatter import FORMAT_HELP, asked_for, render
from sampan.cli.format.images import HEADER, Image, layout, rows
from sampan.cli.http import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.main import Context

SPEC = Command(
    "[OPTIONS] [REPOSITORY[:TAG]]",
    "List images",
    max_args=1,
    aliases=("image ls", "image list", "images"),
    complete="images",
    flags=(
        Flag("all", "a", "bool", False, "Show all images (default hides intermediate images)"),
        Flag("digests", "", "bool", False, "Show digests"),
        Flag("filter", "f", "filter", None, "Filter output based on conditions provided"),
        Flag("format", "", "string", "", FORMAT_HELP),
        Flag("no-trunc", "", "bool", False, "Don't truncate output"),
        Flag("quiet", "q", "bool", False, "Only show image IDs"),
        Flag("tree", "", "bool", False, "List multi-platform images as a tree (EXPERIMENTAL)", api="1.47"),
    ),
)
_COMMANDS = ("build", "history", "import", "inspect", "list", "load", "ls", "prune", "pull", "push", "rm", "save", "tag")


def run(ctx: Context, args: Parsed) -> int:
    """List images."""
    if args.bool("tree"):
        for name, shown in (("quiet", "quiet"), ("no-trunc", "no-trunc"), ("digests", "show-digest"), ("format", "format")):
            if args.get(name):
                raise CliError(f"--{shown} is not yet supported with --tree")
    filters = {key: list(values) for key, values in (args.get("filter") or {}).items()}
    match = args.args[0] if args.args else ""
    if match:
        filters.setdefault("reference", []).append(match)
    if args.bool("tree"):
        return _tree(ctx, filters, all=args.bool("all"))
    quiet, digests, trunc = args.bool("quiet"), args.bool("digests"), not args.bool("no-trunc")
    images = ctx.client.request("GET", "/images/json", {"all": True if args.bool("all") else None, "filters": encode(filters)}).json() or []
    source = asked_for(ctx, args, "imagesFormat")
    template = layout(source, quiet=quiet, digests=digests)
    sys.stdout.write(render(template, rows(images, template, trunc=trunc, digests=digests), Image, HEADER))
    if match in _COMMANDS and not images and args.path == "images":
        ctx.error(f'\nNo images found matching "{match}": did you mean "{_program()} image {match}"?')
    return 0


def _tree(ctx: Context, filters: dict[str, list[str]], *, all: bool) -> int:
    import os

    from sampan.cli.format import imagetree

    query = {"all": True if all else None, "filters": encode(filters), "manifests": True}
    images = ctx.client.request("GET", "/images/json", query).json() or []
    is_terminal = sys.stdout.isatty()
    columns = os.get_terminal_size(sys.stdout.fileno()).columns if is_terminal else 0
    sys.stdout.write(imagetree.render(images, all=all, columns=columns, is_terminal=is_terminal))
    return 0


def _program() -> str:
    from sampan.cli.commandtable import PROGRAM

    return PROGRAM
