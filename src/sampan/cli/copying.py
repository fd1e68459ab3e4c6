"""What `docker cp` makes of its paths: which entry goes where, and under which name (moby go-archive copy.go). The local side's files too.

Paths keep a trailing `/` or `/.`: both say that there is to be a directory, and `/.` means what is in it.
"""

from __future__ import annotations

import os
import stat

from sampan.cli.http import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sampan.archive.reader import Entry, TarReader

MAX_LINKS = 10


class Place:
    """The source or the destination of a copy. rename: the name its top entry is to have, "" for its own."""

    def __init__(self, path: str, *, exists: bool = False, is_dir: bool = False, rename: str = "") -> None:
        self.path, self.exists, self.is_dir, self.rename = path, exists, is_dir, rename


def base(path: str) -> str:
    """Go's filepath.Base."""
    if not path:
        return "."
    return path.rstrip("/").rpartition("/")[2] or "/"


def clean(path: str) -> str:
    """Go's filepath.Clean."""
    normal = os.path.normpath(path) if path else "."
    return "/" + normal.lstrip("/") if normal.startswith("//") else normal


def is_current_dir(path: str) -> bool:
    """Whether the last element is `.`."""
    return base(path) == "."


def keep_ending(cleaned: str, original: str) -> str:
    """A cleaned path with the `/.` or `/` its original ended in."""
    if not is_current_dir(cleaned) and is_current_dir(original):
        cleaned = cleaned.rstrip("/") + "/."
    if not cleaned.endswith("/") and original.endswith("/"):
        cleaned += "/"
    return cleaned


def split(path: str) -> tuple[str, str]:
    """(directory, last element), the latter `.` if the path says so."""
    cleaned = clean(path)
    if is_current_dir(path):
        cleaned += "/."
    return clean(cleaned.rpartition("/")[0] or ("/" if cleaned.startswith("/") else ".")), base(cleaned)


def local_path(path: str) -> str:
    """Absolute, its ending kept."""
    return keep_ending(os.path.abspath(path), path)


def renamed(path: str, resolved: str) -> tuple[str, str]:
    """A followed link: the resolved path with the ending of the given one, and the name its entries are to have."""
    if is_current_dir(path) and not is_current_dir(resolved):
        resolved += "/."
    if path.endswith("/") and not resolved.endswith("/"):
        resolved += "/"
    return resolved, base(path) if base(path) != base(resolved) else ""


def _failure(what: str, path: str, error: OSError) -> CliError:
    return CliError(f"{what} {path}: {(error.strerror or str(error)).lower()}")


def local_source(path: str, follow: bool) -> Place:
    """A local path to copy from; links before its last element are followed, that one only with `follow`. Raises CliError."""
    rename = ""
    try:
        if follow:
            resolved, rename = renamed(path, os.path.realpath(path, strict=True))
        else:
            directory, _, last = path.rpartition("/")
            if not os.path.isdir(directory + "/"):
                os.stat(directory + "/")  # raises: there is none
            resolved = os.path.realpath(directory + "/", strict=True) + "/" + last
            if path.endswith("/") and base(path) != base(resolved):
                rename = base(path)
        mode = os.lstat(resolved).st_mode
    except NotADirectoryError:
        raise CliError("not a directory") from None
    except OSError as error:
        raise _failure("lstat", os.fsdecode(error.filename).rstrip("/") if error.filename else path, error) from None
    return Place(resolved, exists=True, is_dir=stat.S_ISDIR(mode), rename=rename)


def local_destination(path: str) -> Place:
    """A local path to copy to: its last element, if a link, is followed; it need not exist, its directory must. Raises CliError."""
    original, count = path, 0
    while True:
        try:
            mode = os.lstat(path).st_mode
        except FileNotFoundError:
            parent = split(path)[0]
            try:
                if not stat.S_ISDIR(os.stat(parent).st_mode):
                    raise CliError("not a directory")
            except OSError as error:
                raise _failure("stat", parent, error) from None
            return Place(path)
        except OSError as error:
            raise _failure("lstat", path, error) from None
        if not stat.S_ISLNK(mode):
            return Place(path, exists=True, is_dir=stat.S_ISDIR(mode))
        count += 1
        if count > MAX_LINKS:
            raise CliError(f"too many symlinks in {original}")
        path = clean(os.path.join(split(path)[0], os.readlink(path)))


