"""Contexts as one file, as `docker context export` writes them: a tar of meta.json and tls/ENDPOINT/FILE; a zip is read too."""

from __future__ import annotations

import io
import os

from sampan.cli import fastjson
from sampan.cli.http import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from sampan.cli.contextstore import ContextStore, Document

_MAX = 10 << 20
_META = "meta.json"


def exported(store: ContextStore, name: str) -> bytes:
    """The tar of a context. Raises CliError."""
    import tarfile

    from sampan.cli.format import gojson, schema

    out = io.BytesIO()
    text = gojson.dumps(schema.decode("store.Metadata", store.get(name)), html=True)
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:

        def add(path: str, content: bytes | None, mode: int) -> None:
            entry = tarfile.TarInfo(path)
            entry.mode = mode
            entry.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
            entry.size = len(content or b"")
            archive.addfile(entry, io.BytesIO(content or b""))

        add(_META, text.encode(), 0o644)
        add("tls", None, 0o700)
        for endpoint, files in store.tls_files(name).items():
            add(f"tls/{endpoint}", None, 0o700)
            for file in files:
                with open(store.tls_path(name, endpoint, file), "rb") as source:
                    add(f"tls/{endpoint}/{file}", source.read(), 0o600)
    return out.getvalue()


def imported(store: ContextStore, name: str, source: BinaryIO) -> None:
    """Make a context of a file, all of it or nothing. Raises CliError."""
    raw = source.read(_MAX + 1)
    if len(raw) > _MAX:
        raise CliError("read exceeds the defined limit")
    document: Document | None = None
    files: dict[str, dict[str, bytes]] = {}
    for path, content in _zip(raw) if raw.startswith(b"PK\x03\x04") else _tar(raw):
        _check_path(path)
        if path == _META:
            document = _parsed(content, name)
            continue
        endpoint, slash, file = path.removeprefix("tls/").partition("/")
        if not slash or "/" in file:
            raise CliError("archived file directory is not in correct format")
        files.setdefault(endpoint, {})[file] = content
    if document is None:
        raise CliError("invalid context: no metadata found")
    try:
        store.save(document, files)
    except RecursionError:  # writing takes more of the stack than reading
        raise CliError("exceeded max depth") from None


def _check_path(path: str) -> None:
    if path != _META and not path.startswith("tls/"):
        raise CliError(f"{path}: unexpected context file")
    if os.path.normpath(path) != path:
        raise CliError(f"{path}: unexpected path format")
    if "\\" in path:
        raise CliError(f"{path}: unexpected '\\' in path")


def _parsed(content: bytes, name: str) -> Document:
    try:
        meta = fastjson.loads(content)
    except ValueError as error:
        raise CliError(str(error)) from None
    if not isinstance(meta, dict) or not all(isinstance(meta.get(key) or {}, dict) for key in ("Metadata", "Endpoints")):
        raise CliError("json: cannot unmarshal into Go value of type store.Metadata")
    return {"Name": name, "Metadata": meta.get("Metadata"), "Endpoints": meta.get("Endpoints") or {}}


def _tar(raw: bytes) -> Iterator[tuple[str, bytes]]:
    from sampan.archive.reader import REGULAR, InvalidArchive, TarReader
    from sampan.archive.source import Source, TruncatedArchive

    left = _MAX
    reader = TarReader(Source(io.BytesIO(raw).read, hashed=False))
    try:
        for entry in reader:
            if entry.type != REGULAR:
                continue
            left -= entry.size  # a sparse file may claim more than there is
            if left < 0:
                raise CliError("read exceeds the defined limit")
            if entry.sparse is not None:
                raise CliError("archive/tar: invalid tar header")  # docker writes none
            yield os.fsdecode(entry.name), b"".join(reader.data())
    except (InvalidArchive, TruncatedArchive) as error:
        raise CliError(str(error)) from None


def _zip(raw: bytes) -> Iterator[tuple[str, bytes]]:
    import lzma
    import zipfile
    import zlib

    left = _MAX
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            for entry in archive.infolist():
                if entry.is_dir():
                    continue
                with archive.open(entry) as file:
                    content = file.read(left + 1)
                left -= len(content)
                if left < 0:
                    raise CliError("read exceeds the defined limit")
                yield entry.filename, content
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, OSError, ValueError, EOFError, NotImplementedError, RuntimeError):
        raise CliError("zip: not a valid zip file") from None
