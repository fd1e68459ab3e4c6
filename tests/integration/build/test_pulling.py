"""FROM and COPY --from of images that are not here: pulled within the build, as its user."""

import base64
import json
from collections.abc import Iterator

import pytest

from tests.golden.build.record import caller
from tests.support.builds import Built, context
from tests.support.engine import Engine
from tests.support.faultyregistry import FaultyRegistry
from tests.support.imagetars import base_layer, config
from tests.support.tars import tar

pytestmark = pytest.mark.root


@pytest.fixture
def registry(engine: Engine) -> Iterator[FaultyRegistry]:
    """Has `base:1`, which can run, and `files:1`, which has a file, for one user only."""
    registry = FaultyRegistry()
    base, files = base_layer(engine), tar(("f", "pulled", "from a registry\n"))
    registry.add("base", "1", config(base), [base])
    registry.add("files", "1", config(files), [files])
    registry.login = ("joe", "secret")
    yield registry
    registry.close()
    for name in ("base", "files"):
        engine.request("DELETE", f"/images/{registry.host}/{name}:1?force=1")


def run(engine: Engine, text: str, credentials: dict[str, object], query: str = "") -> Built:
    """A build by a user."""
    header = base64.urlsafe_b64encode(json.dumps(credentials).encode()).decode()
    headers = {"Content-Type": "application/x-tar", "X-Registry-Config": header}
    status, body = engine.request("POST", f"/build?nocache=1&{query}", context({"Dockerfile": text}), headers)
    return Built(status, body if isinstance(body, bytes) else json.dumps(body).encode())


def test_bases_are_pulled_by_who_builds(engine: Engine, registry: FaultyRegistry) -> None:
    text = f"FROM {registry.host}/base:1\nCOPY --from={registry.host}/files:1 /pulled /p\nRUN cat /p\n"
    refused = run(engine, text, {})
    assert refused.error
    assert "Step 1/3" in refused.text
    joe = {registry.host: {"username": "joe", "password": "secret"}}
    built = run(engine, text, joe)
    assert built.error == ""
    assert "from a registry\n" in built.text
    statuses = [line.get("status", "") for line in built.lines]
    assert statuses.count("Pulling from base") == 1
    assert any(status.startswith("Status: Downloaded newer image") for status in statuses)
    asked = len(registry.requests)
    again = run(engine, text, joe)
    assert "from a registry\n" in again.text
    assert len(registry.requests) == asked
    pulled = run(engine, text, joe, "pull=1")
    assert any(line.get("status", "").startswith("Status: Image is up to date") for line in pulled.lines)


def test_a_base_for_another_platform(engine: Engine, registry: FaultyRegistry) -> None:
    joe = {registry.host: {"username": "joe", "password": "secret"}}
    built = run(engine, f"FROM --platform=linux/s390x {registry.host}/base:1\n", joe)
    said = built.error or next(line["status"] for line in built.lines if line.get("status", "").startswith("WARNING"))
    assert "(linux/amd64) does not match the specified platform (linux/s390x)" in said, built.lines
    assert caller(engine.socket)("GET", "/_ping", None)[0] == 200
