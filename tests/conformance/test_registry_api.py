"""The registry against the OCI distribution specification 1.1, statement by statement, over HTTP; and Docker's additions to it.

All of it with the content in files, and in a bucket.
"""

import asyncio
import http.client
import json
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from sampan.registry import paths, store
from sampan.spec.oci_layout import CONFIG, DOCKER_INDEX, DOCKER_MANIFEST, INDEX, MANIFEST
from tests.support.buckets import bucket_at, s3_server
from tests.support.disks import files_up_to
from tests.support.registryserver import EMPTY, EMPTY_TYPE, Client, RegistryThread, descriptor, digest_of, manifest_of, parts_over

TAGS = ("b", "a", "v1.0", "c", "latest")
BLOB = bytes(range(256)) * 4
BLOB_MAX = 3_000_000


@pytest.fixture(scope="module", params=["files", "bucket"])
def registry(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryThread]:
    directory = tmp_path_factory.mktemp("registry")
    with ExitStack() as stack:
        if request.param == "files":
            server = RegistryThread.on(directory, blob=BLOB_MAX)
        else:
            connect = bucket_at(stack.enter_context(s3_server()))
            server = RegistryThread(lambda: parts_over(connect(), directory / "uploads", blob=BLOB_MAX))
        stack.callback(server.close)
        yield server


@pytest.fixture
def client(registry: RegistryThread) -> Iterator[Client]:
    client = Client(registry.host)
    yield client
    client.close()


@pytest.fixture(scope="module")
def full(registry: RegistryThread) -> tuple[str, bytes]:
    """(repository, manifest) with an image under TAGS."""
    client = Client(registry.host)
    manifest = client.push_image("team/full", TAGS[0])
    for tag in TAGS[1:]:
        assert client.put_manifest("team/full", tag, manifest).status == 201
    client.close()
    return "team/full", manifest


@pytest.fixture
def name() -> str:
    return f"team/{uuid.uuid4().hex[:8]}"


def refused(reply: object, status: int, code: str) -> None:
    assert (reply.status, reply.code) == (status, code), reply  # type: ignore[attr-defined]


# pull


@pytest.mark.parametrize("path", ["/v2/", "/v2"])
def test_it_is_a_registry(client: Client, path: str) -> None:
    reply = client("GET", path)
    assert (reply.status, reply.headers["Docker-Distribution-Api-Version"]) == (200, "registry/2.0")


