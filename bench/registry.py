"""`sampan registry serve` beside apt's docker-registry, samples in turn; prints a table, writes every sample to docs/bench/.

The clients are the same for both: plain sockets. Both registries have the same directory layout, so what is pulled is put in place by hand.
"""

import argparse
import contextlib
import hashlib
import http.client
import json
import os
import platform
import selectors
import shutil
import socket
import ssl
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.support.certificates import Authority
from tests.support.realregistry import RealRegistry
from tests.support.registryprogram import RegistryProgram
from tests.support.registryserver import EMPTY, digest_of, manifest_of

ROOT = Path(__file__).resolve().parent.parent
BLOB_BYTES = 500_000_000
HUGE_BYTES = 1_000_000_000
TAGS = 10_000
PULLS = 64
NAME = "bench/app"
LATENCY_SECONDS = 3.0
GOALS = {
    "blob_get": 1.0, "blob_get_tls": 1.5, "blob_put": 1.0,
    "manifest_1": 1.5, "manifest_16": 1.5, "manifest_64": 1.5, "manifest_64_p99": 1.5, "tags_10000": 1.0,
    "mem_idle": 2.0, "mem_64_pulls": 2.0,
}  # fmt: skip
"""Ratios of times and bytes to docker-registry's: lower is better."""


