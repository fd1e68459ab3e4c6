"""A bucket of S3 in this process whose objects may be huge: they are zeros, made while they are sent, and forgotten when they come."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

PIECE = bytes(64 * 1024)


class HugeBucket(ThreadingHTTPServer):
    """sizes: of objects, by the ends of their keys. came: bytes of bodies."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.sizes: dict[str, int] = {}
        self.came = 0
        self.lock = threading.Lock()

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that go are no news."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def size_of(self, key: str) -> int | None:
        return next((size for end, size in self.sizes.items() if key.endswith(end)), None)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HugeBucket

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _reply(self, status: int, length: int, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        self.send_header("ETag", '"e"')
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def do_HEAD(self) -> None:
        size = self.server.size_of(urlsplit(self.path).path)
        self._reply(404 if size is None else 200, size or 0)

    def do_GET(self) -> None:
        size = self.server.size_of(urlsplit(self.path).path)
        if size is None:
            self._reply(404, 0)
            return
        start, end = 0, size
        if match := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")):
            start, end = int(match[1]), min(size, int(match[2]) + 1)
        self._reply(206, end - start, Content_Range=f"bytes {start}-{end - 1}/{size}")
        try:
            while start < end:
                start += self.wfile.write(PIECE[: end - start])
        except OSError:
            self.close_connection = True

    def do_PUT(self) -> None:
        left = int(self.headers["Content-Length"])
        while left and (piece := self.rfile.read(min(left, len(PIECE)))):
            left -= len(piece)
            with self.server.lock:
                self.server.came += len(piece)
        self._reply(200, 0)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        begins = "uploadId" not in urlsplit(self.path).query
        body = b"<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>"
        if not begins:
            body = b'<CompleteMultipartUploadResult><ETag>"e"</ETag></CompleteMultipartUploadResult>'
        self._reply(200, len(body))
        self.wfile.write(body)


@contextmanager
def huge_bucket() -> Iterator[HugeBucket]:
    """Running."""
    bucket = HugeBucket()
    thread = threading.Thread(target=bucket.serve_forever, daemon=True)
    thread.start()
    yield bucket
    bucket.shutdown()
    thread.join(20)
    bucket.server_close()