@pytest.mark.parametrize("by", ["tag", "digest"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_manifest(client: Client, full: tuple[str, bytes], method: str, by: str) -> None:
    name, manifest = full
    reply = client(method, f"{name}/manifests/{'latest' if by == 'tag' else digest_of(manifest)}")
    assert reply.status == 200
    assert reply.body == (manifest if method == "GET" else b"")
    assert reply.headers["Docker-Content-Digest"] == digest_of(manifest)
    assert (reply.headers["Content-Type"], reply.headers["Content-Length"]) == (MANIFEST, str(len(manifest)))


def test_manifest_that_the_client_has(client: Client, full: tuple[str, bytes]) -> None:
    etag = client("GET", f"{full[0]}/manifests/a").headers["Etag"]
    assert client("GET", f"{full[0]}/manifests/a", None, {"If-None-Match": etag})[::2] == (304, b"")


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("team/full/manifests/none", 404, "MANIFEST_UNKNOWN"),
        (f"team/full/manifests/sha256:{'0' * 64}", 404, "MANIFEST_UNKNOWN"),
        ("team/full/manifests/sha256:123", 400, "DIGEST_INVALID"),
        (f"team/full/manifests/md5:{'0' * 32}", 400, "DIGEST_INVALID"),
        (f"team/full/manifests/{'T' * 129}", 400, "MANIFEST_INVALID"),
        ("team/nobody/manifests/latest", 404, "NAME_UNKNOWN"),
        ("UPPER/case/manifests/latest", 400, "NAME_INVALID"),
        (f"{'x' * 256}/manifests/latest", 400, "NAME_INVALID"),
        ("a/../b/manifests/latest", 400, "NAME_INVALID"),
        ("a/_layers/manifests/latest", 400, "NAME_INVALID"),
        ("a//b/tags/list", 400, "NAME_INVALID"),
        ("a/%2e%2e/b/tags/list", 400, "NAME_INVALID"),
        (f"team/full/blobs/sha256:{'0' * 64}", 404, "BLOB_UNKNOWN"),
        ("team/full/blobs/sha256:ABC", 400, "DIGEST_INVALID"),
        ("team/nobody/tags/list", 404, "NAME_UNKNOWN"),
        ("team/full/tags/list?n=-1", 400, "UNSUPPORTED"),
        ("team/full/tags/list?n=x", 400, "UNSUPPORTED"),
        ("team/full/referrers/sha256:short", 400, "DIGEST_INVALID"),
        ("team/full/blobs/uploads/nothing", 404, "BLOB_UPLOAD_UNKNOWN"),
    ],
)
def test_refusals(client: Client, full: tuple[str, bytes], path: str, status: int, code: str) -> None:
    refused(client("GET", path), status, code)
    head = client("HEAD", path)
    assert (head.status, head.body) == (status, b"")


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "x/manifests/t"), ("PUT", "x/tags/list"), ("DELETE", "x/tags/list"), ("PATCH", "x/blobs/sha256:0"), ("DELETE", "/v2/")],
)
def test_methods_that_are_not_there(client: Client, method: str, path: str) -> None:
    reply = client(method, path)
    refused(reply, 405, "UNSUPPORTED")
    assert "GET" in reply.headers["Allow"]


def test_path_that_is_not_there(client: Client) -> None:
    assert client("GET", "x/nothing/here").status == 404


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 2_000_000])
def test_blob(client: Client, name: str, size: int) -> None:
    blob = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    digest = client.push_blob(name, blob)
    reply = client("GET", f"{name}/blobs/{digest}")
    assert (reply.status, reply.headers["Docker-Content-Digest"]) == (200, digest)
    assert reply.body == blob
    head = client("HEAD", f"{name}/blobs/{digest}")
    assert (head.status, head.headers["Content-Length"], head.body) == (200, str(size), b"")


@pytest.mark.parametrize(
    ("header", "start", "end"),
    [("bytes=0-9", 0, 10), ("bytes=100-199", 100, 200), ("bytes=900-", 900, 1024), ("bytes=-50", 974, 1024), ("bytes=950-5000", 950, 1024),
     ("bytes=0-", 0, 1024), ("bytes=-5000", 0, 1024)],
)  # fmt: skip
def test_ranges(client: Client, name: str, header: str, start: int, end: int) -> None:
    reply = client("GET", f"{name}/blobs/{client.push_blob(name, BLOB)}", None, {"Range": header})
    assert (reply.status, reply.headers["Content-Range"]) == (206, f"bytes {start}-{end - 1}/1024")
    assert reply.body == BLOB[start:end]


@pytest.mark.parametrize("header", ["bytes=1024-", "bytes=5000-6000", "bytes=-0"])
def test_ranges_beyond_the_end(client: Client, name: str, header: str) -> None:
    reply = client("GET", f"{name}/blobs/{client.push_blob(name, BLOB)}", None, {"Range": header})
    assert (reply.status, reply.headers["Content-Range"]) == (416, "bytes */1024")


@pytest.mark.parametrize("header", ["bytes=50-10", "bytes=0-1,4-5", "lines=1-2", "bytes=x", "bytes=-"])
def test_ranges_that_mean_nothing(client: Client, name: str, header: str) -> None:
    reply = client("GET", f"{name}/blobs/{client.push_blob(name, BLOB)}", None, {"Range": header})
    assert (reply.status, reply.body) == (200, BLOB)


