"""Versions, the error table, the router, version-dependent shapes, the chunk decoder."""

import json

import pytest

from sampan import errors
from sampan.api import encode
from sampan.api.app import ROUTES
from sampan.api.errors import STATUS, status_of
from sampan.api.http import ChunkDecoder, HttpError
from sampan.api.router import Router
from sampan.api.routes.containers import normalise
from sampan.api.versions import split_version
from sampan.spec.docker_api.container import CreateRequest, HostConfig
from sampan.spec.docker_api.image import ImageSummary
from sampan.spec.docker_api.network import EndpointSettings, NetworkingConfig


def test_every_kind_of_error_has_a_status() -> None:
    assert {kind for kind in vars(errors).values() if isinstance(kind, type)} <= set(STATUS)
    assert status_of(errors.Conflict("x")) == 409
    assert status_of(ValueError("x")) == 500


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/info", ((1, 51), "/info")),
        ("/v1.24/info", ((1, 24), "/info")),
        ("/v1.51/volumes/v1/x", ((1, 51), "/volumes/v1/x")),
        ("/volumes", ((1, 51), "/volumes")),
        ("/version", ((1, 51), "/version")),
        ("/v1.4", ((1, 51), "/v1.4")),
    ],
)
def test_versions(path: str, expected: tuple[tuple[int, int], str]) -> None:
    assert split_version(path) == expected


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (
            "/v1.10/info",
            "client version 1.10 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version",
        ),
        ("/v1.99/info", "client version 1.99 is too new. Maximum supported API version is 1.51"),
        ("/v2/info", "client version 2 is too new. Maximum supported API version is 1.51"),
    ],
)
def test_versions_out_of_range(path: str, text: str) -> None:
    with pytest.raises(errors.InvalidArgument) as caught:
        split_version(path)
    assert caught.value.message == text


@pytest.mark.parametrize(
    ("method", "path", "expected", "variables"),
    [
        ("GET", "/images/a/b/json", "/images/{name:.*}/json", {"name": "a/b"}),
        ("GET", "/images/json", "/images/json", {}),
        ("GET", "/images/get", "/images/get", {}),
        ("DELETE", "/images/json", "/images/{name:.*}", {"name": "json"}),
        ("POST", "/images/localhost:5000/x/push", "/images/{name:.*}/push", {"name": "localhost:5000/x"}),
        ("GET", "/containers/x/json", "/containers/{id}/json", {"id": "x"}),
        ("GET", "/networks/", "/networks/", {}),
    ],
)
def test_routes(method: str, path: str, expected: str, variables: dict[str, str]) -> None:
    found = Router(ROUTES).find(method, path)
    assert found is not None
    assert (found[0].path, found[1]) == (expected, variables)


@pytest.mark.parametrize(
    ("method", "path"), [("PATCH", "/info"), ("GET", "/nope"), ("GET", "/containers/a/b/json"), ("GET", "/"), ("GET", "")]
)
def test_unknown_routes(method: str, path: str) -> None:
    assert Router(ROUTES).find(method, path) is None


def test_old_clients_image_list() -> None:
    untagged = ImageSummary(id="sha256:00", repo_tags=[], repo_digests=[], size=5, containers=2)
    new = json.loads(encode.image_summaries([untagged], (1, 51)))[0]
    assert (new["RepoTags"], new["Containers"], "VirtualSize" in new) == ([], 2, False)
    old = json.loads(encode.image_summaries([untagged], (1, 42)))[0]
    assert (old["RepoTags"], old["RepoDigests"], old["Containers"], old["VirtualSize"]) == (["<none>:<none>"], ["<none>@<none>"], -1, 5)


def test_create_bodies_are_normalised() -> None:
    host = HostConfig(pids_limit=0, memory_swappiness=-1, network_mode="default", kernel_memory=5)
    networking = NetworkingConfig(endpoints_config={"default": EndpointSettings(mac_address="a")})
    shown = normalise(CreateRequest(image="x", host_config=host, networking_config=networking), (1, 51))
    assert shown.host_config == HostConfig(network_mode="bridge")
    assert shown.networking_config == NetworkingConfig(endpoints_config={"bridge": EndpointSettings(mac_address="a")})
    old = normalise(CreateRequest(image="x", host_config=HostConfig(auto_remove=True)), (1, 24)).host_config
    assert old is not None
    assert (old.auto_remove, old.ipc_mode) == (False, "shareable")


@pytest.mark.parametrize("step", [1, 2, 3, 7, 100])
def test_chunks_cut_anywhere(step: int) -> None:
    wire = b"5\r\nhello\r\nA;x=y\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\nNEXT"
    decoder, payload, rest = ChunkDecoder(), b"", b""
    for place in range(0, len(wire), step):
        if decoder.complete:
            rest += wire[place : place + step]
            continue
        pieces, rest = decoder.feed(wire[place : place + step])
        payload += b"".join(pieces)
    assert (payload, rest, decoder.complete) == (b"hello0123456789", b"NEXT", True)


@pytest.mark.parametrize(
    "wire", [b"x\r\n", b"\r\n", b"-1\r\n", b"5\nhello", b"1\r\nab\r\n", b"0x1\r\n", b"1" * 5000, b"ffffffffffffffffff\r\n"]
)
def test_bad_chunks(wire: bytes) -> None:
    with pytest.raises(HttpError):
        ChunkDecoder().feed(wire)
