"""A registry that holds images in memory, counts what it serves and receives, and can be told to misbehave."""

import base64
import contextlib
import hashlib
import json
import ssl
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from tests.support.serving import Serving

if TYPE_CHECKING:
    from email.message import Message

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"
LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


def digest_of(data: bytes) -> str:
    """`sha256:<hex>`"""
    return "sha256:" + hashlib.sha256(data).hexdigest()


class FaultyRegistry(Serving):
    """Serves on loopback. `cut_after`: bytes of a blob after which each connection breaks, None for never; `delay`: seconds a block."""

    def __init__(self, tls: ssl.SSLContext | None = None, address: str = "127.0.0.1") -> None:
        self.manifests: dict[str, tuple[str, bytes]] = {}
        """`path:tag` or `path@digest` → media type, body"""
        self.blobs: dict[str, bytes] = {}
        self.served: dict[str, int] = {}
        """Bytes sent, by digest"""
        self.requests: list[str] = []
        self.headers: list[Message] = []
        """Of all requests"""
        self.cut_after: int | None = None
        self.stall_after: int | None = None
        """Bytes of a blob after which nothing more comes, on a connection that stays"""
        self.delay = 0.0
        self.block = 65536
        """Bytes of a blob that are sent at once"""
        self.released = threading.Event()
        """Ends the stalls"""
        self.ranges = True
        self.change: Callable[[str, bytes], bytes] = lambda _digest, data: data
        """What is sent in place of a blob"""
        self.refuse: tuple[int, dict[str, str], bytes] | None = None
        """Status, headers and body of every answer but to /v2/"""
        self.refuse_times = -1
        """After so many it no longer refuses"""
        self.refuse_ping = False
        """Whether /v2/ is refused as well"""
        self.refuse_tokens = 0
        """The token server's status, if it is to fail"""
        self.hang: dict[str, threading.Event] = {}
        """Requests with this in their path are answered once the event is set"""
        self.login: tuple[str, str] | None = None
        """User and password that the token server wants"""
        self.anonymous = False
        """Whether the token server also gives tokens to those who say nothing"""
        self.tokens: set[str] = set()
        self.challenge = ""
        """WWW-Authenticate of a refusal, instead of our own token server's"""
        self.token_answer: dict[str, object] = {}
        """Over what the token server says"""
        self.held: dict[str, set[str]] = {}
        """Digests of blobs by repository"""
        self.uploads: dict[str, bytearray] = {}
        self.received = 0
        """Bytes of uploads"""
        self.cut_uploads: list[int] = []
        """After so many bytes the next upload's connection breaks"""
        self.lose_answers = 0
        """So many PUTs are done, but not answered"""
        self.lengthless_heads = False
        """Whether answers to HEAD say no Content-Length"""
        self.mounting = True
        self.resuming = True
        registry = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                with contextlib.suppress(ConnectionError):
                    registry.answer(self)

            do_HEAD = do_POST = do_PATCH = do_PUT = do_GET

            def handle(self) -> None:
                with contextlib.suppress(ConnectionError, ssl.SSLError):
                    super().handle()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.scheme = "http" if tls is None else "https"
        super().__init__(Handler, address, tls)

    def close(self) -> None:
        """Stop serving, and all that stalls."""
        self.released.set()
        super().close()

    def add(self, path: str, tag: str, document: bytes, layers: list[bytes], *, compress: Callable[[bytes], bytes] = bytes) -> str:
        """An image; layers are tars. Returns the manifest's digest."""
        packed = [compress(layer) for layer in layers]
        for blob in (document, *packed):
            self.blobs[digest_of(blob)] = blob
            self.held.setdefault(path, set()).add(digest_of(blob))
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "size": len(document), "digest": digest_of(document)},
            "layers": [{"mediaType": LAYER, "size": len(blob), "digest": digest_of(blob)} for blob in packed],
        }
        return self.add_manifest(path, tag, json.dumps(manifest).encode(), MANIFEST)

    def add_manifest(self, path: str, tag: str, body: bytes, media_type: str) -> str:
        """A manifest or index by tag and digest. Returns the digest."""
        digest = digest_of(body)
        self.manifests[f"{path}:{tag}"] = self.manifests[f"{path}@{digest}"] = (media_type, body)
        return digest

    @property
    def total_served(self) -> int:
        """Bytes of blobs sent in all."""
        return sum(self.served.values())

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """One request."""
        self.requests.append(f"{request.command} {request.path}")
        self.headers.append(request.headers)
        url = urlsplit(request.path)
        for part, event in self.hang.items():
            if part in url.path:
                event.wait(60)
        if url.path == "/token" and self.refuse_tokens:
            return self._send(request, self.refuse_tokens, b"")
        if url.path == "/token":
            return self._token(request, parse_qs(url.query))
        if self.login is not None and request.headers.get("Authorization", "").removeprefix("Bearer ") not in self.tokens:
            scope = "repository:" + "/".join(url.path.split("/")[2:-2]) + ":pull"
            challenge = self.challenge or f'Bearer realm="{self.scheme}://{self.host}/token",service="faulty",scope="{scope}"'
            return self._send(
                request, 401, b'{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}', {"WWW-Authenticate": challenge}
            )
        if url.path == "/v2/" and not self.refuse_ping:
            return self._send(request, 200, b"{}")
        if self.refuse is not None and self.refuse_times:
            self.refuse_times -= 1
            status, headers, body = self.refuse
            return self._send(request, status, body, headers)
        path, _, name = url.path.removeprefix("/v2/").rpartition("/")
        path, _, kind = path.rpartition("/")
        if kind == "manifests" and request.command == "PUT":
            return self._put_manifest(request, path, name)
        if kind == "manifests":
            return self._manifest(request, path, name)
        if kind == "uploads":
            return self._upload(request, path.removesuffix("/blobs"), name, parse_qs(url.query))
        if kind == "blobs" and request.command == "HEAD":
            here = name in self.held.get(path, ())
            return self._send(request, 200 if here else 404, b"", {"Content-Length": str(len(self.blobs[name])) if here else "0"})
        if kind == "blobs":
            return self._blob(request, name)
        if kind == "tags":
            tags = sorted(key.rpartition(":")[2] for key in self.manifests if key.startswith(f"{path}:"))
            return self._send(request, 200, json.dumps({"name": path, "tags": tags}).encode())
        return self._send(request, 404, b"{}")

    def _token(self, request: BaseHTTPRequestHandler, query: dict[str, list[str]]) -> None:
        assert self.login is not None
        wanted = "Basic " + base64.b64encode(":".join(self.login).encode()).decode()
        given = request.headers.get("Authorization")
        if given != wanted and not (given is None and self.anonymous):
            return self._send(request, 401, b'{"details":"incorrect username or password"}')
        token = f"token-for-{query.get('scope', ['nothing'])[0]}-{len(self.tokens)}"
        self.tokens.add(token)
        return self._send(request, 200, json.dumps({"token": token, "expires_in": 300, **self.token_answer}).encode())

    def _upload(self, request: BaseHTTPRequestHandler, path: str, name: str, query: dict[str, list[str]]) -> None:
        """The upload of a blob: POST begins, PATCH adds, GET asks how far it is, PUT ends it."""
        if request.command == "POST":
            digest = query.get("mount", [""])[0]
            if self.mounting and digest in self.held.get(query.get("from", [""])[0], ()):
                self.held.setdefault(path, set()).add(digest)
                return self._send(request, 201, b"", {"Location": f"/v2/{path}/blobs/{digest}"})
            name = uuid.uuid4().hex
            self.uploads[name] = bytearray()
            return self._send(request, 202, b"", {"Location": f"/v2/{path}/blobs/uploads/{name}?state=a%2Fb"})
        upload = self.uploads.get(name)
        if upload is None or query.get("state") != ["a/b"]:
            for _ in _sent(request):
                pass
            return self._send(request, 404, b'{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN","message":"blob upload unknown to registry"}]}')
        here = {"Location": f"/v2/{path}/blobs/uploads/{name}?state=a%2Fb", "Range": f"0-{max(0, len(upload) - 1)}"}
        if request.command == "GET":
            return self._send(request, 204 if self.resuming else 404, b"", here)
        start = request.headers.get("Content-Range", "").partition("-")[0]
        if start and int(start) != len(upload):
            return self._send(request, 416, b"", here)
        cut = self.cut_uploads.pop(0) if self.cut_uploads and request.command == "PATCH" else None
        for piece in _sent(request):
            upload += piece
            self.received += len(piece)
            time.sleep(self.delay)
            if cut is not None and len(upload) >= cut:
                request.close_connection = True
                return None
        if request.command == "PATCH":
            return self._send(request, 202, b"", {**here, "Range": f"0-{len(upload) - 1}"})
        digest = query["digest"][0]
        if digest_of(bytes(upload)) != digest:
            return self._send(
                request, 400, b'{"errors":[{"code":"DIGEST_INVALID","message":"provided digest did not match uploaded content"}]}'
            )
        self.blobs[digest] = bytes(self.uploads.pop(name))
        self.held.setdefault(path, set()).add(digest)
        if self._lost(request):
            return None
        return self._send(request, 201, b"", {"Location": f"/v2/{path}/blobs/{digest}"})

    def _lost(self, request: BaseHTTPRequestHandler) -> bool:
        """Whether an answer is not to arrive."""
        if not self.lose_answers:
            return False
        self.lose_answers -= 1
        request.close_connection = True
        return True

    def _put_manifest(self, request: BaseHTTPRequestHandler, path: str, name: str) -> None:
        body = b"".join(_sent(request))
        manifest = json.loads(body)
        for item in (manifest["config"], *manifest["layers"]):
            if item["digest"] not in self.held.get(path, ()):
                return self._send(request, 400, b'{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":"blob unknown to registry"}]}')
        digest = self.add_manifest(path, name, body, request.headers["Content-Type"])
        if self._lost(request):
            return None
        return self._send(request, 201, b"", {"Docker-Content-Digest": digest, "Location": f"/v2/{path}/manifests/{digest}"})

    def _manifest(self, request: BaseHTTPRequestHandler, path: str, name: str) -> None:
        found = self.manifests.get(f"{path}@{name}" if ":" in name else f"{path}:{name}")
        if found is None:
            return self._send(request, 404, b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}')
        return self._send(request, 200, found[1], {"Docker-Content-Digest": digest_of(found[1])}, found[0])

    def _blob(self, request: BaseHTTPRequestHandler, digest: str) -> None:
        if digest not in self.blobs:
            return self._send(request, 404, b'{"errors":[{"code":"BLOB_UNKNOWN","message":"blob unknown to registry"}]}')
        data = self.change(digest, self.blobs[digest])
        start = 0
        asked = request.headers.get("Range", "")
        if asked and self.ranges:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
        request.send_response(206 if start else 200)
        request.send_header("Content-Type", "application/octet-stream")
        request.send_header("Content-Length", str(len(data) - start))
        request.end_headers()
        sent = 0
        for at in range(start, len(data), self.block):
            block = data[at : at + self.block]
            if self.cut_after is not None and sent + len(block) > self.cut_after:
                block = block[: self.cut_after - sent]
            request.wfile.write(block)
            sent += len(block)
            self.served[digest] = self.served.get(digest, 0) + len(block)
            if self.cut_after is not None and sent >= self.cut_after:
                request.close_connection = True
                return
            if self.delay:
                time.sleep(self.delay)
            if self.stall_after is not None and sent >= self.stall_after:
                self.released.wait(60)
                return

    def _send(
        self,
        request: BaseHTTPRequestHandler,
        status: int,
        body: bytes,
        headers: dict[str, str] | None = None,
        media_type: str = "application/json",
    ) -> None:
        request.send_response(status)
        for name, value in {"Content-Type": media_type, "Content-Length": str(len(body)), **(headers or {})}.items():
            if name != "Content-Length" or request.command != "HEAD" or not self.lengthless_heads:
                request.send_header(name, value)
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(body)


def _sent(request: BaseHTTPRequestHandler) -> Iterator[bytes]:
    """The body of a request, by its length or in chunks."""
    if request.headers.get("Transfer-Encoding") == "chunked":
        while size := int(request.rfile.readline(), 16):
            yield request.rfile.read(size)
            request.rfile.readline()
        request.rfile.readline()
        return
    left = int(request.headers.get("Content-Length", "0"))
    while left:
        piece = request.rfile.read(min(left, 65536))
        if not piece:
            return
        left -= len(piece)
        yield piece
