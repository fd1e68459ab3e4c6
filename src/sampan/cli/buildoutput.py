"""`sampan build --output`: where a build's files go, in buildx's words (util/buildflags/export.go, controller/pb/export.go)."""

from __future__ import annotations

import os
import stat
import sys

from sampan.cli.http import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sampan.cli.main import Context

_IMAGES = ("image", "docker")
_PUSH = "give the image a name and push it: sampan push"
_OTHERS = {
    "oci": "save the image: sampan save",
    "registry": _PUSH,
}
_NEW_DIRECTORY = 0o700


class Output:
    """One of them."""

    def __init__(self, kind: str, destination: str) -> None:
        """kind: image, docker, local or tar."""
        self.kind, self.destination = kind, destination

    @property
    def is_image(self) -> bool:
        """Whether the image itself is wanted."""
        return self.kind in _IMAGES

    @property
    def is_stdout(self) -> bool:
        """Whether it is what stdout is for."""
        return self.destination == "-"


def parse(values: Sequence[str]) -> list[Output]:
    """The outputs, each of them possible as far as can be seen before the build. Raises CliError."""
    outputs = [_parse(value) for value in values if value]
    for output in outputs:
        if output.kind == "local":
            _check_directory(output.destination)
        elif output.kind == "tar":
            _check_file(output.destination)
    if sum(output.is_stdout for output in outputs) > 1:
        raise CliError("only one output can be written to stdout")
    return outputs


def _parse(value: str) -> Output:
    from sampan.cli.opts import split_csv

    try:
        fields = split_csv(value)
    except ValueError as error:
        raise CliError(str(error)) from None
    if fields == [value] and not value.startswith("type="):
        return Output("tar" if value == "-" else "local", value)
    given: dict[str, str] = {}
    for field in fields:
        name, equals, text = field.partition("=")
        if not equals:
            raise CliError(f"invalid value {field}")
        given[name.lower().strip()] = text
    kind, destination = given.pop("type", ""), given.pop("dest", "")
    if not kind:
        raise CliError("type is required for output")
    if kind in _OTHERS:
        raise CliError(f"the {kind} exporter is not implemented by Sampan: {_OTHERS[kind]}")
    if kind not in (*_IMAGES, "local", "tar"):
        raise CliError(f'exporter "{kind}" could not be found')
    if kind in _IMAGES and destination:
        raise CliError(f"dest is not implemented by Sampan for the {kind} exporter: save the image: sampan save")
    for name in given:
        instead = f": {_PUSH}" if name == "push" else ""
        raise CliError(f"{name} is not implemented by Sampan for the {kind} exporter{instead}")
    return Output(kind, destination if kind != "tar" else destination or "-")


def _check_directory(path: str) -> None:
    if not path:
        raise CliError("dest is required for local exporter")
    if path == "-":
        raise CliError("dest cannot be stdout for local exporter")
    mode = _mode(path, "directory")
    if mode and not stat.S_ISDIR(mode):
        raise CliError(f"destination directory {path} is a file")


def _check_file(path: str) -> None:
    if path == "-":
        if sys.stdout.isatty():
            raise CliError("dest file is required for tar exporter. refusing to write to console")
    elif stat.S_ISDIR(_mode(path, "file")):
        raise CliError(f"destination file {path} is a directory")


def _mode(path: str, what: str) -> int:
    """st_mode of what is there, 0 if nothing is."""
    try:
        return os.stat(path).st_mode
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise CliError(f"invalid destination {what}: {path}: {(error.strerror or '').lower()}") from None


def write(ctx: Context, outputs: Sequence[Output], image: str) -> None:
    """Write the files of a built image wherever they are wanted. Raises CliError."""
    for output in outputs:
        if output.is_image:
            continue
        pieces = ctx.client.request("GET", f"/images/{ctx.path(image)}/export").stream()
        if output.kind == "local":
            extract(pieces, output.destination)
        elif output.is_stdout:
            for piece in pieces:
                sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
        else:
            _save(pieces, output.destination)


def extract(pieces: Iterator[bytes], path: str) -> None:
    """Files become the user's own, as buildx makes them; those that are there are replaced, and none that is not among them goes."""
    from sampan.archive.extract import OwnExtractor
    from sampan.archive.reader import InvalidArchive, TarReader
    from sampan.archive.source import Source, TruncatedArchive

    try:
        os.makedirs(path, _NEW_DIRECTORY, exist_ok=True)
        root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with OwnExtractor(root, place=os.path.normpath(path)) as extractor:
                extractor.apply(TarReader(Source(lambda _: next(pieces, b""), hashed=False)))
        finally:
            os.close(root)
    except (InvalidArchive, TruncatedArchive) as error:
        raise CliError(f"failed to write to {path}: {error}") from None
    except OSError as error:
        name = os.fsdecode(error.filename) if error.filename else path
        raise CliError(f"failed to write to {path}: {name}: {(error.strerror or '').lower()}") from None
    for _ in pieces:  # what follows the archive's end
        pass


def _save(pieces: Iterable[bytes], path: str) -> None:
    """A file appears whole or not at all; a device or a pipe takes what comes."""
    from sampan.cli.replacing import replaced, write_all

    try:
        if stat.S_IFMT(_mode(path, "file")) not in (0, stat.S_IFREG):
            with open(path, "wb", buffering=0) as file:
                for piece in pieces:
                    write_all(file, piece)
            return
        with replaced(path, 0o666) as file:
            for piece in pieces:
                write_all(file, piece)
    except OSError as error:
        raise CliError(f"failed to write {path}: {(error.strerror or str(error)).lower()}") from None
