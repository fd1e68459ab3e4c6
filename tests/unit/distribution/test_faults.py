"""Registries that stall, cut, ask for patience, never end, or send what was not asked for: in this process, without an engine."""

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from sampan.content.partial import PartialBlob, PartialBlobs
from sampan.distribution import fetch, registry
from sampan.distribution.auth import Authorizer
from sampan.distribution.endpoints import Endpoint
from sampan.distribution.registry import Refused, Repository
from sampan.distribution.transport import Transport, Unreachable
from sampan.errors import EngineError, InvalidArgument
from sampan.proxies import Proxies
from sampan.spec.docker_api.auth import AuthConfig
from sampan.spec.oci_layout import Descriptor
from tests.support.faultyregistry import FaultyRegistry, digest_of

T = TypeVar("T")
DATA = bytes(range(256)) * 4000


@pytest.fixture
def registries() -> Iterator[list[FaultyRegistry]]:
    """Two that have the blob."""
    both = [FaultyRegistry(), FaultyRegistry()]
    for one in both:
        one.blobs[digest_of(DATA)] = DATA
    yield both
    for one in both:
        one.close()


@asynccontextmanager
async def repositories(hosts: list[str]) -> AsyncIterator[list[Repository]]:
    """The repository `app` there; all but the last are mirrors."""
    async with Transport("test", Proxies()) as transport:
        places = [Endpoint(f"http://{host}", insecure=True, mirror=host != hosts[-1]) for host in hosts]
        yield [Repository(transport, place, "app", Authorizer(transport, AuthConfig(), place)) for place in places]


def ask(host: str, question: Callable[[Repository], Awaitable[T]]) -> T:
    async def asked() -> T:
        async with repositories([host]) as [one]:
            return await question(one)

    return asyncio.run(asked())


def fetched(hosts: list[str], root: Path, data: bytes = DATA, attempts: int = 3) -> tuple[bytes, list[str]]:
    """The blob from the first of the hosts that gives it, and what was said meanwhile."""
    said: list[str] = []

    async def scenario() -> bytes:
        blob: PartialBlob = PartialBlobs(root).open(digest_of(data), len(data))
        try:
            async with repositories(hosts) as found:
                await fetch.fetch(found, blob, attempts=attempts, progress=said.append)
            return next(root.glob("content/partial/*")).read_bytes()
        finally:
            blob.close()

    return asyncio.run(scenario()), said


def test_a_mirror_that_stalls_is_left_and_nothing_comes_twice(
    registries: list[FaultyRegistry], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "MIRROR_READ_SECONDS", 0.2)
    monkeypatch.setattr(fetch, "MIRROR_ATTEMPTS", 1)
    registries[0].stall_after = 500_000
    assert fetched([one.host for one in registries], tmp_path)[0] == DATA
    assert sum(one.total_served for one in registries) == len(DATA)


def test_cut_after_every_few_bytes(registries: list[FaultyRegistry], tmp_path: Path) -> None:
    short = DATA[:50]
    registries[1].blobs[digest_of(short)] = short
    for cut in (1, 7, 49):
        registries[1].cut_after, registries[1].served = cut, {}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(fetch, "pause", _no_pause)
            assert fetched([registries[1].host], tmp_path / str(cut), short)[0] == short
        assert registries[1].total_served == len(short)


def test_a_mirror_that_gives_next_to_nothing_is_left(
    registries: list[FaultyRegistry], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "pause", _no_pause)
    registries[0].cut_after = 100
    assert fetched([one.host for one in registries], tmp_path)[0] == DATA
    assert registries[0].total_served <= 100 * fetch.MIRROR_ATTEMPTS
    monkeypatch.setattr(fetch, "SLOW_SECONDS", 0.0)
    monkeypatch.setattr(fetch, "SLOW_BYTES", len(DATA))
    registries[0].cut_after, registries[0].served = None, {}
    assert fetched([one.host for one in registries], tmp_path / "slow")[0] == DATA
    assert registries[1].total_served > 0


def test_a_mirror_that_drips_what_is_no_byte_of_the_blob_is_left(
    registries: list[FaultyRegistry], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "pause", _no_pause)
    monkeypatch.setattr(fetch, "SLOW_SECONDS", 0.3)
    ended = threading.Event()

    def drip(listener: socket.socket) -> None:
        with contextlib.suppress(OSError), listener.accept()[0] as connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;")
            while not ended.wait(0.02):
                connection.sendall(b"a")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        host = f"127.0.0.1:{listener.getsockname()[1]}"
        dripping = [threading.Thread(target=drip, args=(listener,)) for _ in range(fetch.MIRROR_ATTEMPTS)]
        late = threading.Timer(14, ended.set)
        for thread in (*dripping, late):
            thread.start()
        assert fetched([host, registries[1].host], tmp_path)[0] == DATA
        assert not ended.is_set()
        late.cancel()
        ended.set()
        for thread in dripping:
            thread.join(10)


