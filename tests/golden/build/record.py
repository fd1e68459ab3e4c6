"""Record what an engine makes of the builds in cases.py; review the diff.

python -m tests.golden.build.record SOCKET > docker28.json         of a dockerd 28
python -m tests.golden.build.record SOCKET ours > sampan.json      of Sampan, where it differs from that on purpose
python -m tests.golden.build.record SOCKET requests > requests28.json   of a dockerd 28, to requests.py
"""

import json
import sys
from typing import Any

from sampan.daemon.teardown import UnixConnection
from tests.golden.build.cases import CASES
from tests.golden.build.requests import REQUESTS, answer_of_request
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
    query = {"t": NAME, "forcerm": 1, "networkmode": "none", **case.query}
    built = build(call, case.files, nocache=1, **query)
    if case.again:
        built = build(call, case.files, **query)
    if built.status != 200:
        return {"message": without_ids(built.message)}
    found: dict[str, Any] = {"stream": without_ids(built.text).splitlines(), "code": built.code}
    if not built.error:
        found |= _image(call)
    if not query["forcerm"]:
        _remove_containers(call)
    return found


def _remove_containers(call: Call) -> None:
    """Those of steps that the case has kept."""
    listed = json.loads(call("GET", f'/containers/json?all=1&filters={{"ancestor":["{BASE}"]}}', None)[1])
    for container in listed:
        call("DELETE", f"/containers/{container['Id']}?force=1", None)


def _image(call: Call) -> dict[str, Any]:
    status, told = call("GET", f"/images/{NAME}/json", None)
    assert status == 200, told
    status, archive = call("GET", f"/images/{NAME}/get", None)
    call("DELETE", f"/images/{NAME}?force=1", None)
    if status != 200:  # an image without layers
        return {"config": json.loads(told)["Config"]}
    return taken_apart(archive, json.loads(told)["Parent"])


def clean_up(call: Call) -> None:
    """Remove the base image, and what stages without a name have left on it."""
    status, base = call("GET", f"/images/{BASE}/json", None)
    if status != 200:
        return
    _remove_containers(call)
    layer = json.loads(base)["RootFS"]["Layers"][0]
    listed = json.loads(call("GET", '/images/json?filters={"dangling":["true"]}', None)[1])
    for image in (one["Id"] for one in listed):
        status, found = call("GET", f"/images/{image}/json", None)
        if status == 200 and layer in (json.loads(found)["RootFS"].get("Layers") or ()):
            call("DELETE", f"/images/{image}", None)
    call("DELETE", f"/images/{BASE}?force=1", None)


def main() -> None:
    """Entry point."""
    call = caller(sys.argv[1])
    prepare(call)
    if sys.argv[2:] == ["requests"]:
        found = {name: answer_of_request(call, name) for name in REQUESTS}
    else:
        names = [name for name, case in CASES.items() if case.why] if sys.argv[2:] == ["ours"] else CASES
        found = {name: answer(call, name) for name in names}
    json.dump(found, sys.stdout, indent=1, sort_keys=True)
    clean_up(call)


if __name__ == "__main__":
    main()
