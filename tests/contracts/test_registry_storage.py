"""The storage contract, by each of the registry's storages."""

import json
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sampan.registry.filesystem import FileSystem
from sampan.registry.s3 import S3
from sampan.spec.oci_layout import MANIFEST
from tests.contracts.registry_storage import Place, StorageContract
from tests.support.registryserver import EMPTY, Client, RegistryThread, descriptor, digest_of, manifest_of, parts_over


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    pytest.importorskip("obstore", reason="pip install obstore")
    server = pytest.importorskip("moto.server", reason="pip install 'moto[server]'").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


class TestFileSystem(StorageContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        def make() -> FileSystem:
            return FileSystem(tmp_path)

        make()
        return Place(make, tmp_path)


def bucket_at(endpoint: str) -> Callable[[], S3]:
    """What opens the storage in a new bucket, again and again."""
    bucket = f"b{uuid.uuid4().hex}"
    with urllib.request.urlopen(urllib.request.Request(f"{endpoint}/{bucket}", method="PUT"), timeout=20) as answer:
        assert answer.status == 200
    settings = {"endpoint": endpoint, "region": "us-east-1", "access_key_id": "k", "secret_access_key": "s"}
    return lambda: S3.connect(bucket, prefix="below", settings=settings)


class TestS3(StorageContract):
    """Against moto's server, where obstore and moto are installed."""

    @pytest.fixture
    def place(self, endpoint: str, tmp_path: Path) -> Place:
        return Place(bucket_at(endpoint), tmp_path)


class TestApiOverS3:
    """A registry whose content is in a bucket."""

    @pytest.fixture
    def client(self, endpoint: str, tmp_path: Path) -> Iterator[Client]:
        connect = bucket_at(endpoint)
        server = RegistryThread(lambda: parts_over(connect(), tmp_path / "uploads"))
        client = Client(server.host)
        yield client
        client.close()
        server.close()

    def test_push_and_pull(self, client: Client) -> None:
        manifest = client.push_image("team/app", "1", size=300_000)
        layer = json.loads(manifest)["layers"][0]["digest"]
        assert client("GET", "team/app/manifests/1").body == manifest
        assert client("HEAD", f"team/app/manifests/{digest_of(manifest)}").status == 200
        content = client("GET", f"team/app/blobs/{layer}").body
        assert digest_of(content) == layer
        reply = client("GET", f"team/app/blobs/{layer}", None, {"Range": "bytes=1000-1999"})
        assert (reply.status, reply.body) == (206, content[1000:2000])
        assert client("HEAD", f"team/app/blobs/{digest_of(b'nothing')}").status == 404

    def test_an_upload_in_chunks_and_a_mount(self, client: Client) -> None:
        location = client("PATCH", client.begin("team/app"), b"01234").headers["Location"]
        assert client("PATCH", location, b"56789", {"Content-Range": "5-9"}).status == 202
        assert client("PUT", location, digest=digest_of(b"0123456789")).status == 201
        mount = {"mount": digest_of(b"0123456789"), "from": "team/app"}
        assert client("POST", "team/other/blobs/uploads/", None, None, **mount).status == 201
        assert client("GET", f"team/other/blobs/{digest_of(b'0123456789')}").body == b"0123456789"

    def test_lists_referrers_and_deletion(self, client: Client) -> None:
        manifest = client.push_image("team/app", "1")
        assert client.put_manifest("team/app", "2", manifest).status == 201
        client.push_blob("team/app", EMPTY)
        sbom = manifest_of(EMPTY, artifactType="application/vnd.example.sbom", subject=descriptor(manifest, MANIFEST))
        assert client.put_manifest("team/app", digest_of(sbom), sbom).headers["OCI-Subject"] == digest_of(manifest)
        assert client("GET", "team/app/tags/list").json["tags"] == ["1", "2"]
        assert client("GET", "_catalog").json["repositories"] == ["team/app"]
        entries = client("GET", f"team/app/referrers/{digest_of(manifest)}").json["manifests"]
        assert [entry["digest"] for entry in entries] == [digest_of(sbom)]
        assert client("DELETE", "team/app/manifests/1").status == 202
        assert client("GET", "team/app/tags/list").json["tags"] == ["2"]
        assert client("DELETE", f"team/app/manifests/{digest_of(manifest)}").status == 202
        assert client("GET", "team/app/manifests/2").status == 404