async def _no_pause(*_: object) -> None:
    pass


@pytest.mark.parametrize(("status", "after", "seconds"), [(429, "7", 7), (503, "3", 3), (503, "", 1), (429, "100000", 60)])
def test_a_layer_waits_as_long_as_the_registry_asks_for(
    registries: list[FaultyRegistry], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, after: str, seconds: int
) -> None:
    slept: list[float] = []

    async def sleep(count: float) -> None:
        slept.append(count)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    registries[1].refuse, registries[1].refuse_times = (status, {"Retry-After": after} if after else {}, b""), 1
    data, said = fetched([registries[1].host], tmp_path)
    assert (data, sum(slept)) == (DATA, seconds)
    assert f"Retrying in {seconds} second{'s' * (seconds != 1)}" in said


def test_a_manifest_that_is_another_one() -> None:
    one = FaultyRegistry()
    try:
        one.manifests[f"app@{digest_of(b'wanted')}"] = ("application/json", b"{}")
        with pytest.raises(InvalidArgument, match="manifest verification failed for digest sha256:"):
            ask(one.host, lambda there: there.manifest(digest_of(b"wanted")))
    finally:
        one.close()


@pytest.mark.parametrize("kind", registry.SCHEMA1_TYPES)
def test_the_format_of_before_2017_is_refused_clearly(kind: str) -> None:
    one = FaultyRegistry()
    try:
        one.add_manifest("app", "1", b"{}", kind)
        with pytest.raises(InvalidArgument, match="no longer supported: the image is in the format of before 2017"):
            ask(one.host, lambda there: there.manifest("1"))
    finally:
        one.close()


@asynccontextmanager
async def without_end(status: bytes, sent: list[int]) -> AsyncIterator[str]:
    """HOST:PORT that answers everything with a body that never ends; sent: bytes for each connection."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n")
        number = len(sent)
        sent.append(0)
        try:
            while sent[number] < 1 << 30:
                writer.write(b" " * 65536)
                sent[number] += 65536
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize(
    ("status", "question", "limit"),
    [
        (b"200 OK", lambda there: there.manifest("1"), registry.MANIFEST_MAX),
        (b"404 Not Found", lambda there: there.manifest("1"), registry.ERROR_MAX),
        (b"200 OK", lambda there: there.tags(), registry.MANIFEST_MAX),
        (b"200 OK", lambda there: there.document(Descriptor("x", digest_of(b""), 5), 1000), 1000),
    ],
    ids=["manifest", "error", "tags", "config"],
)
def test_bodies_without_an_end(status: bytes, question: Callable[[Repository], Awaitable[object]], limit: int) -> None:
    sent: list[int] = []

    async def scenario() -> None:
        async with without_end(status, sent) as host, repositories([host]) as [there]:
            words = f"longer than {limit} bytes" if status.startswith(b"200") else "unexpected HTTP status: 404 Not Found"
            with pytest.raises(EngineError, match=words):
                await question(there)

    asyncio.run(scenario())
    assert sum(sent) < limit + (32 << 20), "what the kernel's buffers hold at the most"


def test_a_layer_without_an_end(tmp_path: Path) -> None:
    async def scenario() -> None:
        blob = PartialBlobs(tmp_path).open(digest_of(DATA), len(DATA))
        try:
            async with without_end(b"200 OK", []) as host, repositories([host]) as found:
                with pytest.raises(InvalidArgument, match=f"more than the {len(DATA)} bytes"):
                    await fetch.fetch(found, blob, attempts=3, progress=lambda _: None)
        finally:
            blob.close()

    asyncio.run(scenario())
    assert list(tmp_path.glob("content/partial/*")) == []


def test_what_is_no_json(registries: list[FaultyRegistry]) -> None:
    registries[1].refuse = (404, {"Content-Type": "text/html"}, json.dumps({"errors": "none"}).encode())
    with pytest.raises(Refused, match="received unexpected HTTP status: 404 Not Found"):
        ask(registries[1].host, lambda there: there.manifest("1"))


def test_a_registry_that_hangs_up(registries: list[FaultyRegistry]) -> None:
    registries[1].close()
    with pytest.raises(Unreachable, match="connection refused"):
        ask(registries[1].host, lambda there: there.manifest("1"))
