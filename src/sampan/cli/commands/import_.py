"""sampan import."""

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
    "[OPTIONS] file|URL|- [REPOSITORY[:TAG]]",
    "Import the contents from a tarball to create a filesystem image",
    min_args=1,
    aliases=("image import", "import"),
    complete="files",
    flags=(
        Flag("change", "c", "list", (), "Apply Dockerfile instruction to the created image"),
        Flag("message", "m", "string", "", "Set commit message for imported image"),
        Flag(
            "platform",
            "",
            "string",
            os.environ.get("DOCKER_DEFAULT_PLATFORM", ""),
            "Set platform if server is multi-platform capable",
            api="1.32",
        ),
    ),
)
_CHUNK = 1 << 18


def _pieces(fd: int) -> Iterator[bytes]:
    while data := os.read(fd, _CHUNK):
        yield data


def run(ctx: Context, args: Parsed) -> int:
    """Make an image of a root file system in a tar archive; prints its ID."""
    source = args.args[0]
    name = args.args[1] if len(args.args) > 1 else ""
    if name:
        from sampan.errors import InvalidArgument
        from sampan.reference import parse

        try:
            parse(name)
        except InvalidArgument as error:
            raise CliError(error.message) from None
    query: dict[str, object] = {
        "fromSrc": source,
        "repo": name or None,
        "message": args.str("message") or None,
        "platform": args.str("platform").lower() or None,
        "changes": args.list("change") or None,
    }
    if source == "-":
        return _send(ctx, query, _pieces(0))
    if source.startswith(("http://", "https://")):
        return _send(ctx, query, None)
    try:
        fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise CliError(f"open {source}: {(error.strerror or str(error)).lower()}") from None
    query["fromSrc"] = "-"
    try:
        if os.path.isdir(source):
            raise CliError(f"read {source}: is a directory")
        return _send(ctx, query, _pieces(fd))
    finally:
        os.close(fd)


def _send(ctx: Context, query: dict[str, object], pieces: Iterator[bytes] | None) -> int:
    from sampan.cli.progress import display

    response = ctx.client.request("POST", "/images/create", query, data=pieces, headers={"Content-Type": "text/plain"})
    width = 0
    if sys.stdout.isatty():
        width = os.get_terminal_size(1).columns
    display(response.lines(), sys.stdout, width=width)
    return 0
