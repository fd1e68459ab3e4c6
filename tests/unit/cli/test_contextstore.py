"""Stored contexts: what is left of one that was cut short, hostile archives, and the daemon that a context leads to."""

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from sampan.cli import connect, contextfile
from sampan.cli.contextstore import ContextStore
from sampan.cli.flags import Parsed, parse
from sampan.cli.http import CliError
from sampan.cli.main import GLOBAL_FLAGS

META = b'{"Metadata":{"Description":"d"},"Endpoints":{"docker":{"Host":"unix:///x.sock"}}}'


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Parsed:
    """The global options, with a configuration directory of their own."""
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT"):
        monkeypatch.delenv(name, raising=False)
    connect._loaded.clear()
    return parse(GLOBAL_FLAGS, ["--config", str(tmp_path)])


def tar(entries: dict[str, bytes]) -> bytes:
    """A tar of files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in entries.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def test_a_context_leads_to_its_daemon(options: Parsed) -> None:
    store = ContextStore(options)
    contextfile.imported(store, "far", io.BytesIO(tar({"meta.json": META})))
    options.values["context"] = "far"
    assert connect.make_client(options).host.path == "/x.sock"


def test_a_zip_is_imported(options: Parsed) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("meta.json", META)
        archive.writestr("tls/docker/ca.pem", b"ca")
    store = ContextStore(options)
    contextfile.imported(store, "zipped", io.BytesIO(out.getvalue()))
    assert store.get("zipped")["Endpoints"] == {"docker": {"Host": "unix:///x.sock", "SkipTLSVerify": False}}
    assert store.tls_files("zipped") == {"docker": ["ca.pem"]}


def test_tls_files_of_a_removal_that_was_cut_short_are_not_taken_over(options: Parsed) -> None:
    store = ContextStore(options)
    contextfile.imported(store, "one", io.BytesIO(tar({"meta.json": META, "tls/docker/key.pem": b"old"})))
    (Path(store.places("one")[0]) / "meta.json").unlink()
    contextfile.imported(store, "one", io.BytesIO(tar({"meta.json": META})))
    assert store.tls_files("one") == {}


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"meta.json": META, "tls/../../x": b""}, "tls/../../x: unexpected path format"),
        ({"meta.json": META, "tls/a/b/c": b""}, "archived file directory is not in correct format"),
        ({"meta.json": META, "tls/a": b""}, "archived file directory is not in correct format"),
        ({"meta.json": META, "tls/a\\b/c": b""}, "tls/a\\b/c: unexpected '\\' in path"),
        ({"meta.json": META, "etc/passwd": b""}, "etc/passwd: unexpected context file"),
        ({"tls/docker/ca.pem": b""}, "invalid context: no metadata found"),
        ({"meta.json": b"[]"}, "json: cannot unmarshal into Go value of type store.Metadata"),
        ({"meta.json": META, "tls/docker/big": bytes(11 << 20)}, "read exceeds the defined limit"),
    ],
    ids=["above", "deep", "flat", "backslash", "elsewhere", "empty", "list", "large"],
)
def test_a_hostile_archive_is_refused_and_leaves_nothing(options: Parsed, tmp_path: Path, entries: dict[str, bytes], message: str) -> None:
    with pytest.raises(CliError) as failed:
        contextfile.imported(ContextStore(options), "bad", io.BytesIO(tar(entries)))
    assert failed.value.message == message
    assert list(tmp_path.iterdir()) == []


def test_a_bomb_is_not_unpacked(options: Parsed) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("tls/docker/ca.pem", bytes(64 << 20))
    with pytest.raises(CliError, match="exceeds the defined limit"):
        contextfile.imported(ContextStore(options), "bad", io.BytesIO(out.getvalue()))
    sparse = tarfile.TarInfo("tls/docker/ca.pem")
    sparse.pax_headers = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.map": "0,0", "GNU.sparse.size": str(1 << 40)}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tarred:
        tarred.addfile(sparse)
    with pytest.raises(CliError, match="exceeds the defined limit"):
        contextfile.imported(ContextStore(options), "bad", io.BytesIO(out.getvalue()))


def entry(kind: bytes, content: bytes = b"", name: str = "tls/docker/ca.pem") -> bytes:
    """A header, with what it is of."""
    header = tarfile.TarInfo(name)
    header.type, header.size = kind, len(content)
    return header.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % 512)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (entry(tarfile.XHDTYPE) * 3000, "more than 32 extended headers before an entry"),
        (entry(tarfile.GNUTYPE_LONGNAME) * 3000, "more than 32 extended headers before an entry"),
        (entry(tarfile.XHDTYPE, b"24 GNU.sparse.map=a,bcd\n") + entry(tarfile.REGTYPE), "archive/tar: invalid tar header"),
        (entry(tarfile.XHDTYPE, b"29 path=tls/docker/ca.pem\0.x\n") + entry(tarfile.REGTYPE), "archive/tar: invalid tar header"),
        (entry(tarfile.REGTYPE, b'{"Metadata":' + b"[" * 100_000, "meta.json"), "exceeded max depth"),
        (entry(tarfile.REGTYPE, b'{"Metadata":{"a":' + b"[" * 600 + b"]" * 600 + b"}}", "meta.json"), "exceeded max depth"),
    ],
    ids=["pax headers", "long names", "sparse map", "NUL", "deep", "not so deep"],
)
def test_a_malformed_archive_is_refused_and_leaves_nothing(options: Parsed, tmp_path: Path, raw: bytes, message: str) -> None:
    with pytest.raises(CliError) as failed:
        contextfile.imported(ContextStore(options), "bad", io.BytesIO(raw))
    assert failed.value.message == message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("method", "place"), [(zipfile.ZIP_BZIP2, 39), (zipfile.ZIP_LZMA, 43)])
def test_a_zip_with_broken_content_is_refused(options: Parsed, tmp_path: Path, method: int, place: int) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        archive.writestr("meta.json", META)
    raw = bytearray(out.getvalue())
    raw[place] ^= 0xFF
    with pytest.raises(CliError, match="not a valid zip file"):
        contextfile.imported(ContextStore(options), "bad", io.BytesIO(raw))
    assert list(tmp_path.iterdir()) == []


def test_a_config_json_that_cannot_be_read_is_not_written_over(options: Parsed, tmp_path: Path) -> None:
    from sampan.cli.commands.context_use import set_current
    from sampan.cli.main import Context

    (tmp_path / "config.json").write_text('{"auths": {')
    with pytest.raises(CliError, match="is left as it is"):
        set_current(Context(options), "x")
    assert (tmp_path / "config.json").read_text() == '{"auths": {'
