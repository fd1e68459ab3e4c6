"""Record what a dockerd 28 makes of the builds in cases.py: python -m tests.golden.build.record SOCKET > docker28.json; review the diff."""

import json
import sys
from typing import Any

from sampan.daemon.teardown import UnixConnection
from tests.golden.build.cases import CASES
from tests.support.builds import BASE, Call, base_tar, build, taken_apart, without_ids

NAME = "golden-build"


def caller(path: str) -> Call:
    """Requests to the engine at a socket."""

    def call(method: str, target: str, body: bytes | None) -> tuple[int, bytes]:
        connection = UnixConnection(path, 120)
        try:
            connection.request(method, target, body, {"Content-Type": "application/x-tar"} if body is not None else {})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    return call


def prepare(call: Call) -> None:
    """Have the base image there."""
    status, answer = call("POST", f"/images/create?fromSrc=-&repo={BASE}&tag=latest", base_tar())
    assert status == 200, answer
    assert b"errorDetail" not in answer, answer


def answer(call: Call, name: str) -> dict[str, Any]:
    """What an engine makes of a case."""
    case = CASES[name]
    built = build(call, case.files, t=NAME, nocache=1, forcerm=1, **case.query)
    if built.status != 200:
        return {"message": built.message}
    found: dict[str, Any] = {"stream": without_ids(built.text), "code": built.code}
    if not built.error:
        status, archive = call("GET", f"/images/{NAME}/get", None)
        assert status == 200, archive
        found |= taken_apart(archive)
        call("DELETE", f"/images/{NAME}?force=1", None)
    return found


def main() -> None:
    """Entry point."""
    call = caller(sys.argv[1])
    prepare(call)
    json.dump({name: answer(call, name) for name in CASES}, sys.stdout, indent=1, sort_keys=True)
    call("DELETE", f"/images/{BASE}?force=1", None)


if __name__ == "__main__":
    main()