def test_a_blob_is_in_the_repository_it_was_pushed_to(client: Client, name: str) -> None:
    digest = client.push_blob(name, BLOB)
    client.push_blob(name + "/below", b"other")
    refused(client("GET", f"{name}/below/blobs/{digest}"), 404, "BLOB_UNKNOWN")


# push of blobs


def test_upload_in_chunks(client: Client, name: str) -> None:
    location = client.begin(name)
    for start in (0, 400, 800):
        chunk = BLOB[start : start + 400]
        reply = client("PATCH", location, chunk, {"Content-Range": f"{start}-{start + len(chunk) - 1}"})
        assert (reply.status, reply.headers["Range"]) == (202, f"0-{start + len(chunk) - 1}")
        location = reply.headers["Location"]
    assert client("GET", location).headers["Range"] == "0-1023"
    reply = client("PUT", location, digest=digest_of(BLOB))
    assert (reply.status, reply.headers["Docker-Content-Digest"]) == (201, digest_of(BLOB))
    assert client("GET", reply.headers["Location"]).body == BLOB
    refused(client("GET", location), 404, "BLOB_UPLOAD_UNKNOWN")


def test_last_chunk_with_the_end(client: Client, name: str) -> None:
    location = client("PATCH", client.begin(name), BLOB[:1000], {"Content-Range": "0-999"}).headers["Location"]
    assert client("PUT", location, BLOB[1000:], {"Content-Range": "1000-1023"}, digest=digest_of(BLOB)).status == 201


def test_one_patch_without_a_range_as_docker_does(client: Client, name: str) -> None:
    pieces = (BLOB[start : start + 100] for start in range(0, len(BLOB), 100))
    reply = client("PATCH", client.begin(name), pieces)
    assert (reply.status, reply.headers["Range"]) == (202, "0-1023")
    assert client("PUT", reply.headers["Location"], digest=digest_of(BLOB)).status == 201


@pytest.mark.parametrize("range", ["500-599", "0-99", "50-149", "99-0", "nonsense"])
def test_chunk_out_of_order(client: Client, name: str, range: str) -> None:
    location = client("PATCH", client.begin(name), BLOB[:100], {"Content-Range": "0-99"}).headers["Location"]
    reply = client("PATCH", location, BLOB[100:200], {"Content-Range": range})
    assert (reply.status, reply.headers["Range"]) == (416, "0-99")
    reply = client("PATCH", reply.headers["Location"], BLOB[100:], {"Content-Range": "100-1023"})
    assert client("PUT", reply.headers["Location"], digest=digest_of(BLOB)).status == 201


def test_chunk_of_another_length_than_announced(client: Client, name: str) -> None:
    location = client.begin(name)
    refused(client("PATCH", location, BLOB[:100], {"Content-Range": "0-49"}), 400, "SIZE_INVALID")
    refused(client("PATCH", location, iter([BLOB[:30]]), {"Content-Range": "0-49"}), 400, "SIZE_INVALID")
    assert client("GET", location).headers["Range"] == "0-0"
    assert client("PUT", location, BLOB, digest=digest_of(BLOB)).status == 201


def test_what_came_before_the_connection_broke_stays(registry: RegistryThread, client: Client, name: str) -> None:
    location = client.begin(name)
    broken = http.client.HTTPConnection(registry.host, timeout=20)
    broken.putrequest("PATCH", location)
    broken.putheader("Content-Length", str(len(BLOB)))
    broken.endheaders(BLOB[:600])
    broken.close()
    reply = client("GET", location)
    while reply.headers["Range"] != "0-599":  # the server hears of it a moment later
        reply = client("GET", location)
    rest = client("PATCH", location, BLOB[600:], {"Content-Range": "600-1023"})
    while rest.status == 400:
        rest = client("PATCH", location, BLOB[600:], {"Content-Range": "600-1023"})
    assert rest.status == 202, rest
    assert client("PUT", rest.headers["Location"], digest=digest_of(BLOB)).status == 201


def test_cancel(client: Client, name: str) -> None:
    location = client.begin(name)
    assert client("DELETE", location).status == 204
    refused(client("PATCH", location, b"x"), 404, "BLOB_UPLOAD_UNKNOWN")


