"""docker search, asked by docker's client and ours of an index that is played."""

import json
import urllib.parse

import pytest

from tests.support.engine import Engine
from tests.support.faultyregistry import FaultyRegistry
from tests.support.registries import Docker

pytestmark = pytest.mark.root

LONG = "A description that goes on\nfor more than the forty-five columns it is given"
FOUND = [
    {"name": "team/few", "description": LONG, "star_count": 3, "is_official": False, "is_automated": False},
    {"name": "many", "description": "", "star_count": 1200, "is_official": True, "is_automated": False},
]


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ([], ["team/few", "many"]),
        (["--no-trunc"], ["team/few", "many"]),
        (["--filter", "stars=10"], ["many"]),
        (["--filter", "is-official=false"], ["team/few"]),
        (["--filter", "is-automated=1"], []),
        (["--format", "json"], None),
        (["--format", "{{.Name}} {{.IsOfficial}}"], ["team/few", "many"]),
        (["--limit", "7"], ["team/few", "many"]),
    ],
)
def test_both_clients_show_the_same(
    engine: Engine, docker: Docker, registry: FaultyRegistry, options: list[str], names: list[str] | None
) -> None:
    registry.refuse = (200, {}, json.dumps({"num_results": 2, "query": "app", "results": FOUND}).encode())
    theirs, ours = (run("search", *options, f"{registry.host}/app") for run in (docker, engine.cli))
    assert (ours.returncode, ours.stdout) == (theirs.returncode, theirs.stdout) == (0, ours.stdout), ours.stderr
    if names is not None:
        assert [line.split()[0] for line in ours.stdout.splitlines() if not line.startswith("NAME")] == names
    assert f"GET /v1/search?q=app&n={7 if '--limit' in options else 25}" in registry.requests


@pytest.mark.parametrize(
    ("query", "status", "message"),
    [
        ({"term": "a", "limit": "1000"}, 400, "limit 1000 is outside the range of [1, 100]"),
        ({"term": "a", "limit": "x"}, 400, 'invalid limit specified: strconv.Atoi: parsing "x": invalid syntax'),
        ({"term": "a", "filters": '{"foo":["x"]}'}, 400, "invalid filter 'foo'"),
        ({"term": "a", "filters": '{"is-official":["x"]}'}, 400, "invalid filter 'is-official=[x]'"),
        ({"term": "a", "filters": '{"stars":["x"]}'}, 400, "invalid filter 'stars=x': strconv.Atoi: parsing \"x\": invalid syntax"),
        ({"term": "https://x"}, 400, "invalid repository name: repository name (https://x) should not have a scheme"),
        (
            {"term": "127.0.0.1:1/foo"},
            400,
            'invalid registry endpoint "http://127.0.0.1:1/v1/". '
            'HTTPS attempt: Get "https://127.0.0.1:1/v1/_ping": dial tcp 127.0.0.1:1: connect: connection refused. '
            'HTTP attempt: Get "http://127.0.0.1:1/v1/_ping": dial tcp 127.0.0.1:1: connect: connection refused',
        ),
    ],
)
def test_what_docker_refuses(engine: Engine, query: dict[str, str], status: int, message: str) -> None:
    """Words of dockerd 28.5."""
    found = engine.request("GET", "/v1.50/images/search?" + urllib.parse.urlencode(query))
    assert found == (status, {"message": message})


def test_an_index_that_is_none(engine: Engine, docker: Docker, registry: FaultyRegistry) -> None:
    registry.refuse = (404, {}, b"")
    assert "Unexpected status code 404" in docker("search", f"{registry.host}/app").stderr
    registry.refuse = (200, {}, b"<html>")
    assert "error decoding registry search results" in docker("search", f"{registry.host}/app").stderr
