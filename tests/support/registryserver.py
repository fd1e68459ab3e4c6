"""A registry of ours in this process, on a thread with a loop of its own; and a client that shows everything of an answer."""

import asyncio
import hashlib
import http.client
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

from sampan.metrics import Metrics
from sampan.registry.access.access import Access
from sampan.registry.access.rules import Rule, Rules
from sampan.registry.access.tokens import Tokens
from sampan.registry.app import App
from sampan.registry.filesystem import FileSystem
from sampan.registry.gate import Gate
from sampan.registry.parts import Limits, Parts
from sampan.registry.server import Server
from sampan.registry.storage import Storage
from sampan.registry.store import Blobs, Manifests
from sampan.registry.uploads import Uploads
from sampan.spec.oci_layout import CONFIG, INDEX, LAYER, MANIFEST

EMPTY = b"{}"
EVERYTHING = Rule(users=("anonymous",), actions=("pull", "push", "delete", "catalogue"))
EMPTY_TYPE = "application/vnd.oci.empty.v1+json"


def digest_of(data: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


def parts_over(storage: Storage, uploads: Path, **limits: int) -> Parts:
    """All parts of a registry over a storage."""
    gate = Gate()
    return Parts(Blobs(storage, gate), Manifests(storage, gate), Uploads(uploads, lifetime=3600), Limits(**limits))


class RegistryThread:
    """Serves on loopback until close(). root: its directory, where it is on() one."""

    root: Path

    def __init__(self, make: Callable[[], Parts]) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self.host = f"127.0.0.1:{self.port}"
        self._make = make
        self._ready = threading.Event()
        self._thread = threading.Thread(target=asyncio.run, args=(self._serve(),))
        self._thread.start()
        assert self._ready.wait(20)

    @classmethod
    def on(cls, root: Path, **limits: int) -> "RegistryThread":
        """With its files in a directory."""

        def make() -> Parts:
            storage = FileSystem(root)
            return parts_over(storage, storage.uploads, **limits)

        made = cls(make)
        made.root = root
        return made

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._end = asyncio.Event()
        self.parts = self._make()
        self.app = App(self.parts, Access(Rules([EVERYTHING]), None, Tokens(bytes(32), 300), bearer=False), Metrics())
        server = Server(self.app.answer, grace=2)
        await server.listen(self._listener)
        self._ready.set()
        await self._end.wait()
        await server.stop()

    def close(self) -> None:
        """Stop, and wait for it."""
        self.loop.call_soon_threadsafe(self._end.set)
        self._thread.join(20)


class Reply(NamedTuple):
    """An answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """Of the first error."""
        return str(self.json["errors"][0]["code"])


class Client:
    """One connection. Paths are below /v2/; a Location may be used as it is."""

    def __init__(self, host: str) -> None:
        self._connection = http.client.HTTPConnection(host, timeout=20)
        self.port = self._connection.port

    def close(self) -> None:
        self._connection.close()

    def __call__(
        self, method: str, path: str, body: bytes | Iterator[bytes] | None = None, headers: Mapping[str, str] | None = None, **query: str
    ) -> Reply:
        parts = urlsplit(path if path.startswith(("/", "http://")) else "/v2/" + path)
        pairs = [part for part in (parts.query, "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items())) if part]
        target = parts.path + ("?" + "&".join(pairs) if pairs else "")
        self._connection.request(method, target, body, dict(headers or {}), encode_chunked=not isinstance(body, (bytes, type(None))))
        answer = self._connection.getresponse()
        return Reply(answer.status, answer.headers, answer.read())

    def begin(self, name: str) -> str:
        """The location of a new upload."""
        reply = self("POST", f"{name}/blobs/uploads/")
        assert reply.status == 202, reply
        return reply.headers["Location"]

    def push_blob(self, name: str, data: bytes, algorithm: str = "sha256") -> str:
        """The blob's digest."""
        digest = digest_of(data, algorithm)
        reply = self("PUT", self.begin(name), data, digest=digest)
        assert reply.status == 201, reply
        return digest

    def push_image(self, name: str, tag: str, *, size: int = 100) -> bytes:
        """A new image of one layer; its manifest."""
        layer, config = os.urandom(size), json.dumps({"architecture": "amd64", "os": "linux", "x": os.urandom(8).hex()}).encode()
        self.push_blob(name, layer)
        self.push_blob(name, config)
        manifest = manifest_of(config, layer)
        reply = self.put_manifest(name, tag, manifest)
        assert reply.status == 201, reply
        return manifest

    def put_manifest(self, name: str, reference: str, manifest: bytes, kind: str = MANIFEST) -> Reply:
        return self("PUT", f"{name}/manifests/{reference}", manifest, {"Content-Type": kind})


def descriptor(data: bytes, kind: str) -> dict[str, Any]:
    return {"mediaType": kind, "digest": digest_of(data), "size": len(data)}


def manifest_of(config: bytes, *layers: bytes, **more: Any) -> bytes:
    """An OCI manifest."""
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(config, CONFIG),
        "layers": [descriptor(layer, LAYER + "+gzip") for layer in layers],
    }
    return json.dumps({**document, **more}).encode()


def index_of(*manifests: bytes) -> bytes:
    """An OCI index."""
    entries = [descriptor(manifest, MANIFEST) for manifest in manifests]
    return json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).encode()