def test_an_upload_belongs_to_its_repository(client: Client, name: str) -> None:
    id = client.begin(name).rpartition("/")[2]
    refused(client("PATCH", f"team/other/blobs/uploads/{id}", b"x"), 404, "BLOB_UPLOAD_UNKNOWN")


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_in_one_post(client: Client, name: str, algorithm: str) -> None:
    digest = digest_of(BLOB, algorithm)
    assert client("POST", f"{name}/blobs/uploads/", BLOB, digest=digest).status == 201
    assert client("GET", f"{name}/blobs/{digest}").body == BLOB


@pytest.mark.parametrize("announced", [{}, {"digest-algorithm": "sha512"}])
def test_sha512(client: Client, name: str, announced: dict[str, str]) -> None:
    location = client("POST", f"{name}/blobs/uploads/", **announced).headers["Location"]
    digest = digest_of(BLOB, "sha512")
    assert client("PUT", location, BLOB, digest=digest).status == 201
    assert client("GET", f"{name}/blobs/{digest}").body == BLOB


def test_other_algorithms(client: Client, name: str) -> None:
    refused(client("POST", f"{name}/blobs/uploads/", **{"digest-algorithm": "md5"}), 400, "DIGEST_INVALID")


@pytest.mark.parametrize("digest", ["sha256:" + "0" * 64, "sha256:zz", ""])
def test_wrong_digest(client: Client, name: str, digest: str) -> None:
    refused(client("PUT", client.begin(name), BLOB, digest=digest), 400, "DIGEST_INVALID")
    assert client("HEAD", f"{name}/blobs/{digest_of(BLOB)}").status == 404


def test_put_without_a_digest(client: Client, name: str) -> None:
    refused(client("PUT", client.begin(name), BLOB), 400, "DIGEST_INVALID")


def test_larger_than_the_limit(client: Client, name: str) -> None:
    blob = b"x" * 3_000_001
    refused(client("PUT", client.begin(name), blob, digest=digest_of(blob)), 413, "SIZE_INVALID")
    assert client("HEAD", f"{name}/blobs/{digest_of(blob)}").status == 404


def test_mount(client: Client, name: str) -> None:
    digest = client.push_blob(name + "/source", BLOB)
    reply = client("POST", f"{name}/blobs/uploads/", mount=digest, **{"from": name + "/source"})
    assert reply.status == 201
    assert client("GET", reply.headers["Location"]).body == BLOB


@pytest.mark.parametrize("source", ["team/nobody", ""])
def test_mount_of_what_is_not_there(client: Client, name: str, source: str) -> None:
    more = {"from": source} if source else {}
    reply = client("POST", f"{name}/blobs/uploads/", mount=digest_of(b"nowhere"), **more)
    assert reply.status == 202
    assert client("PUT", reply.headers["Location"], BLOB, digest=digest_of(BLOB)).status == 201


# push of manifests


def test_put_by_tag(client: Client, name: str) -> None:
    manifest = client.push_image(name, "first") + b"\n \n"  # the bytes stay as they are
    reply = client.put_manifest(name, "t", manifest)
    assert (reply.status, reply.headers["Docker-Content-Digest"]) == (201, digest_of(manifest))
    assert client("GET", reply.headers["Location"]).body == manifest


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_put_by_digest_with_tags(client: Client, name: str, algorithm: str) -> None:
    manifest = client.push_image(name, "first")
    reply = client.put_manifest(name, f"{digest_of(manifest, algorithm)}?tag=x&tag=y", manifest)
    assert (reply.status, reply.headers["OCI-Tag"]) == (201, "x, y")
    assert client("GET", f"{name}/manifests/y").headers["Docker-Content-Digest"] == digest_of(manifest, algorithm)


def test_a_tag_moves(client: Client, name: str) -> None:
    old, new = client.push_image(name, "t"), client.push_image(name, "t")
    assert client("GET", f"{name}/manifests/t").body == new
    assert client("GET", f"{name}/manifests/{digest_of(old)}").body == old


