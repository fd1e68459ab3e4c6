"""Registries that answer, but never to the end."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.clock import SystemClock
from sampan.content.partial import PartialBlobs
from sampan.distribution.auth import Authorizer
from sampan.distribution.endpoints import Endpoint
from sampan.distribution.registry import Repository
from sampan.distribution.transport import Transport, Unreachable
from sampan.engine import asking
from sampan.engine.registries import Registries, RegistrySettings
from sampan.spec.docker_api.auth import AuthConfig
from sampan.spec.oci_layout import Descriptor
from sampan.state.blobs import BlobSourceRepository
from sampan.state.database import Database
from tests.support.faultyregistry import FaultyRegistry, digest_of

DOCUMENT = b"x" * 1000


@pytest.fixture
def dripping() -> Iterator[FaultyRegistry]:
    """A byte at a time: never silent, never done."""
    one = FaultyRegistry()
    one.blobs[digest_of(DOCUMENT)] = DOCUMENT
    one.block, one.delay = 1, 0.1
    yield one
    one.close()


def asked(root: Path, *hosts: str) -> tuple[bytes, Registries]:
    """The document as any of them has it; all but the last are mirrors."""

    async def scenario() -> tuple[bytes, Registries]:
        registries = Registries(RegistrySettings(), PartialBlobs(root), BlobSourceRepository(database), SystemClock())
        async with registries.transport() as transport:
            found = [repository(transport, host, mirror=host != hosts[-1]) for host in hosts]
            descriptor = Descriptor("x", digest_of(DOCUMENT), len(DOCUMENT))
            return await registries.any_of(found, lambda one: one.document(descriptor, 1 << 20)), registries

    database = Database(root / "state.db")
    try:
        return asyncio.run(scenario())
    finally:
        database.close()


def repository(transport: Transport, host: str, *, mirror: bool) -> Repository:
    endpoint = Endpoint(f"http://{host}", insecure=True, mirror=mirror)
    return Repository(transport, endpoint, "app", Authorizer(transport, AuthConfig(), endpoint))


def test_a_mirror_that_drips_is_left(tmp_path: Path, dripping: FaultyRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "DOCUMENT_SECONDS", 0.5)
    good = FaultyRegistry()
    try:
        good.blobs.update(dripping.blobs)
        document, registries = asked(tmp_path, dripping.host, good.host)
        assert document == DOCUMENT
        assert registries.aside.reason(f"http://{dripping.host}")
    finally:
        good.close()


def test_the_last_one_has_an_end_as_well(tmp_path: Path, dripping: FaultyRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "LAST_SECONDS", 0.5)
    with pytest.raises(Unreachable, match="request canceled"):
        asked(tmp_path, dripping.host)
