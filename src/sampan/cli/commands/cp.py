"""sampan cp."""

from __future__ import annotations

import os
import sys

from sampan.cli import copying
from sampan.cli.copying import Place
from sampan.cli.flags import Command, Flag, Parsed
from sampan.cli.http import CliError
from sampan.units import human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from sampan.cli.main import Context

SPEC = Command(
    "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n\tsampan cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
    "Copy files/folders between a container and the local filesystem",
    long="Copy files/folders between a container and the local filesystem\n\n"
    "Use '-' as the source to read a tar archive from stdin\nand extract it to a directory destination in a container.\n"
    "Use '-' as the destination to stream a tar archive of a\ncontainer source to stdout.",
    min_args=2,
    max_args=2,
    aliases=("container cp", "cp"),
    flags=(
        Flag("archive", "a", "bool", False, "Archive mode (copy all uid/gid information)"),
        Flag("follow-link", "L", "bool", False, "Always follow symbol link in SRC_PATH"),
        Flag(
            "quiet",
            "q",
            "bool",
            False,
            "Suppress progress output during copy. Progress output is automatically suppressed if no terminal is attached",
        ),
    ),
)
_CHUNK = 1 << 18
_EVERY_S = 0.075
_GO_SYMLINK, _GO_DIR, _GO_DEVICE = 1 << 27, 1 << 31, 1 << 26


def split_container(text: str) -> tuple[str, str]:
    """(container or "", path): what begins with `/` or `.` is local, even with a colon in it."""
    if text.startswith("/"):
        return "", text
    container, colon, path = text.partition(":")
    return ("", text) if not colon or container.startswith(".") else (container, path)


def run(ctx: Context, args: Parsed) -> int:
    """Copy between a container and here."""
    source, destination = args.args
    if not source:
        raise CliError("source can not be empty")
    if not destination:
        raise CliError("destination can not be empty")
    quiet = args.bool("quiet") if "quiet" in args.set else not sys.stdout.isatty()
    from_container, source_path = split_container(source)
    to_container, destination_path = split_container(destination)
    if from_container and to_container:
        raise CliError("copying between containers is not supported")
    progress = Progress("Copying from container - " if from_container else "Copying to container - ", quiet)
    if from_container:
        _from(ctx, from_container, source_path, destination_path, args.bool("follow-link"), progress)
    elif to_container:
        follow, owner = args.bool("follow-link"), args.bool("archive")
        _to(ctx, to_container, source_path, destination_path, follow=follow, owner=owner, progress=progress)
    else:
        raise CliError("must specify at least one container source")
    return 0


class Progress:
    """Counts the bytes of the archive, and shows them on a terminal's stderr as docker does."""

    def __init__(self, header: str, quiet: bool) -> None:
        self._header = header
        self.quiet = quiet
        self._shows = not quiet and sys.stderr.isatty()
        self.total = 0

    def counted(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """The same pieces."""
        import time

        if self._shows:
            sys.stderr.write(f"\x1b7\x1b[?25l{self._header}0B")
            sys.stderr.flush()
        shown = time.monotonic()
        for piece in pieces:
            self.total += len(piece)
            if self._shows and time.monotonic() - shown >= _EVERY_S:
                sys.stderr.write(f"\x1b[{len(self._header) + 1}G\x1b[0K{human_size(self.total, 3)}")
                sys.stderr.flush()
                shown = time.monotonic()
            yield piece

    def finish(self, destination: str, *, success: bool) -> None:
        """Take the line off again, and say what was done."""
        if self._shows:
            sys.stderr.write("\x1b8\x1b[2K\x1b[?25h")
        if success and not self.quiet:
            sys.stderr.write(f"Successfully copied {human_size(self.total, 3)} to {destination}\n")
        sys.stderr.flush()


def _stat(ctx: Context, container: str, path: str) -> dict[str, Any] | None:
    """What is at a path in the container; None for nothing, or when it cannot be said: the copy itself will tell why."""
    response = ctx.client.request("HEAD", f"/containers/{ctx.path(container)}/archive", {"path": path}, check=False)
    return _decoded(response.headers.get("x-docker-container-path-stat", ""))


def _decoded(header: str) -> dict[str, Any] | None:
    from binascii import a2b_base64

    from sampan.cli import fastjson

    found = fastjson.loads(a2b_base64(header)) if header else None
    return found if isinstance(found, dict) else None


def _joined(path: str, target: str) -> str:
    return target if target.startswith("/") else copying.clean(os.path.join(copying.split(path)[0], target))


def _from(ctx: Context, container: str, path: str, target: str, follow: bool, progress: Progress) -> None:
    target = target if target == "-" else copying.local_path(target)
    copying.check_output(target)
    rename = ""
    if follow:
        found = _stat(ctx, container, path)
        if found is not None and found["mode"] & _GO_SYMLINK:
            path, rename = copying.renamed(path, _joined(path, found["linkTarget"]))
    response = ctx.client.request("GET", f"/containers/{ctx.path(container)}/archive", {"path": path})
    if target == "-":
        for piece in response.stream():
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        return
    found = _decoded(response.headers.get("x-docker-container-path-stat", "")) or {}
    source = Place(path, exists=True, is_dir=bool(found.get("mode", 0) & _GO_DIR), rename=rename)
    success = False
    try:
        copying.unpack(progress.counted(response.stream()), source, copying.local_destination(target))
        success = True
    finally:
        progress.finish(target, success=success)
        response.close()


def _to(ctx: Context, container: str, path: str, target: str, *, follow: bool, owner: bool, progress: Progress) -> None:
    path = path if path == "-" else copying.local_path(path)
    destination = Place(target)
    found = _stat(ctx, container, target)
    if found is not None and found["mode"] & _GO_SYMLINK:
        destination.path = _joined(target, found["linkTarget"])
        found = _stat(ctx, container, destination.path)
    if found is not None:
        if found["mode"] & _GO_DEVICE:
            raise CliError(f'destination "{container}:{target}" must be a directory or a regular file: got a device')
        destination.exists, destination.is_dir = True, bool(found["mode"] & _GO_DIR)
    if path == "-":
        if not destination.is_dir:
            raise CliError(f'destination "{container}:{target}" must be a directory')
        directory, pieces = destination.path, _standard_input()
    else:
        source = copying.local_source(path, follow)
        directory, name = copying.arrange(source, destination)
        pieces = copying.pack(source, name)
    query: dict[str, object] = {"path": directory, "noOverwriteDirNonDir": "true"}
    if owner:
        query["copyUIDGID"] = "true"
    success = False
    try:
        pieces = progress.counted(pieces)
        url = f"/containers/{ctx.path(container)}/archive"
        ctx.client.request("PUT", url, query, data=pieces, headers={"Content-Type": "application/x-tar"}).read()
        success = True
    finally:
        progress.finish(f"{container}:{destination.path}", success=success)


def _standard_input() -> Iterator[bytes]:
    while data := os.read(0, _CHUNK):
        yield data
