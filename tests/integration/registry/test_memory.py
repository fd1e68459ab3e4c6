"""A registry's memory does not grow with what is pulled and pushed: pieces are passed on, however slow the clients."""

import hashlib
import http.client
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from sampan.registry import paths
from tests.support.hugebucket import HugeBucket, huge_bucket
from tests.support.registryprogram import RegistryProgram

NAME = "team/huge"
DIGEST = "sha256:" + "ab" * 32
SIZE = 1 << 30
PULLS, ROUNDS = 64, 12
LIMIT = 100 << 20
LIMIT_OF_PUSHES = 128 << 20
"""Parts are in memory while they are sent: 12 of each push, without a bound, were 380 MB here."""
PUSHED = 256 << 20
PUSHES = 4


def resident(registry: RegistryProgram, what: str = "VmRSS") -> int:
    """Bytes; VmHWM: the most there ever were."""
    match = re.search(rf"{what}:\s+(\d+) kB", Path(f"/proc/{registry.process.pid}/status").read_text())
    assert match is not None
    return int(match[1]) * 1024


def most_while_pulling(registry: RegistryProgram) -> int:
    """Of many clients that read slowly, each in its turn."""
    with ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection(("127.0.0.1", registry.port), timeout=60)) for _ in range(PULLS)]
        for client in clients:
            client.sendall(f"GET /v2/{NAME}/blobs/{DIGEST} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
        most = 0
        for turn in range(ROUNDS):
            for client in clients:
                piece = client.recv(1 << 18)
                assert piece.startswith(b"HTTP/1.1 200") if not turn else piece
            most = max(most, resident(registry))
        return max(most, resident(registry, "VmHWM"))


def test_many_slow_pulls_from_files(tmp_path: Path) -> None:
    registry = RegistryProgram(tmp_path)
    try:
        for key in (paths.blob(DIGEST), paths.layer(NAME, DIGEST)):
            (registry.root / key).parent.mkdir(parents=True)
            (registry.root / key).write_text(DIGEST)
        with (registry.root / paths.blob(DIGEST)).open("r+b") as file:
            file.truncate(SIZE)
        assert most_while_pulling(registry) < LIMIT
    finally:
        registry.close()


@pytest.fixture
def bucket() -> Iterator[HugeBucket]:
    pytest.importorskip("obstore", reason="pip install obstore")
    with huge_bucket() as bucket:
        yield bucket


@pytest.fixture
def registry(bucket: HugeBucket, tmp_path: Path) -> Iterator[RegistryProgram]:
    """On the bucket."""
    s3 = {"bucket": "b", "region": "r", "endpoint": bucket.url}
    environment = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"}
    registry = RegistryProgram(tmp_path, settings={"s3": s3}, environment=environment)
    yield registry
    registry.close()


def test_many_slow_pulls_from_a_bucket(registry: RegistryProgram, bucket: HugeBucket) -> None:
    bucket.sizes = {paths.blob(DIGEST): SIZE, paths.layer(NAME, DIGEST): len(DIGEST)}
    assert most_while_pulling(registry) < LIMIT


def push(port: int, number: int) -> None:
    """Zeros but for a first byte."""
    first, piece = bytes([number]), bytes(1 << 20)
    digest = hashlib.sha256(first)
    for _ in range(PUSHED // len(piece)):
        digest.update(piece)
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=100)
    client.putrequest("POST", f"/v2/{NAME}/blobs/uploads/?digest=sha256:{digest.hexdigest()}")
    client.putheader("Content-Length", str(1 + PUSHED))
    client.endheaders(first)
    for _ in range(PUSHED // len(piece)):
        client.send(piece)
    assert client.getresponse().status == 201
    client.close()


@pytest.mark.slow
def test_pushes_to_a_bucket(registry: RegistryProgram, bucket: HugeBucket) -> None:
    pushing = [threading.Thread(target=push, args=(registry.port, number)) for number in range(PUSHES)]
    for thread in pushing:
        thread.start()
    for thread in pushing:
        thread.join()
    assert bucket.came >= PUSHES * PUSHED
    assert resident(registry, "VmHWM") < LIMIT_OF_PUSHES
