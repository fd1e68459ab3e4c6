"""Pulling through `sampan registry serve`: several upstreams beside local pushes, one fetch for many, stale copies, a bounded cache."""

import contextlib
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from sampan.registry import paths
from sampan.spec.oci_layout import CONFIG, LAYER
from sampan.spec.oci_layout import INDEX as OCI_INDEX
from sampan.spec.oci_layout import MANIFEST as OCI_MANIFEST
from tests.support.faultyregistry import MANIFEST, FaultyRegistry
from tests.support.registryprogram import RegistryProgram
from tests.support.registryserver import Client, descriptor, digest_of

CACHE_BYTES = 3_000_000


class World(NamedTuple):
    program: RegistryProgram
    hub: FaultyRegistry
    other: FaultyRegistry


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Docker Hub, the default; another registry whose tags are taken for fresh; one that wants a password."""
    directory = tmp_path_factory.mktemp("mirror")
    hub, other = FaultyRegistry(), FaultyRegistry()
    other.login = ("robot", "secret")
    (directory / "password").write_text("secret\n")
    settings = {
        "mirrors": {
            "docker.io": {"url": f"http://{hub.host}", "default": True, "fresh-seconds": 0},
            "other.example": {"url": f"http://{other.host}", "username": "robot", "password-file": str(directory / "password")},
        },
        "cache-bytes": CACHE_BYTES,
    }
    program = RegistryProgram(directory, settings=settings)
    yield World(program, hub, other)
    program.close()
    hub.close()
    other.close()


@pytest.fixture
def client(world: World) -> Iterator[Client]:
    client = Client(world.program.host)
    yield client
    client.close()


def blob_of(upstream: FaultyRegistry, path: str, size: int = 1000) -> bytes:
    """A blob that a repository of the upstream has."""
    data = os.urandom(size)
    upstream.blobs[digest_of(data)] = data
    upstream.held.setdefault(path, set()).add(digest_of(data))
    return data


def bytes_below(directory: Path) -> int:
    """Of all content, some of which may go meanwhile."""
    total = 0
    for parent, _, files in os.walk(directory):
        for file in files:
            with contextlib.suppress(FileNotFoundError):
                total += os.stat(f"{parent}/{file}").st_size
    return total


@pytest.mark.parametrize(
    ("path", "query"),
    [("busybox", {}), ("library/busybox", {"ns": "docker.io"}), ("docker.io/busybox", {}), ("docker.io/library/busybox", {})],
)
def test_the_hub_by_all_its_names(world: World, client: Client, path: str, query: dict[str, str]) -> None:
    digest = world.hub.add("library/busybox", "1", b"{}", [b"layer"])
    by_tag = client("GET", f"{path}/manifests/1", **query)
    assert (by_tag.status, by_tag.headers["Docker-Content-Digest"]) == (200, digest)
    assert by_tag.headers.get("OCI-Namespace") == query.get("ns")
    assert client("HEAD", f"{path}/manifests/{digest}", **query).headers["Docker-Content-Digest"] == digest
    assert client("GET", f"{path}/blobs/{digest_of(b'layer')}", **query).body == b"layer"
    assert client("GET", f"{path}/tags/list", **query).json["tags"] == ["1"]
    assert client("GET", f"{path}/referrers/{digest}", **query).json["manifests"] == []


def test_a_registry_that_wants_a_password(world: World, client: Client) -> None:
    digest = world.other.add("team/app", "1", b"{}", [b"private"])
    assert client("GET", "other.example/team/app/manifests/1").headers["Docker-Content-Digest"] == digest
    asked = len(world.other.requests)
    assert client("GET", "team/app/manifests/1", ns="other.example").status == 200
    assert len(world.other.requests) == asked  # a tag is fresh for a minute
    assert client("GET", f"team/app/blobs/{digest_of(b'private')}", ns="other.example").body == b"private"


def test_registries_that_are_not_mirrored(client: Client) -> None:
    assert client("GET", "elsewhere/app/manifests/1", ns="elsewhere.example").code == "NAME_UNKNOWN"
    pushed = client.push_image("elsewhere/app", "1")  # by hand, where nothing can be fetched
    assert client("GET", "elsewhere/app/manifests/1", ns="elsewhere.example").body == pushed


def test_local_repositories_come_first_and_mirrored_ones_cannot_be_pushed_to(world: World, client: Client) -> None:
    world.hub.add("team/mine", "1", b"{}", [b"theirs"])
    mine = client.push_image("team/mine", "1")
    assert client("GET", "team/mine/manifests/1").body == mine
    assert client("GET", "team/mine/manifests/1", ns="docker.io").body != mine
    reply = client("POST", "docker.io/team/mine/blobs/uploads/")
    assert (reply.status, reply.code) == (405, "UNSUPPORTED")
    assert client("DELETE", "docker.io/team/mine/manifests/1").status == 405


def test_a_push_to_a_new_repository_is_none_of_the_default_s_business(world: World, client: Client) -> None:
    theirs = blob_of(world.hub, "team/new")
    asked = len(world.hub.requests)
    assert client("HEAD", f"team/new/blobs/{digest_of(theirs)}").status == 404  # it is not here, and would be missing
    location = client("PATCH", client.begin("team/new"), b"01234").headers["Location"]
    reply = client("GET", location)
    assert (reply.status, reply.headers["Range"]) == (204, "0-4")
    assert client("PUT", location, b"56789", digest=digest_of(b"0123456789")).status == 201
    assert client("GET", f"team/new/blobs/{digest_of(b'0123456789')}").body == b"0123456789"
    assert client("HEAD", f"team/new/blobs/{digest_of(b'0123456789')}").status == 200
    assert len(world.hub.requests) == asked


def test_a_repository_without_a_manifest_hides_no_mirrored_one(world: World, client: Client) -> None:
    digest = world.hub.add("library/shadowed", "1", b"{}", [b"shadowed layer"])
    client.push_blob("library/shadowed", b"a stray blob")
    assert client("GET", "library/shadowed/manifests/1").headers["Docker-Content-Digest"] == digest
    assert client("GET", f"library/shadowed/blobs/{digest_of(b'shadowed layer')}").body == b"shadowed layer"
    assert client("GET", f"library/shadowed/blobs/{digest_of(b'a stray blob')}").body == b"a stray blob"


@pytest.mark.parametrize("name", ["team/missing", "docker.io/library/busybox"])
def test_pages_show_what_is_here(client: Client, name: str) -> None:
    assert client("GET", f"/repositories/{name}").status == 404


def test_many_clients_are_one_fetch_and_get_it_while_it_comes(world: World) -> None:
    data = blob_of(world.hub, "library/many", 1_000_000)
    digest = digest_of(data)
    world.hub.delay = 0.05
    world.hub.served.clear()
    bodies: list[bytes] = []
    early: list[bool] = []

    def pull() -> None:
        client = Client(world.program.host)
        bodies.append(client("GET", f"library/many/blobs/{digest}").body)
        client.close()

    def first_bytes() -> None:
        import http.client

        connection = http.client.HTTPConnection(world.program.host, timeout=20)
        connection.request("GET", f"/v2/library/many/blobs/{digest}")
        answer = connection.getresponse()
        answer.read(1)
        early.append(world.hub.served.get(digest, 0) < len(data))
        answer.read()
        connection.close()

    threads = [threading.Thread(target=first_bytes), *(threading.Thread(target=pull) for _ in range(8))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    world.hub.delay = 0.0
    assert bodies == [data] * 8
    assert early == [True]
    assert world.hub.served[digest] == len(data)


def test_head_fetches_nothing(world: World, client: Client) -> None:
    data = blob_of(world.hub, "library/head")
    reply = client("HEAD", f"docker.io/library/head/blobs/{digest_of(data)}")
    assert (reply.status, reply.headers["Content-Length"]) == (200, "1000")
    assert digest_of(data) not in world.hub.served
    assert client("HEAD", f"docker.io/library/head/blobs/{digest_of(b'nothing')}").status == 404


def test_a_part_of_what_is_on_its_way(world: World, client: Client) -> None:
    data = blob_of(world.hub, "library/part", 300_000)
    reply = client("GET", f"library/part/blobs/{digest_of(data)}", None, {"Range": "bytes=200000-200099"})
    assert (reply.status, reply.headers["Content-Range"]) == (206, "bytes 200000-200099/300000")
    assert reply.body == data[200_000:200_100]


def test_a_connection_that_breaks_is_taken_up_again(world: World, client: Client) -> None:
    data = blob_of(world.hub, "library/broken", 400_000)
    world.hub.cut_after = 150_000
    try:
        assert client("GET", f"library/broken/blobs/{digest_of(data)}").body == data
    finally:
        world.hub.cut_after = None
    assert world.hub.served[digest_of(data)] == len(data)


def test_what_is_not_what_it_is_called_is_neither_given_out_whole_nor_kept(world: World, client: Client) -> None:
    import http.client

    data = blob_of(world.hub, "library/evil", 100_000)
    world.hub.change = lambda _, content: content[:-1] + b"!"
    given: bytes | str
    try:
        given = client("GET", f"library/evil/blobs/{digest_of(data)}").code
    except http.client.IncompleteRead as broken:
        given = broken.partial
    finally:
        world.hub.change = lambda _, content: content
    # It may be given up before the answer begins.
    assert given == "UNAVAILABLE" if isinstance(given, str) else len(given) < len(data)
    again = Client(world.program.host)
    assert again("GET", f"library/evil/blobs/{digest_of(data)}").body == data
    again.close()


def test_a_blob_of_another_repository_is_not_fetched_twice_nor_given_to_everybody(world: World, client: Client) -> None:
    data = blob_of(world.hub, "library/first")
    assert client("GET", f"library/first/blobs/{digest_of(data)}").status == 200
    assert client("GET", f"library/second/blobs/{digest_of(data)}").code == "BLOB_UNKNOWN"
    world.hub.held["library/second"] = {digest_of(data)}
    assert client("GET", f"library/second/blobs/{digest_of(data)}").body == data
    assert world.hub.served[digest_of(data)] == len(data)


def test_a_tag_that_moves_and_one_that_goes(world: World, client: Client) -> None:
    old = world.hub.add("library/moving", "1", b"{}", [b"old"])
    assert client("GET", "library/moving/manifests/1").headers["Docker-Content-Digest"] == old
    asked = len(world.hub.requests)
    assert client("GET", "library/moving/manifests/1").status == 200
    assert world.hub.requests[asked:] == ["HEAD /v2/library/moving/manifests/1"]  # which Docker Hub does not count
    new = world.hub.add("library/moving", "1", b"{}", [b"new"])
    assert client("GET", "library/moving/manifests/1").headers["Docker-Content-Digest"] == new
    del world.hub.manifests["library/moving:1"]
    assert client("GET", "library/moving/manifests/1").code == "MANIFEST_UNKNOWN"
    assert client("GET", f"library/moving/manifests/{old}").status == 200


def test_the_cache_is_bounded_and_the_least_used_goes(world: World, client: Client) -> None:
    kept = blob_of(world.hub, "library/lru", 500_000)
    others = [blob_of(world.hub, "library/lru", 500_000) for _ in range(8)]
    store = world.program.root / "sampan/mirror"

    def is_kept(data: bytes) -> bool:
        return (store / paths.blob(digest_of(data))).exists()

    for data in others:
        for wanted in (kept, data):
            assert client("GET", f"library/lru/blobs/{digest_of(wanted)}").body == wanted
            deadline = time.monotonic() + 20
            while not is_kept(wanted):  # it is put in its place after the answer: who is used when is to be certain
                assert time.monotonic() < deadline
                time.sleep(0.01)
    deadline = time.monotonic() + 20
    while is_kept(others[0]) or not is_kept(others[-1]) or bytes_below(store / paths.BLOBS) > CACHE_BYTES:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    for data, times in ((kept, 1), (others[-1], 1), (others[0], 2)):
        assert client("GET", f"library/lru/blobs/{digest_of(data)}").body == data
        assert world.hub.served[digest_of(data)] == times * len(data)


def as_json(code: str) -> bytes:
    return b'{"errors":[{"code":"%s","message":"no"}]}' % code.encode()


@pytest.mark.parametrize(
    "refusal",
    [
        (401, {}, as_json("UNAUTHORIZED")),
        (403, {}, as_json("DENIED")),
        (404, {}, b"<html>a proxy's own words</html>"),
        (418, {}, b""),
        (200, {"Content-Type": "text/html"}, b"<html>Please log in</html>"),
        (200, {"Content-Type": MANIFEST}, b"<html>Please log in</html>"),
        (200, {}, b'{"message":"we are moving"}'),
    ],
    ids=["401", "403", "404 of somebody else", "418", "a page", "a page that is called a manifest", "JSON"],
)
def test_what_is_no_word_about_the_image_leaves_the_copy_that_is_here(
    world: World, client: Client, refusal: tuple[int, dict[str, str], bytes]
) -> None:
    digest = world.hub.add("library/copied", "1", b"{}", [b"copied"])
    assert client("GET", "library/copied/manifests/1").status == 200
    world.hub.refuse = refusal
    try:
        for _ in range(2):
            reply = client("GET", "library/copied/manifests/1")
            assert (reply.status, reply.headers["Docker-Content-Digest"]) == (200, digest)
            assert reply.headers["Warning"].startswith("110 ")
        tags = client("GET", "library/copied/tags/list")
        if refusal[2] != b'{"message":"we are moving"}':  # which is a list of no tags
            assert (tags.json["tags"], tags.headers["Warning"][:4]) == (["1"], "110 ")
    finally:
        world.hub.refuse = None
    fresh = client("GET", "library/copied/manifests/1")
    assert (fresh.status, "Warning" in fresh.headers) == (200, False)


@pytest.mark.parametrize("status", [401, 429, 400])
def test_a_token_server_that_refuses_leaves_the_copy_that_is_here(tmp_path: Path, status: int) -> None:
    upstream = FaultyRegistry()
    upstream.login, upstream.anonymous = ("robot", "secret"), True
    digest = upstream.add("team/app", "1", b"{}", [b"layer"])
    program = RegistryProgram(tmp_path, settings={"mirrors": {"up.example": {"url": f"http://{upstream.host}", "fresh-seconds": 0}}})
    client = Client(program.host)
    try:
        assert client("GET", "up.example/team/app/manifests/1").status == 200
        upstream.tokens.clear()
        upstream.refuse_tokens = status
        reply = client("GET", "up.example/team/app/manifests/1")
        assert (reply.status, reply.headers["Docker-Content-Digest"], reply.headers["Warning"][:4]) == (200, digest, "110 ")
        upstream.refuse_tokens = 0
        assert "Warning" not in client("GET", "up.example/team/app/manifests/1").headers
    finally:
        client.close()
        program.close()
        upstream.close()


def test_referrers_of_a_registry_that_keeps_them_under_a_tag(world: World, client: Client) -> None:
    digest = world.hub.add("library/signed", "1", b"{}", [b"signed"])
    entries = [
        {"mediaType": OCI_MANIFEST, "digest": digest_of(kind.encode()), "size": 4, "artifactType": f"application/{kind}"}
        for kind in ("sbom", "signature")
    ]
    index = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}).encode()
    world.hub.add_manifest("library/signed", digest.replace(":", "-"), index, OCI_INDEX)
    assert client("GET", f"library/signed/referrers/{digest}").json["manifests"] == entries
    reply = client("GET", f"docker.io/library/signed/referrers/{digest}", artifactType="application/sbom")
    assert (reply.status, reply.json["manifests"]) == (200, entries[:1])
    assert client("GET", f"library/signed/referrers/{digest_of(b'unsigned')}").json["manifests"] == []


def test_digests_by_sha512(world: World, client: Client) -> None:
    data = os.urandom(200_000)
    digest = digest_of(data, "sha512")
    world.hub.blobs[digest] = data
    world.hub.held["library/long"] = {digest}
    document = {
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": descriptor(b"{}", CONFIG),
        "layers": [{"mediaType": LAYER, "digest": digest, "size": len(data)}],
    }  # fmt: skip
    body = json.dumps(document).encode()
    long = digest_of(body, "sha512")
    world.hub.manifests[f"library/long@{long}"] = (OCI_MANIFEST, body)
    for _ in range(2):
        reply = client("GET", f"library/long/manifests/{long}")
        assert (reply.status, reply.headers["Docker-Content-Digest"], reply.body) == (200, long, body)
        assert client("GET", f"library/long/blobs/{digest}").body == data
    assert world.hub.served[digest] == len(data)
    wrong = digest_of(b"not this", "sha512")
    world.hub.manifests[f"library/long@{wrong}"] = (OCI_MANIFEST, body)
    assert client("GET", f"library/long/manifests/{wrong}").status == 503


def test_head_without_a_length(world: World, client: Client) -> None:
    digest = world.hub.add("library/lengthless", "1", b"{}", [b"lengthless"])
    world.hub.lengthless_heads = True
    try:
        for _ in range(2):
            reply = client("GET", "library/lengthless/manifests/1")
            assert (reply.headers["Docker-Content-Digest"], "Warning" in reply.headers) == (digest, False)
    finally:
        world.hub.lengthless_heads = False
    assert client("GET", f"library/lengthless/blobs/{digest_of(b'lengthless')}").body == b"lengthless"  # it is not left alone for it


def test_when_the_upstream_fails_there_is_a_stale_copy(world: World, client: Client) -> None:
    """The last test of this upstream: it is left alone for a while afterwards."""
    digest = world.hub.add("library/stale", "1", b"{}", [b"stale layer"])
    assert client("GET", "library/stale/manifests/1").status == 200
    assert client("GET", f"library/stale/blobs/{digest_of(b'stale layer')}").status == 200
    world.hub.refuse = (429, {"Retry-After": "600"}, b'{"errors":[{"code":"TOOMANYREQUESTS","message":"rate limit"}]}')
    reply = client("GET", "library/stale/manifests/1")
    assert (reply.status, reply.headers["Docker-Content-Digest"]) == (200, digest)
    assert reply.headers["Warning"].startswith("110 ")
    asked = len(world.hub.requests)
    assert client("GET", f"library/stale/blobs/{digest_of(b'stale layer')}").body == b"stale layer"
    assert client("GET", "library/stale/tags/list").json["tags"] == ["1"]
    assert client("GET", "library/never/manifests/1").code == "UNAVAILABLE"
    assert len(world.hub.requests) == asked  # it has asked us to wait
