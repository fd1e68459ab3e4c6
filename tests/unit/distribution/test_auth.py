"""What a registry may make us send, and to whom."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sampan.distribution.auth import Authorizer, parse_challenges
from sampan.distribution.endpoints import Endpoint
from sampan.distribution.registry import Refused, Repository, is_outage, log_in
from sampan.distribution.transport import Transport
from sampan.errors import EngineError, InvalidArgument, SystemFailure
from sampan.proxies import Proxies
from sampan.spec.docker_api.auth import AuthConfig
from tests.support.certificates import Authority
from tests.support.faultyregistry import FaultyRegistry, digest_of
from tests.support.proxy import Proxy

USER = AuthConfig(username="user", password="secret")


@pytest.fixture
def registry() -> Iterator[FaultyRegistry]:
    registry = FaultyRegistry()
    registry.login = ("user", "secret")
    yield registry
    registry.close()


def ask(endpoint: Endpoint, credentials: AuthConfig) -> Any:
    async def asked() -> Any:
        async with Transport("test", Proxies()) as transport:
            return await Repository(transport, endpoint, "app", Authorizer(transport, credentials, endpoint)).tags()

    return asyncio.run(asked())


def test_a_token_for_the_right_password(registry: FaultyRegistry) -> None:
    assert ask(Endpoint(f"http://{registry.host}", insecure=True), USER) == []


@pytest.mark.parametrize("realm", ["http://[::1", "ftp://x/", "http://", "nothing", "http:///x"])
def test_a_realm_that_is_none(registry: FaultyRegistry, realm: str) -> None:
    registry.challenge = f'Bearer realm="{realm}",service="x"'
    with pytest.raises(SystemFailure, match="usable token server"):
        ask(Endpoint(f"http://{registry.host}", insecure=True), USER)


def test_no_password_in_the_clear_for_a_registry_with_tls(registry: FaultyRegistry) -> None:
    async def asked() -> None:
        async with Transport("test", Proxies()) as transport:
            authorizer = Authorizer(transport, USER, Endpoint("https://registry.example"))
            authorizer.learn(f'Bearer realm="http://{registry.host}/token",service="x"', "scope", "")
            await authorizer.headers("scope")

    with pytest.raises(SystemFailure, match="without TLS"):
        asyncio.run(asked())
    assert registry.requests == []


@pytest.mark.parametrize("token", ["a\r\nX-Evil: 1", "a b", "ä", "\0"])
def test_a_token_that_cannot_stand_in_a_header(registry: FaultyRegistry, token: str) -> None:
    registry.token_answer = {"token": token}
    endpoint = Endpoint(f"http://{registry.host}", insecure=True)
    with pytest.raises(SystemFailure, match="token"):
        ask(endpoint, USER)
    with pytest.raises(InvalidArgument, match="token"):
        ask(endpoint, AuthConfig(registrytoken=token))


def test_a_redirect_that_leads_nowhere_is_an_error_of_ours(registry: FaultyRegistry) -> None:
    registry.login, registry.refuse = None, (307, {"Location": "http://[::1"}, b"")
    with pytest.raises(EngineError):
        ask(Endpoint(f"http://{registry.host}", insecure=True), USER)


def test_a_redirect_to_another_host_does_not_take_the_token_along(registry: FaultyRegistry) -> None:
    endpoint = Endpoint(f"http://{registry.host}", insecure=True)
    other = FaultyRegistry()
    try:
        registry.refuse = (307, {"Location": f"http://{other.host}/v2/app/tags/list"}, b"")
        assert ask(endpoint, USER) == []
        assert [headers["Authorization"] for headers in other.headers] == [None]
        assert any(str(headers["Authorization"]).startswith("Bearer ") for headers in registry.headers)
    finally:
        other.close()


async def _reads_a_blob(repository: Repository) -> None:
    async with repository.blob(digest_of(b"x"), 0):
        pass


@pytest.mark.parametrize("credentials", [USER, AuthConfig(username="user", identitytoken="secret")])
@pytest.mark.parametrize("question", [_reads_a_blob, lambda repository: repository.manifest("1"), Repository.ping, None])
def test_where_a_redirect_leads_names_no_token_server(
    registry: FaultyRegistry, credentials: AuthConfig, question: Callable[[Repository], Awaitable[object]] | None
) -> None:
    """question: None is a login."""
    other = FaultyRegistry()
    other.login = ("user", "secret")  # its challenge names a token server of its own
    registry.login = None
    registry.refuse = (307, {"Location": f"http://{other.host}/v2/app/blobs/x"}, b"")
    registry.refuse_ping = True
    endpoint = Endpoint(f"http://{registry.host}", insecure=True)

    async def asked() -> None:
        async with Transport("test", Proxies()) as transport:
            if question is None:
                await log_in(transport, endpoint, credentials)
            else:
                await question(Repository(transport, endpoint, "app", Authorizer(transport, credentials, endpoint)))

    try:
        with contextlib.suppress(SystemFailure):
            asyncio.run(asked())
        assert len(other.requests) == 1, "the redirect, and no token server"
        assert [headers["Authorization"] for headers in other.headers] == [None]
    finally:
        other.close()


def _wait_for(registry: FaultyRegistry, requests: int) -> None:
    deadline = time.monotonic() + 30
    while len(registry.requests) < requests:
        assert time.monotonic() < deadline, registry.requests
        time.sleep(0.01)


@pytest.mark.parametrize("good", [True, False])
def test_blobs_at_once_whose_token_has_run_out_ask_for_one(registry: FaultyRegistry, good: bool) -> None:
    """good: whether they get it."""
    digests = [digest_of(data) for data in (b"a", b"b", b"c")]
    registry.blobs = dict(zip(digests, (b"a", b"b", b"c"), strict=True))
    endpoint = Endpoint(f"http://{registry.host}", insecure=True)

    async def read(repository: Repository, digest: str) -> bytes:
        async with repository.blob(digest, 0) as answer:
            return await answer.read(10)

    async def scenario() -> list[bytes | BaseException]:
        async with Transport("test", Proxies()) as transport:
            repository = Repository(transport, endpoint, "app", Authorizer(transport, USER, endpoint))
            await repository.tags()
            registry.tokens = {"another"}
            registry.hang["/blobs/"] = threading.Event()
            registry.requests.clear()
            registry.refuse_tokens = 0 if good else 403
            blobs = [asyncio.create_task(read(repository, digest)) for digest in digests]
            await asyncio.to_thread(_wait_for, registry, len(digests))
            registry.hang["/blobs/"].set()
            return await asyncio.gather(*blobs, return_exceptions=True)

    got = asyncio.run(scenario())
    if good:
        assert got == [b"a", b"b", b"c"]
        assert sum("/token" in request for request in registry.requests) == 1
    else:
        assert ["token server: 403" in str(error) for error in got] == [True] * 3


def test_a_failure_to_get_a_token_is_that_of_all_who_wait(registry: FaultyRegistry) -> None:
    registry.refuse_tokens, registry.hang["/token"] = 403, threading.Event()
    endpoint = Endpoint(f"http://{registry.host}", insecure=True)

    async def scenario() -> list[dict[str, str] | BaseException]:
        async with Transport("test", Proxies()) as transport:
            authorizer = Authorizer(transport, USER, endpoint)
            authorizer.learn(f'Bearer realm="http://{registry.host}/token",service="x"', "scope", "")
            waiting = [asyncio.create_task(authorizer.headers("scope")) for _ in range(5)]
            await asyncio.to_thread(_wait_for, registry, 1)
            registry.hang["/token"].set()
            return await asyncio.gather(*waiting, return_exceptions=True)

    assert ["token server: 403" in str(error) for error in asyncio.run(scenario())] == [True] * 5
    assert len(registry.requests) == 1


@pytest.mark.parametrize(
    ("status", "said", "code", "message"),
    [
        (401, ',error="insufficient_scope"', "denied", "requested access to the resource is denied"),
        (403, ',error="insufficient_scope",error_description="not \x1b[31mfor you"', "denied", r"not \x1b[31mfor you"),
        (401, ',error="invalid_token"', "unauthorized", "authentication required"),
        (401, ',error="other"', "unauthorized", "in its own words"),
        (404, "", "unauthorized", "in its own words"),
    ],
)
def test_a_challenge_says_why(registry: FaultyRegistry, status: int, said: str, code: str, message: str) -> None:
    body = b'{"errors":[{"code":"UNAUTHORIZED","message":"in its own words"}]}'
    challenge = f'Bearer realm="http://{registry.host}/token",service="x",scope="repository:app:pull"{said}'
    registry.refuse = (status, {"WWW-Authenticate": challenge}, body)
    with pytest.raises(Refused) as caught:
        ask(Endpoint(f"http://{registry.host}", insecure=True), USER)
    assert (caught.value.status, caught.value.code) == (status, code)
    assert caught.value.message == f"{code}: {message}"


def test_a_401_without_a_word(registry: FaultyRegistry) -> None:
    registry.login, registry.refuse = None, (401, {}, b"")
    with pytest.raises(Refused, match=r"^unauthorized: authentication required$"):
        ask(Endpoint(f"http://{registry.host}", insecure=True), USER)


@pytest.mark.parametrize(("listed", "taken"), [((), False), (("127.0.0.1/32",), False), (("auth.example",), True)])
def test_a_token_server_elsewhere_is_insecure_by_its_own_name(
    registry: FaultyRegistry, tmp_path: Path, listed: tuple[str, ...], taken: bool
) -> None:
    """It is reached by a proxy, so that its name is not that of this machine, which is always insecure."""
    secure, proxy = FaultyRegistry(Authority(tmp_path / "ca").server("auth.example")), Proxy()
    secure.login, secure.tokens = ("user", "secret"), registry.tokens
    proxy.hosts = {"auth.example": secure.host}
    registry.challenge = 'Bearer realm="https://auth.example/token",service="x"'
    endpoint = Endpoint(f"http://{registry.host}", insecure=True, insecure_registries=listed)

    async def asked() -> object:
        async with Transport("test", Proxies(https=proxy.url)) as transport:
            return await Repository(transport, endpoint, "app", Authorizer(transport, USER, endpoint)).tags()

    try:
        if taken:
            assert asyncio.run(asked()) == []
        else:
            with pytest.raises(SystemFailure, match="x509: certificate signed by unknown authority"):
                asyncio.run(asked())
            assert secure.requests == []
    finally:
        secure.close()
        proxy.close()


def test_a_mirror_with_a_path_and_tags_in_pages(registry: FaultyRegistry) -> None:
    registry.login = None
    answers = iter([(200, {"Link": '</prefix/v2/app/tags/list?last=a>; rel="next"'}, b'{"tags":["a","b"]}'), (200, {}, b'{"tags":["c"]}')])

    class Pages(tuple[int, dict[str, str], bytes]):
        """An answer that is the next page each time."""

        def __iter__(self) -> Iterator[Any]:
            return iter(next(answers))

    registry.refuse = Pages()
    assert ask(Endpoint(f"http://{registry.host}/prefix", insecure=True), USER) == ["a", "b", "c"]
    assert registry.requests == ["GET /prefix/v2/app/tags/list", "GET /prefix/v2/app/tags/list?last=a"]


def test_challenges_are_read_generously() -> None:
    found = parse_challenges('Basic realm="a \\"b\\"", Bearer realm="c",scope="d,e"')
    assert [(item.scheme, item.parameters) for item in found] == [
        ("basic", {"realm": 'a "b"'}),
        ("bearer", {"realm": "c", "scope": "d,e"}),
    ]


@pytest.mark.parametrize(("status", "outage"), [(500, True), (503, True), (403, False), (404, False)])
def test_a_token_server_that_is_down_is_an_outage(registry: FaultyRegistry, status: int, outage: bool) -> None:
    registry.refuse_tokens = status
    with pytest.raises(SystemFailure, match=f"unexpected status from token server: {status}") as failed:
        ask(Endpoint(f"http://{registry.host}", insecure=True), USER)
    assert is_outage(failed.value) == outage
