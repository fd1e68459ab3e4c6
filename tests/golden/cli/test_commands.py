"""Commands against what the docker 28.2 client prints for the same answers of a daemon (recorded by record.py)."""

import contextlib
import io
import json
import os
import shlex
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sampan.cli import main as program
from sampan.cli.format import imagetree
from tests.golden.cli.stub import Stub

RESULTS = json.loads(Path(__file__).with_name("results.json").read_text())
TREES = json.loads(Path(__file__).with_name("tree_terminal.json").read_text())


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stub]:
    """The stub daemon, serving."""
    with Stub(str(tmp_path_factory.mktemp("stub") / "docker.sock")) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.mark.parametrize("case", RESULTS, ids=lambda case: case["command"][:60])
def test_same_as_docker(case: dict[str, Any], stub: Stub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is asked of the daemon, output, messages and exit code are docker's, with our name for docker's."""
    monkeypatch.setattr(time, "time_ns", lambda: case["now"])
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    monkeypatch.setenv("DOCKER_API_VERSION", "1.50")
    (tmp_path / "tar").write_text("content")
    empty = os.open("/dev/null", os.O_RDONLY)
    saved = os.dup(0)
    os.dup2(empty, 0)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO()))
    stub.log.clear()
    out, err = io.StringIO(), io.StringIO()
    words = shlex.split(case["command"].replace("FOLDER", str(tmp_path)))
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = program.main(["--config", str(tmp_path), "-H", f"unix://{stub.server_address}", *words])
    finally:
        os.dup2(saved, 0)
        os.close(saved)
        os.close(empty)
    assert stub.log == case["requests"]
    assert (code, out.getvalue()) == (case["exit"], case["stdout"])
    messages = err.getvalue().replace(str(tmp_path), "FOLDER").replace("sampan", "docker")
    assert messages == case["stderr"].replace("/root/.docker", "FOLDER")


@pytest.mark.parametrize("columns", TREES)
def test_a_tree_on_a_terminal(columns: str) -> None:
    images = json.loads(Path(__file__).with_name("api.json").read_text())["/images/json"]
    assert imagetree.render(images, all=True, columns=int(columns), is_terminal=True) == TREES[columns]
