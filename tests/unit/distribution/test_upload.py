"""Uploads to registries that break off, forget, and lead elsewhere."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import pytest

from sampan.digest import sha256_of
from sampan.distribution import fetch, upload
from sampan.distribution.auth import Authorizer
from sampan.distribution.endpoints import Endpoint
from sampan.distribution.registry import Refused, Repository
from sampan.distribution.transport import Transport
from sampan.distribution.upload import BlobFile
from sampan.errors import SystemFailure
from sampan.proxies import Proxies
from sampan.spec.docker_api.auth import AuthConfig
from tests.support.faultyregistry import FaultyRegistry

T = TypeVar("T")
DATA = os.urandom(300_000)


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyRegistry]:
    async def no_pause(*_: object) -> None:
        pass

    monkeypatch.setattr(upload, "pause", no_pause)
    registry = FaultyRegistry()
    yield registry
    registry.close()


def within(registry: FaultyRegistry, use: Callable[[Repository], Awaitable[T]]) -> T:
    """Run something on the repository `app`."""

    async def run() -> T:
        endpoint = Endpoint(f"http://{registry.host}", insecure=True)
        async with Transport("test", Proxies()) as transport:
            authorizer = Authorizer(transport, AuthConfig(username="user", password="secret"), endpoint)
            return await use(Repository(transport, endpoint, "app", authorizer, actions="pull,push"))

    return asyncio.run(run())


def send(registry: FaultyRegistry, data: bytes = DATA, attempts: int = 3) -> None:
    fd = os.memfd_create("blob")
    os.write(fd, data)
    blob = BlobFile(fd, sha256_of(data), len(data))
    try:
        within(registry, lambda repository: upload.send(repository, blob, None, attempts=attempts, progress=lambda _text, _sent: None))
    finally:
        os.close(fd)


@pytest.mark.parametrize("size", [0, 1, 300_000])
def test_a_blob_arrives(registry: FaultyRegistry, size: int) -> None:
    send(registry, DATA[:size])
    assert registry.blobs[sha256_of(DATA[:size])] == DATA[:size]


def test_a_broken_connection_goes_on(registry: FaultyRegistry) -> None:
    registry.cut_uploads = [65536, 131072]
    send(registry)
    assert registry.received == len(DATA)


def test_every_byte_may_be_the_last(registry: FaultyRegistry) -> None:
    registry.cut_uploads = [1]
    send(registry, b"ab")
    assert registry.blobs[sha256_of(b"ab")] == b"ab"


def test_an_end_after_some_attempts_without_a_byte(registry: FaultyRegistry) -> None:
    registry.cut_uploads, registry.resuming = [0] * 10, False
    with pytest.raises(SystemFailure):
        send(registry)
    assert len(registry.cut_uploads) == 7


@pytest.mark.parametrize("location", ["", "ftp://x/", "http://[::1", "//["])
def test_a_location_that_is_none(registry: FaultyRegistry, location: str) -> None:
    registry.refuse = (202, {"Location": location}, b"")
    with pytest.raises(SystemFailure):
        send(registry)


def test_another_host_does_not_learn_who_we_are(registry: FaultyRegistry) -> None:
    registry.login = ("user", "secret")
    other = FaultyRegistry()
    try:
        within(registry, lambda repository: repository.tags())
        registry.refuse = (202, {"Location": f"http://{other.host}/v2/app/blobs/uploads/x"}, b"")
        with pytest.raises(Refused):
            send(registry, attempts=1)
        assert other.requests
        assert all("Authorization" not in headers for headers in other.headers)
        assert any("Authorization" in headers for headers in registry.headers)
    finally:
        other.close()


def test_a_refusal_is_final(registry: FaultyRegistry) -> None:
    registry.refuse = (403, {}, b'{"errors":[{"code":"DENIED","message":"no"}]}')
    with pytest.raises(Refused, match="denied: no"):
        send(registry)
    assert len([line for line in registry.requests if line.startswith("POST")]) == 1


def test_a_document_is_sent_once(registry: FaultyRegistry) -> None:
    for _ in range(2):
        within(registry, lambda repository: upload.put_document(repository, b"{}", attempts=2))
    assert registry.received == 2


def test_only_the_answer_was_lost(registry: FaultyRegistry) -> None:
    registry.lose_answers = 1
    send(registry)
    assert registry.received == len(DATA)
    document = b'{"config": {"digest": "%s"}, "layers": []}' % sha256_of(DATA).encode()
    registry.lose_answers = 1
    within(registry, lambda repository: upload.put_manifest(repository, "1", "application/x", document, attempts=2))
    assert registry.manifests["app:1"] == ("application/x", document)


def test_waiting_as_long_as_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    said: list[str] = []
    asyncio.run(fetch.pause(1, Refused(429, "too many requests", "", 3), said.append))
    assert said == ["Retrying in 3 seconds", "Retrying in 2 seconds", "Retrying in 1 second"]
    assert slept == [1, 1, 1]