@pytest.mark.parametrize(
    ("change", "kind", "status", "code"),
    [
        (lambda m: b"{nope", MANIFEST, 400, "MANIFEST_INVALID"),
        (lambda m: b"[]", MANIFEST, 400, "MANIFEST_INVALID"),
        (lambda m: b'{"schemaVersion":1}', MANIFEST, 400, "MANIFEST_INVALID"),
        (lambda m: m, DOCKER_MANIFEST, 400, "MANIFEST_INVALID"),
        (lambda m: m.replace(MANIFEST.encode(), b"application/json"), "application/json", 400, "MANIFEST_INVALID"),
        (lambda m: m.replace(b'"size": 2', b'"size": 3'), MANIFEST, 400, "MANIFEST_INVALID"),
        (lambda m: m.replace(b'"sha256:', b'"sha256:0', 1), MANIFEST, 400, "MANIFEST_INVALID"),
        (lambda m: b"[" * 100_000, MANIFEST, 400, "MANIFEST_INVALID"),
        (lambda m: m + b" " * (4 << 20), MANIFEST, 413, "SIZE_INVALID"),
        (lambda m: manifest_of(EMPTY, b"not pushed"), MANIFEST, 404, "MANIFEST_BLOB_UNKNOWN"),
        (lambda m: manifest_of(b"not pushed"), MANIFEST, 404, "MANIFEST_BLOB_UNKNOWN"),
    ],
)
def test_manifests_that_are_none(client: Client, name: str, change: object, kind: str, status: int, code: str) -> None:
    client.push_blob(name, EMPTY)
    good = manifest_of(EMPTY)
    assert client.put_manifest(name, "good", good).status == 201
    refused(client.put_manifest(name, "t", change(good), kind), status, code)  # type: ignore[operator]
    refused(client("GET", f"{name}/manifests/t"), 404, "MANIFEST_UNKNOWN")


def test_put_under_another_digest(client: Client, name: str) -> None:
    refused(client.put_manifest(name, digest_of(b"x"), client.push_image(name, "t")), 400, "DIGEST_INVALID")


@pytest.mark.parametrize(("manifest_kind", "index_kind"), [(MANIFEST, INDEX), (DOCKER_MANIFEST, DOCKER_INDEX)])
def test_types_of_docker_and_of_oci(client: Client, name: str, manifest_kind: str, index_kind: str) -> None:
    client.push_blob(name, EMPTY)
    manifest = manifest_of(EMPTY).replace(MANIFEST.encode(), manifest_kind.encode())
    index = json.dumps({"schemaVersion": 2, "mediaType": index_kind, "manifests": [descriptor(manifest, manifest_kind)]}).encode()
    refused(client.put_manifest(name, "i", index, index_kind), 404, "MANIFEST_BLOB_UNKNOWN")
    assert client.put_manifest(name, "m", manifest, manifest_kind + "; charset=utf-8").status == 201
    assert client.put_manifest(name, "i", index, index_kind).status == 201
    for tag, kind in (("m", manifest_kind), ("i", index_kind)):
        assert client("GET", f"{name}/manifests/{tag}").headers["Content-Type"] == kind


def test_oci_documents_that_do_not_say_what_they_are(client: Client, name: str) -> None:
    client.push_blob(name, EMPTY)
    manifest = manifest_of(EMPTY).replace(f'"mediaType": "{MANIFEST}", '.encode(), b"")
    index = json.dumps({"schemaVersion": 2, "manifests": []}).encode()
    for tag, body, kind in (("m", manifest, MANIFEST), ("i", index, INDEX)):
        assert client.put_manifest(name, tag, body, kind).status == 201
        assert client("GET", f"{name}/manifests/{tag}").headers["Content-Type"] == kind


