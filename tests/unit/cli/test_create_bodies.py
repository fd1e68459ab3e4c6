"""`sampan create` sends and refuses what docker's CLI sends and refuses: compared with a recording of docker 28.2 (tests/golden/cli)."""

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from sampan.cli.main import main
from tests.golden.cli.record_create import FILES, GOLDEN, HOST, Stub, said, serving

CASES: list[dict[str, Any]] = json.loads(GOLDEN.read_text())


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    path = tmp_path_factory.mktemp("stub") / "stub.sock"
    with serving(path, Stub):
        yield str(path)


def normal(body: dict[str, Any]) -> dict[str, Any]:
    """The body without the order that Go's maps shuffle."""
    host = body["HostConfig"]
    return {**body, "Env": sorted(body["Env"] or ()), "HostConfig": {**host, "Binds": sorted(host["Binds"] or ())}}


def query(path: str) -> dict[str, list[str]]:
    return parse_qs(urlsplit(path).query)


@pytest.mark.parametrize("case", CASES, ids=[f"{case['api']} {case['arguments']}" for case in CASES])
def test_sends_what_docker_sends(
    case: dict[str, Any], stub: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{stub}")
    for name, value in HOST.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MISSING", raising=False)
    monkeypatch.chdir(FILES)
    monkeypatch.setattr(Stub, "version", case["api"])
    Stub.seen.clear()
    code = main([f"--config={tmp_path}", "create", *shlex.split(case["arguments"])])
    stderr = capsys.readouterr().err
    if "message" in case:
        message = said(stderr)
        expected = case["message"].replace("docker: ", "sampan: ", 1) if case["message"].startswith("docker: ") else case["message"]
        assert (message, code) == (expected, case["code"])
        assert not Stub.seen
        return
    assert (code, len(Stub.seen)) == (0, 1), stderr
    sent = json.loads(json.dumps(Stub.seen[0]).replace(stub, "/stub.sock"))
    assert query(sent["path"]) == query(case["path"])
    assert normal(sent["body"]) == normal(case["body"])