def check_output(path: str) -> None:
    """Docker's check of where output is to go (cli/command ValidateOutputPath). Raises CliError."""
    directory = os.path.dirname(clean(path))
    if directory not in ("", ".") and not os.path.exists(directory):
        raise CliError(f'invalid output path: directory "{directory}" does not exist')
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise _failure("stat", path, error) from None
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        raise CliError(f'invalid output path: "{path}" must be a directory or a regular file: got a device')


def arrange(source: Place, destination: Place) -> tuple[str, str | None]:
    """(directory to extract in, name for the archive's top entry or None for its own). Raises CliError in docker's words."""
    directory, last = split(destination.path)
    if destination.exists and destination.is_dir:
        return destination.path, None
    if destination.exists and source.is_dir:
        raise CliError("cannot copy directory")
    if not destination.exists and not source.is_dir and (destination.path.endswith("/") or is_current_dir(destination.path)):
        raise CliError("no such directory")
    return directory, last


def pack(source: Place, name: str | None) -> Iterator[bytes]:
    """The source as a tar stream, its top entry called `name` if that is given. Raises CliError."""
    from sampan.archive import writer
    from sampan.archive.pack import Packer, blocks

    directory, last = split(source.path)
    top = os.fsencode(name if name is not None else source.rename or last)
    try:
        parent = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield from blocks(Packer().tree(parent, os.fsencode("." if last == "/" else last), top))
        finally:
            os.close(parent)
    except OSError as error:
        raise _failure("open", os.path.join(directory, os.fsdecode(error.filename or last)), error) from None
    yield writer.END


class _Renamed:
    """A tar reader whose top entry has another name."""

    def __init__(self, reader: TarReader | _Wanted, old: bytes, new: bytes) -> None:
        self._reader, self._old, self._new = reader, old, new
        self.data, self.moved = reader.data, reader.moved

    def _name(self, name: bytes) -> bytes:
        if self._old == b"/":
            return self._new + b"/" + name.lstrip(b"/")
        if name == self._old or name.startswith(self._old + b"/"):
            return self._new + name[len(self._old) :]
        return name

    def __iter__(self) -> Iterator[Entry]:
        for entry in self._reader:
            entry.name = self._name(entry.name)
            if entry.type == b"1":
                entry.link = self._name(entry.link)
            yield entry


class _Wanted:
    """A tar reader that has nothing but what was asked for: the entry of one name, and what is below it."""

    def __init__(self, reader: TarReader, name: bytes) -> None:
        self._reader, self._wanted = reader, name
        self.data, self.moved = reader.data, reader.moved

    def __iter__(self) -> Iterator[Entry]:
        from sampan.archive.apply import clean, printable
        from sampan.archive.reader import InvalidArchive

        for entry in self._reader:
            name = clean(entry.name)
            if name != self._wanted and not name.startswith(self._wanted + b"/"):
                raise InvalidArchive(f"the daemon sent {printable(entry.name)!r}, which was not asked for")
            yield entry


def unpack(pieces: Iterable[bytes], source: Place, destination: Place) -> None:
    """Extract a stream of the source to the destination; files become the user's own. Raises CliError."""
    from sampan.archive.extract import OwnExtractor
    from sampan.archive.reader import InvalidArchive, TarReader
    from sampan.archive.source import Source, TruncatedArchive

    directory, name = arrange(source, destination)
    old = split(source.path)[1]
    name = name if name is not None else source.rename or None
    waiting = iter(pieces)
    try:
        root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            reader = TarReader(Source(lambda _: next(waiting, b""), hashed=False))
            # of a directory's content, or of all there is, every name is wanted
            wanted = reader if old in (".", "/") else _Wanted(reader, os.fsencode(old))
            named = wanted if name is None else _Renamed(wanted, os.fsencode(old), os.fsencode(name))
            with OwnExtractor(root, place=os.path.normpath(directory)) as extractor:
                extractor.apply(named)
        finally:
            os.close(root)
    except (InvalidArchive, TruncatedArchive) as error:
        raise CliError(str(error)) from None
    except OSError as error:
        raise _failure("open", os.fsdecode(error.filename) if error.filename else directory, error) from None
    for _ in waiting:  # what follows the archive's end
        pass