def test_what_is_long_or_odd_but_a_manifest(client: Client, name: str) -> None:
    client.push_blob(name, EMPTY)
    tag, manifest = "T" * 128, manifest_of(EMPTY, annotations={"big": "x" * 3_000_000}, **{"org.example.custom": {"a": 1}})
    assert client.put_manifest(name, tag, manifest).status == 201
    assert client("GET", f"{name}/manifests/{tag}").body == manifest
    index = manifest
    for kind in (MANIFEST, INDEX, INDEX):  # an index of an index
        index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [descriptor(index, kind)]}).encode()
        assert client.put_manifest(name, digest_of(index), index, INDEX).status == 201
    assert client("GET", f"{name}/manifests/{digest_of(index)}").body == index


def test_layers_that_lie_elsewhere_need_not_be_pushed(client: Client, name: str) -> None:
    client.push_blob(name, EMPTY)
    foreign = {
        **descriptor(b"far away", "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"),
        "urls": ["https://elsewhere.example/l"],
    }
    assert client.put_manifest(name, "t", manifest_of(EMPTY, layers=[foreign])).status == 201


# lists


@pytest.mark.parametrize(
    ("query", "tags"),
    [
        ({}, ["a", "b", "c", "latest", "v1.0"]),
        ({"n": "2"}, ["a", "b"]),
        ({"n": "0"}, []),
        ({"last": "c"}, ["latest", "v1.0"]),
        ({"n": "2", "last": "b"}, ["c", "latest"]),
        ({"n": "1", "last": "bb"}, ["c"]),
        ({"n": "100"}, ["a", "b", "c", "latest", "v1.0"]),
        ({"last": "z"}, []),
    ],
)
def test_tags(client: Client, full: tuple[str, bytes], query: dict[str, str], tags: list[str]) -> None:
    reply = client("GET", f"{full[0]}/tags/list", **query)
    assert (reply.status, reply.json) == (200, {"name": full[0], "tags": tags})
    assert ("Link" in reply.headers) == (query.get("n") in ("1", "2"))


def test_tags_page_by_page(client: Client, full: tuple[str, bytes]) -> None:
    found: list[str] = []
    path = f"{full[0]}/tags/list?n=2"
    while path:
        reply = client("GET", path)
        found += reply.json["tags"]
        match = re.fullmatch(r'<([^>]+)>; rel="next"', reply.headers.get("Link", ""))
        path = match[1] if match else ""
    assert found == sorted(TAGS)


def test_catalogue(client: Client, full: tuple[str, bytes], name: str) -> None:
    client.push_blob(name + "/blobs-only", EMPTY)
    client.push_image(name, "t")
    assert {full[0], name} <= set(client("GET", "_catalog").json["repositories"])
    assert name + "/blobs-only" not in client("GET", "_catalog").json["repositories"]
    first = client("GET", "_catalog", n="1")
    assert len(first.json["repositories"]) == 1
    assert first.headers["Link"].endswith('rel="next"')


# referrers


@pytest.mark.parametrize("path", ["_catalog", "_catalog?n=1", "{name}/tags/list", "{name}/tags/list?n=2", "{name}/referrers/{digest}"])
def test_head_of_a_list_is_its_get_without_the_body(client: Client, full: tuple[str, bytes], path: str) -> None:
    where = path.format(name=full[0], digest=digest_of(full[1]))
    get, head = client("GET", where), client("HEAD", where)
    assert (head.status, head.body) == (200, b"")
    for header in ("Content-Type", "Content-Length", "Link"):
        assert head.headers[header] == get.headers[header]
    assert int(head.headers["Content-Length"]) == len(get.body) > 0


def artifact(subject: bytes, kind: str | None = "application/vnd.example.sbom", config: str = EMPTY_TYPE, **more: object) -> bytes:
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(EMPTY, config),
        "layers": [descriptor(EMPTY, EMPTY_TYPE)],
        "subject": descriptor(subject, MANIFEST),
        **({"artifactType": kind} if kind else {}),
        **more,
    }
    return json.dumps(document).encode()