class Target:
    """A registry that runs. root: its storage; pid: its process; tls: how clients speak to it; secure: the same one by TLS."""

    def __init__(self, name: str, host: str, root: Path, pid: int, tls: ssl.SSLContext | None = None) -> None:
        self.name, self.host, self.root, self.pid = name, host, root, pid
        address, _, port = host.partition(":")
        self.address = (address, int(port))
        self._tls = tls
        self.secure: Target | None = None

    def connect(self) -> socket.socket:
        """A connection, by TLS if it wants that."""
        connection = socket.create_connection(self.address)
        return connection if self._tls is None else self._tls.wrap_socket(connection, server_hostname=self.address[0])

    def put_in_place(self, key: str, content: bytes) -> None:
        """A file of docker-registry's layout."""
        path = self.root / "docker/registry/v2" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def have_blob(self, file: Path, digest: str) -> None:
        """A blob of the bench's repository; its file is linked, not copied."""
        encoded = digest.partition(":")[2]
        path = self.root / f"docker/registry/v2/blobs/sha256/{encoded[:2]}/{encoded}/data"
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(file, path)
        self.put_in_place(f"repositories/{NAME}/_layers/sha256/{encoded}/link", digest.encode())

    def have_manifest(self, body: bytes, tags: list[str]) -> None:
        """A manifest, under tags."""
        digest = digest_of(body)
        encoded = digest.partition(":")[2]
        self.put_in_place(f"blobs/sha256/{encoded[:2]}/{encoded}/data", body)
        self.put_in_place(f"repositories/{NAME}/_manifests/revisions/sha256/{encoded}/link", digest.encode())
        for tag in tags:
            self.put_in_place(f"repositories/{NAME}/_manifests/tags/{tag}/current/link", digest.encode())

    def pss(self) -> float:
        """Bytes of memory."""
        for line in Path(f"/proc/{self.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024.0
        raise AssertionError("no Pss")


def request_of(path: str) -> bytes:
    return f"GET /v2/{path} HTTP/1.1\r\nHost: bench\r\nAccept: application/vnd.oci.image.manifest.v1+json\r\n\r\n".encode()


def blob_get(target: Target, digest: str, size: int) -> float:
    """Seconds for a whole blob."""
    began = time.perf_counter()
    buffer = memoryview(bytearray(1 << 20))
    with target.connect() as connection:
        connection.sendall(request_of(f"{NAME}/blobs/{digest}"))
        head = b""
        while b"\r\n\r\n" not in head:
            head += connection.recv(65536)
        end = head.index(b"\r\n\r\n") + 4
        assert head.startswith(b"HTTP/1.1 200"), head[:200]
        left = size - (len(head) - end)
        while left:
            count = connection.recv_into(buffer)
            assert count
            left -= count
    return time.perf_counter() - began


def blob_put(target: Target, file: Path, salt: bytes) -> float:
    """Seconds for POST, one PATCH and PUT, as docker does it; the content is new each time."""
    connection = http.client.HTTPConnection(target.host, timeout=600)
    digest = hashlib.sha256(salt)
    with file.open("rb") as source:
        while piece := source.read(1 << 20):
            digest.update(piece)
    began = time.perf_counter()
    connection.request("POST", f"/v2/{NAME}/blobs/uploads/")
    answer = connection.getresponse()
    answer.read()
    location = answer.headers["Location"]
    connection.putrequest("PATCH", location)
    connection.putheader("Content-Length", str(len(salt) + file.stat().st_size))
    connection.endheaders(salt)
    with file.open("rb") as source:
        connection.sock.sendfile(source)
    answer = connection.getresponse()
    answer.read()
    assert answer.status == 202, answer.status
    location = answer.headers["Location"]
    connection.request("PUT", f"{location}{'&' if '?' in location else '?'}digest=sha256:{digest.hexdigest()}")
    answer = connection.getresponse()
    answer.read()
    assert answer.status == 201, answer.status
    took = time.perf_counter() - began
    connection.close()
    return took


def latencies(target: Target, path: str, clients: int, seconds: float) -> list[float]:
    """Of requests by so many clients at once, each on a connection of its own, one after the other; sorted."""
    request = request_of(path)
    selector = selectors.DefaultSelector()
    found: list[float] = []
    waiting: dict[socket.socket, tuple[float, bytearray]] = {}
    connections = [socket.create_connection(target.address) for _ in range(clients)]
    for connection in connections:
        selector.register(connection, selectors.EVENT_READ)
        waiting[connection] = (time.perf_counter(), bytearray())
        connection.sendall(request)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for key, _ in selector.select(1):
            connection = key.fileobj
            assert isinstance(connection, socket.socket)
            began, buffer = waiting[connection]
            buffer += connection.recv(65536)
            head = buffer.find(b"\r\n\r\n")
            if head < 0:
                continue
            length = int(buffer[:head].lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            if len(buffer) < head + 4 + length:
                continue
            assert buffer.startswith(b"HTTP/1.1 200"), bytes(buffer[:200])
            now = time.perf_counter()
            found.append(now - began)
            waiting[connection] = (now, bytearray())
            connection.sendall(request)
    for connection in connections:
        connection.close()
    selector.close()
    return sorted(found)


def tags(target: Target) -> float:
    """Seconds for the whole list."""
    connection = http.client.HTTPConnection(target.host, timeout=600)
    began = time.perf_counter()
    connection.request("GET", f"/v2/{NAME}/tags/list")
    body = connection.getresponse().read()
    took = time.perf_counter() - began
    assert len(json.loads(body)["tags"]) == TAGS + 1
    connection.close()
    return took


def memory_at_pulls(target: Target, digest: str) -> float:
    """Bytes while 64 clients pull 1 GB each, slowly."""
    connections = []
    for _ in range(PULLS):
        connection = socket.create_connection(target.address)
        connection.sendall(request_of(f"{NAME}/blobs/{digest}"))
        connections.append(connection)
    worst = 0.0
    for _ in range(40):
        for connection in connections:
            assert connection.recv(1 << 18)
        worst = max(worst, target.pss())
    for connection in connections:
        connection.close()
    return worst


def rows(target: Target, files: dict[str, tuple[Path, str]], turn: int) -> Iterator[tuple[str, Callable[[], float]]]:
    """Each row's name and what takes a sample."""
    yield "mem_idle", target.pss
    yield "blob_get", lambda: blob_get(target, files["blob"][1], BLOB_BYTES)
    if target.secure is not None:
        yield "blob_get_tls", lambda secure=target.secure: blob_get(secure, files["blob"][1], BLOB_BYTES)  # type: ignore[misc]
    yield "blob_put", lambda: blob_put(target, files["blob"][0], f"{target.name} {turn} ".encode())
    for clients in (1, 16, 64):
        yield (
            f"manifest_{clients}",
            lambda clients=clients: statistics.median(  # type: ignore[misc]
                latencies(target, f"{NAME}/manifests/latest", clients, LATENCY_SECONDS)
            ),
        )
    yield "manifest_64_p99", lambda: (found := latencies(target, f"{NAME}/manifests/latest", 64, LATENCY_SECONDS))[int(len(found) * 0.99)]
    yield "tags_10000", lambda: tags(target)
    yield "mem_64_pulls", lambda: memory_at_pulls(target, files["huge"][1])


def make_files(directory: Path) -> dict[str, tuple[Path, str]]:
    """A blob of random bytes, and a huge one of nothing."""
    found = {}
    for name, size in (("blob", BLOB_BYTES), ("huge", HUGE_BYTES)):
        path = directory / name
        digest = hashlib.sha256()
        with path.open("wb") as file:
            if name == "huge":
                file.truncate(size)
            for start in range(0, size, 1 << 20):
                piece = bytes(min(1 << 20, size - start)) if name == "huge" else os.urandom(min(1 << 20, size - start))
                digest.update(piece)
                if name != "huge":
                    file.write(piece)
        found[name] = (path, "sha256:" + digest.hexdigest())
    return found


def secure_ones(directory: Path, stack: contextlib.ExitStack) -> list[Target]:
    """Both once more, by TLS."""
    authority = Authority(directory / "authority")
    certificate, key = map(str, authority.issue("registry", "127.0.0.1"))
    ours = RegistryProgram(directory / "ours-tls", settings={"tls": {"certificate": certificate, "key": key}})
    stack.callback(ours.close)
    real = RealRegistry(directory / "theirs-tls", tls={"certificate": certificate, "key": key})
    stack.callback(real.close)
    context = ssl.create_default_context(cafile=str(authority.certificate))
    return [
        Target("sampan", ours.host, ours.root, ours.process.pid, context),
        Target("docker-registry", real.host, directory / "theirs-tls/data", real.process.pid, context),
    ]


def show(name: str, value: float) -> str:
    if name.startswith("mem_"):
        return f"{value / 1e6:.1f} MB"
    if name.startswith("blob_"):
        return f"{BLOB_BYTES / 1e6 / value:.0f} MB/s"
    return f"{value * 1e3:.2f} ms"


def main() -> int:
    """Run it; 1 when a goal is missed."""
    parser = argparse.ArgumentParser(prog="./dev bench-registry", description=__doc__)
    parser.add_argument("rows", nargs="*", help="only these rows")
    parser.add_argument("--runs", type=int, default=5, help="samples of each row, after one that is dropped (default 5)")
    parser.add_argument("--json", help="where to write the samples (default docs/bench/DATE-registry.json)")
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="sampan-bench-registry-", dir="/var/tmp"))
    missed = False
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        ours = RegistryProgram(directory / "ours", settings={"access-log": "json"})
        stack.callback(ours.close)
        real = RealRegistry(directory / "theirs")
        stack.callback(real.close)
        targets = [
            Target("sampan", ours.host, ours.root, ours.process.pid),
            Target("docker-registry", real.host, directory / "theirs/data", real.process.pid),
        ]
        for target, secure in zip(targets, secure_ones(directory, stack), strict=True):
            target.secure = secure
        files = make_files(directory)
        manifest = manifest_of(EMPTY, *(bytes([number]) for number in range(6)))
        for target in targets:
            for path, digest in files.values():
                target.have_blob(path, digest)
            if target.secure is not None:
                target.secure.have_blob(*files["blob"])
            target.have_manifest(manifest, ["latest", *(f"v{number}" for number in range(TAGS))])
        samples: dict[str, dict[str, list[float]]] = {name: {target.name: [] for target in targets} for name in GOALS}
        for turn in range(options.runs + 1):
            for pairs in zip(*(rows(target, files, turn) for target in targets), strict=True):
                for target, (name, sample) in zip(targets, pairs, strict=True):
                    if not options.rows or name in options.rows:
                        value = sample()
                        if turn:
                            samples[name][target.name].append(value)
        print(f"{options.runs} samples each, {os.cpu_count()} cores, kernel {platform.release()}\n")
        print("| row | sampan | docker-registry | ratio | goal | met |\n|---|---|---|---|---|---|")
        for name, goal in GOALS.items():
            if not samples[name]["sampan"]:
                continue
            mine, theirs = (statistics.median(samples[name][target.name]) for target in targets)
            met = mine / theirs <= goal
            missed |= not met
            print(f"| {name} | {show(name, mine)} | {show(name, theirs)} | {mine / theirs:.2f} | {goal} | {'yes' if met else 'no'} |")
    if not options.rows or options.json:
        path = Path(options.json or ROOT / f"docs/bench/{time.strftime('%Y-%m-%d')}-registry.json")
        record = {"runs": options.runs, "kernel": platform.release(), "cores": os.cpu_count(), "rows": samples, "goals": GOALS}
        path.write_text(json.dumps(record, indent=1) + "\n")
        print(f"\nall samples: {path}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
