"""Steps that are told apart though docker's hashes of their files are the same: what one build leaves in the cache is no other's."""

import http.server
import threading
import uuid
from functools import partial
from pathlib import Path

import pytest

from tests.golden.build.record import caller
from tests.integration.build.conftest import Build
from tests.support.builds import Content, build, context, packed
from tests.support.engine import Engine

GOOD, EVIL = "echo good\n", "echo evil\n"
CONTEXTS: dict[str, tuple[dict[str, Content], dict[str, Content]]] = {
    "written through a symlink": (
        {"e/f": GOOD, "d": {"link": "e"}, "d/f": EVIL},
        {"e/f": GOOD},
    ),
    "hard links": (
        {"e/a": EVIL, "e/f": {"hard": "e/a", "mode": 0o644}},
        {"e/a": GOOD, "e/f": {"hard": "e/a", "mode": 0o644}},
    ),
    "a hard link that comes first": (
        {"e/f": {"hard": "e/a", "mode": 0o644}, "e/a": EVIL},
        {"e/f": {"hard": "e/a", "mode": 0o644}, "e/a": GOOD},
    ),
    "what a hard link says of its file": (
        {"e/f": GOOD, "e/z": {"hard": "e/f", "mode": 0o666, "uid": 7}},
        {"e/f": GOOD},
    ),
    "what a link to a link says": (
        {"e/f": GOOD, "e/z": {"hard": "e/f", "mode": 0o644}, "e/y": {"hard": "e/z", "mode": 0o600}},
        {"e/f": GOOD, "e/z": {"hard": "e/f", "mode": 0o644}, "e/y": {"hard": "e/z", "mode": 0o644}},
    ),
}


@pytest.mark.parametrize("name", CONTEXTS)
@pytest.mark.parametrize("bulk", [0, 1200], ids=["few", "many"])
def test_files_with_one_hash(run_build: Build, name: str, bulk: int) -> None:
    mark = uuid.uuid4().hex
    text = f"FROM buildbase\nLABEL mark={mark}\nCOPY e/f /f\nRUN cat /f; stat -c %a /f\n"
    padding: dict[str, Content] = {f"more/{number}": "" for number in range(bulk)}
    first, second = (run_build(text, {**files, **padding}) for files in CONTEXTS[name])
    assert first.error == second.error == ""
    assert first.image != second.image


def test_excluded(run_build: Build) -> None:
    mark = uuid.uuid4().hex
    files: dict[str, Content] = {"e/a": "", "e/b": "", "e/c": ""}
    text = f"FROM buildbase\nLABEL mark={mark}\nCOPY --exclude=%s e /e\n"
    first, second = (run_build(text % patterns, files) for patterns in ('"a --exclude=b"', "a --exclude=b"))
    assert first.error == second.error == ""
    assert first.image != second.image


def test_attributes_of_a_stages_files(run_build: Build, engine: Engine) -> None:
    mark = uuid.uuid4().hex

    def built(value: bytes) -> str:
        files: dict[str, Content] = {"e/f": {"data": "x", "pax": {"SCHILY.xattr.user.a": value.decode()}}, "e": None}
        text = f"FROM buildbase AS one\nCOPY e /e\nFROM buildbase\nLABEL mark={mark}\nCOPY --from=one /e /e\n"
        done = build(caller(engine.socket), context({"Dockerfile": text, **files}))
        assert done.error == ""
        return done.image

    assert built(b"1") != built(b"2")


def test_an_archive_of_a_url_and_one_of_the_context(run_build: Build, tmp_path: Path) -> None:
    mark = uuid.uuid4().hex
    data = packed({"inside": "1"})
    (tmp_path / "a.tar").write_bytes(data)
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        first, second = (
            run_build(f"FROM buildbase\nLABEL mark={mark}\nADD {source} /d/\n", {"a.tar": {"data": data, "mode": 0o600}})
            for source in (f"{url}/a.tar", "a.tar")
        )
        server.shutdown()
    assert first.error == second.error == ""
    assert first.image != second.image