def test_referrers(client: Client, name: str) -> None:
    subject = client.push_image(name, "t")
    client.push_blob(name, EMPTY)
    sbom, signature = artifact(subject, annotations={"k": "v"}), artifact(subject, None, "application/vnd.example.signature")
    index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [], "subject": descriptor(subject, MANIFEST)}).encode()
    for body, kind in ((sbom, MANIFEST), (signature, MANIFEST), (index, INDEX)):
        reply = client.put_manifest(name, digest_of(body), body, kind)
        assert (reply.status, reply.headers["OCI-Subject"]) == (201, digest_of(subject))
    reply = client("GET", f"{name}/referrers/{digest_of(subject)}")
    assert (reply.status, reply.headers["Content-Type"]) == (200, INDEX)
    assert (reply.json["schemaVersion"], reply.json["mediaType"]) == (2, INDEX)
    found = {entry["digest"]: entry for entry in reply.json["manifests"]}
    assert found == {
        digest_of(sbom): {**descriptor(sbom, MANIFEST), "artifactType": "application/vnd.example.sbom", "annotations": {"k": "v"}},
        digest_of(signature): {**descriptor(signature, MANIFEST), "artifactType": "application/vnd.example.signature"},
        digest_of(index): descriptor(index, INDEX),
    }
    only = client("GET", f"{name}/referrers/{digest_of(subject)}", artifactType="application/vnd.example.sbom")
    assert [entry["digest"] for entry in only.json["manifests"]] == [digest_of(sbom)]
    assert only.headers["OCI-Filters-Applied"] == "artifactType"
    none = client("GET", f"{name}/referrers/{digest_of(subject)}", artifactType="application/vnd.example.none")
    assert (none.status, none.json["manifests"]) == (200, [])
    assert client("DELETE", f"{name}/manifests/{digest_of(sbom)}").status == 202
    assert len(client("GET", f"{name}/referrers/{digest_of(subject)}").json["manifests"]) == 2


def test_referrers_of_what_is_not_there(client: Client, name: str) -> None:
    client.push_blob(name, EMPTY)
    body = artifact(b"never pushed")
    for tag in ("x", "y"):
        assert client.put_manifest(name, tag, body).status == 201
    assert [entry["digest"] for entry in client("GET", f"{name}/referrers/{digest_of(b'never pushed')}").json["manifests"]] == [
        digest_of(body)
    ]
    assert client("GET", f"{name}/referrers/{digest_of(b'other')}").json["manifests"] == []


# delete


def test_delete_by_digest_takes_its_tags(client: Client, name: str) -> None:
    kept, gone = client.push_image(name, "kept"), client.push_image(name, "t")
    client.put_manifest(name, "u", gone)
    assert client("DELETE", f"{name}/manifests/{digest_of(gone)}").status == 202
    for reference in ("t", "u", digest_of(gone)):
        refused(client("GET", f"{name}/manifests/{reference}"), 404, "MANIFEST_UNKNOWN")
    assert client("GET", f"{name}/manifests/kept").body == kept
    refused(client("DELETE", f"{name}/manifests/{digest_of(gone)}"), 404, "MANIFEST_UNKNOWN")


def test_delete_a_tag(client: Client, name: str) -> None:
    manifest = client.push_image(name, "t")
    assert client("DELETE", f"{name}/manifests/t").status == 202
    refused(client("GET", f"{name}/manifests/t"), 404, "MANIFEST_UNKNOWN")
    assert client("GET", f"{name}/manifests/{digest_of(manifest)}").body == manifest
    assert client("GET", f"{name}/tags/list").json["tags"] == []


def test_delete_a_blob(client: Client, name: str) -> None:
    digest = client.push_blob(name, BLOB)
    client.push_blob(name + "/other", BLOB)
    assert client("DELETE", f"{name}/blobs/{digest}").status == 202
    refused(client("GET", f"{name}/blobs/{digest}"), 404, "BLOB_UNKNOWN")
    assert client("GET", f"{name}/other/blobs/{digest}").body == BLOB
    refused(client("DELETE", f"{name}/blobs/{digest}"), 404, "BLOB_UNKNOWN")


