"""Which execs an engine knows, as dockerd 28 asked by hand."""

import subprocess
from collections.abc import Callable

import pytest

from tests.support.engine import Engine

pytestmark = pytest.mark.root


def test_execs_of_a_container_that_ends(engine: Engine, docker: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    assert docker("run", "-d", "--network=none", "--name", "records", "busybox", "sleep", "1000").returncode == 0
    made = [engine.request("POST", "/containers/records/exec", {"Cmd": [name]})[1]["Id"] for name in ("true", "nothere")]
    never, failing = made
    assert set(engine.request("GET", "/containers/records/json")[1]["ExecIDs"]) == set(made)
    assert engine.request("POST", f"/exec/{failing}/start", {"Detach": True})[0] == 400
    assert engine.request("GET", "/containers/records/json")[1]["ExecIDs"] == [never]
    status, answer = engine.request("POST", f"/exec/{failing}/start", {"Detach": True})
    assert (status, answer["message"]) == (409, f"exec command {failing} has already run")
    lasting = engine.request("POST", "/containers/records/exec", {"Cmd": ["sleep", "1000"]})[1]["Id"]
    assert engine.request("POST", f"/exec/{lasting}/start", {"Detach": True})[0] == 200
    status, answer = engine.request("POST", f"/exec/{lasting}/start", {"Detach": True})
    assert (status, answer["message"]) == (409, f"exec command {lasting} is already running")
    docker("kill", "records")
    docker("wait", "records")
    assert not engine.request("GET", "/containers/records/json")[1]["ExecIDs"]
    status, answer = engine.request("GET", f"/exec/{never}/json")
    assert (status, answer["message"]) == (404, f"No such exec instance: {never}")
    assert engine.request("GET", f"/exec/{failing}/json")[1]["ExitCode"] == 127
    docker("rm", "records")
    assert engine.request("GET", f"/exec/{failing}/json")[0] == 404
