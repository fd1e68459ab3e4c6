"""Commands against what the docker 28.2 client prints for the same answers of a daemon (recorded by record.py)."""

import contextlib
import io
import json
import shlex
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sampan.cli import main as program
from tests.golden.cli.stub import Stub

RESULTS = json.loads(Path(__file__).with_name("results.json").read_text())


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The stub daemon's address."""
    path = str(tmp_path_factory.mktemp("stub") / "docker.sock")
    with Stub(path) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"unix://{path}"
        server.shutdown()


@pytest.mark.parametrize("case", RESULTS, ids=lambda case: case["command"][:60])
def test_same_as_docker(case: dict[str, Any], host: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Output, messages and exit code are docker's, with our name for docker's."""
    monkeypatch.setattr(time, "time_ns", lambda: case["now"])
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = program.main(["--config", str(tmp_path), "-H", host, *shlex.split(case["command"])])
    assert (code, out.getvalue()) == (case["exit"], case["stdout"])
    assert err.getvalue().replace("sampan", "docker") == case["stderr"].replace("/root/.docker", str(tmp_path))