def test_delete_in_a_repository_that_is_not_there(client: Client) -> None:
    refused(client("DELETE", f"team/nobody/manifests/{digest_of(b'')}"), 404, "NAME_UNKNOWN")


def test_a_config_of_a_type_of_its_own(client: Client, name: str) -> None:
    """Helm charts, WASM modules: any config will do."""
    client.push_blob(name, EMPTY)
    body = manifest_of(EMPTY).replace(CONFIG.encode(), b"application/vnd.cncf.helm.config.v1+json")
    assert client.put_manifest(name, "chart", body).status == 201


def test_a_full_disk_is_told_and_the_upload_goes_on(client: Client, name: str) -> None:
    data = bytes(range(250)) * 2000
    location = client("PATCH", client.begin(name), data[:200_000]).headers["Location"]
    with files_up_to(300_000):
        refused(client("PATCH", location, data[200_000:]), 507, "UNAVAILABLE")
    came = int(client("GET", location).headers["Range"].partition("-")[2]) + 1
    assert client("PATCH", location, data[came:]).status == 202
    assert client("PUT", location, digest=digest_of(data)).status == 201
    assert client("GET", f"{name}/blobs/{digest_of(data)}").body == data


def modified(registry: RegistryThread, key: str) -> float:
    """When the storage has last been told of a key."""
    asking = registry.parts.manifests._storage.stat(key)
    return asyncio.run_coroutine_threadsafe(asking, registry.loop).result(20).modified


def test_head_of_a_manifest_by_digest_is_a_promise(registry: RegistryThread, client: Client, full: tuple[str, bytes]) -> None:
    name, manifest = full
    link = paths.revision(name, digest_of(manifest))
    pushed = modified(registry, link)
    assert client("GET", f"{name}/manifests/{digest_of(manifest)}").status == client("HEAD", f"{name}/manifests/{TAGS[0]}").status == 200
    assert modified(registry, link) == pushed
    assert client("HEAD", f"{name}/manifests/{digest_of(manifest)}").status == 200
    deadline = time.monotonic() + 20
    while modified(registry, link) <= pushed:  # a file system's clock ticks slowly
        assert client("HEAD", f"{name}/manifests/{digest_of(manifest)}").status == 200
        assert time.monotonic() < deadline


def test_a_query_with_too_many_fields(client: Client) -> None:
    refused(client("GET", "/v2/_catalog?" + "&".join(f"a{number}=" for number in range(1001))), 400, "UNSUPPORTED")


@pytest.mark.parametrize(("limit", "pages"), [("REFERRERS_MAX", [2, 2, 1]), ("REFERRERS_BYTES", [1] * 5)])
def test_a_long_list_of_referrers_has_pages(
    client: Client, name: str, monkeypatch: pytest.MonkeyPatch, limit: str, pages: list[int]
) -> None:
    monkeypatch.setattr(store, limit, 2)
    monkeypatch.setattr(store, "READ_AT_ONCE", 3)
    subject = client.push_image(name, "1")
    client.push_blob(name, EMPTY)
    kinds = ["a", "a", "a", "a", "a", "b"]
    pushed = [
        manifest_of(
            EMPTY, artifactType=f"application/vnd.example.{kind}", subject=descriptor(subject, MANIFEST), annotations={"n": str(at)}
        )
        for at, kind in enumerate(kinds)
    ]
    for manifest in pushed:
        assert client.put_manifest(name, digest_of(manifest), manifest).status == 201
    following, seen, found = f"{name}/referrers/{digest_of(subject)}?artifactType=application/vnd.example.a", [], set()
    while following:
        reply = client("GET", following)
        seen.append(len(reply.json["manifests"]))
        found |= {entry["digest"] for entry in reply.json["manifests"]}
        following = reply.headers.get("Link", "").partition(">")[0].lstrip("<")
    assert (seen, found) == (pages, {digest_of(manifest) for manifest in pushed[:5]})
