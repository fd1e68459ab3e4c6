"""sampan save."""

from __future__ import annotations

import sys

from sampan.cli.flags import Command, Flag, Parsed
from sampan.cli.http import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from sampan.cli.main import Context

SPEC = Command(
    "[OPTIONS] IMAGE [IMAGE...]",
    "Save one or more images to a tar archive (streamed to STDOUT by default)",
    min_args=1,
    aliases=("image save", "save"),
    complete="images",
    flags=(
        Flag("output", "o", "string", "", "Write to a file, instead of STDOUT"),
        Flag(
            "platform",
            "",
            "string",
            "",
            'Save only the given platform variant. Formatted as "os[/arch[/variant]]" (e.g., "linux/amd64")',
            api="1.48",
        ),
    ),
)


def run(ctx: Context, args: Parsed) -> int:
    """Write images as an archive, to a file that is there only once it is whole."""
    query: dict[str, object] = {"names": list(args.args)}
    if args.str("platform"):
        from sampan.cli.platforms import as_json

        query["platform"] = as_json(args.str("platform"), "invalid platform: ")
    output = args.str("output")
    if not output:
        if sys.stdout.isatty():
            raise CliError("cowardly refusing to save to a terminal. Use the -o flag or redirect")
        for piece in _pieces(ctx, query):
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        return 0
    from sampan.cli import outfile

    try:
        outfile.check(output)
    except CliError as error:
        raise CliError(f"failed to save image: {error.message}") from None
    outfile.write(output, _pieces(ctx, query))
    return 0


def _pieces(ctx: Context, query: dict[str, object]) -> Iterator[bytes]:
    yield from ctx.client.request("GET", "/images/get", query).stream()
