"""sampan export."""

from __future__ import annotations

import sys

from sampan.cli.flags import Command, Flag, Parsed
from sampan.cli.http import ApiError, CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from sampan.cli.main import Context

SPEC = Command(
    "[OPTIONS] CONTAINER",
    "Export a container's filesystem as a tar archive",
    min_args=1,
    max_args=1,
    complete="containers:all",
    aliases=("container export", "export"),
    flags=(Flag("output", "o", "string", "", "Write to a file, instead of STDOUT"),),
)


def run(ctx: Context, args: Parsed) -> int:
    """Write the container's root file system as a tar archive."""
    output = args.str("output")
    if not output and sys.stdout.isatty():
        raise CliError("cowardly refusing to save to a terminal. Use the -o flag or redirect")
    if output:
        from sampan.cli import outfile

        try:
            outfile.check(output)
            outfile.write(output, _pieces(ctx, args.args[0]))
        except ApiError:
            raise
        except CliError as error:
            raise CliError(f"failed to export container: {error.message}") from None
        return 0
    for piece in _pieces(ctx, args.args[0]):
        sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()
    return 0


def _pieces(ctx: Context, container: str) -> Iterator[bytes]:
    yield from ctx.client.request("GET", f"/containers/{ctx.path(container)}/export").stream()
