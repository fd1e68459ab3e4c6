"""sampan commit."""

from __future__ import annotations

import os

from sampan.cli.flags import Command, Flag, Parsed
from sampan.cli.http import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.main import Context

SPEC = Command(
    "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
    "Create a new image from a container's changes",
    min_args=1,
    max_args=2,
    complete="containers:all",
    aliases=("container commit", "commit"),
    flags=(
        Flag("author", "a", "string", "", 'Author (e.g., "John Hannibal Smith <hannibal@a-team.com>")'),
        Flag("change", "c", "list", (), "Apply Dockerfile instruction to the created image"),
        Flag("message", "m", "string", "", "Commit message"),
        Flag("pause", "p", "bool", True, "Pause container during commit"),
    ),
)


def run(ctx: Context, args: Parsed) -> int:
    """Make an image of a container's changes; prints its ID. SOURCE_DATE_EPOCH makes it the same each time."""
    container = args.args[0]
    repository = tag = ""
    if len(args.args) > 1 and args.args[1]:
        from sampan.errors import InvalidArgument
        from sampan.reference import parse

        try:
            reference = parse(args.args[1])
        except InvalidArgument as error:
            raise CliError(error.message) from None
        if reference.digest is not None:
            raise CliError("refusing to create a tag with a digest reference")
        repository, tag = reference.name, reference.with_default_tag().tag or ""
    query: dict[str, object] = {
        "author": args.str("author"),
        "changes": args.list("change") or None,
        "comment": args.str("message"),
        "container": container,
        "repo": repository,
        "tag": tag,
        "pause": None if args.bool("pause") else "0",
        "source-date-epoch": os.environ.get("SOURCE_DATE_EPOCH") or None,
    }
    ctx.path(container)
    ctx.print(ctx.client.request("POST", "/commit", query).json()["Id"])
    return 0
