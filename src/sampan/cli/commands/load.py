"""sampan load."""

from __future__ import annotations

import os
import sys

from sampan.cli.flags import Command, Flag, Parsed
from sampan.cli.http import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from sampan.cli.main import Context

SPEC = Command(
    "[OPTIONS]",
    "Load an image from a tar archive or STDIN",
    max_args=0,
    aliases=("image load", "load"),
    complete="none",
    flags=(
        Flag("input", "i", "string", "", "Read from tar archive file, instead of STDIN"),
        Flag(
            "platform",
            "",
            "string",
            "",
            'Load only the given platform variant. Formatted as "os[/arch[/variant]]" (e.g., "linux/amd64")',
            api="1.48",
        ),
        Flag("quiet", "q", "bool", False, "Suppress the load output"),
    ),
)
_CHUNK = 1 << 20


def _pieces(fd: int, name: str) -> Iterator[bytes]:
    while True:
        try:
            data = os.read(fd, _CHUNK)
        except OSError as error:
            raise CliError(f"read {name}: {(error.strerror or str(error)).lower()}") from None
        if not data:
            return
        yield data


def run(ctx: Context, args: Parsed) -> int:
    """Load an archive's images; says what was loaded."""
    source = args.str("input")
    if not source and os.isatty(0):
        raise CliError("requested load from stdin, but stdin is empty")
    fd = 0
    if source:
        try:
            fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise CliError(f"open {source}: {(error.strerror or str(error)).lower()}") from None
    try:
        return _send(ctx, args, _pieces(fd, source or "/dev/stdin"))
    finally:
        if source:
            os.close(fd)


def _send(ctx: Context, args: Parsed, pieces: Iterator[bytes]) -> int:
    from sampan.cli.progress import display

    terminal = sys.stdout.isatty()
    query: dict[str, object] = {"quiet": "1" if args.bool("quiet") or not terminal else "0"}
    if args.str("platform"):
        from sampan.cli.platforms import as_json

        query["platform"] = as_json(args.str("platform"), "invalid platform: ")
    response = ctx.client.request("POST", "/images/load", query, data=pieces, headers={"Content-Type": "application/x-tar"})
    display(response.lines(), sys.stdout, width=os.get_terminal_size(1).columns if terminal else 0)
    return 0
