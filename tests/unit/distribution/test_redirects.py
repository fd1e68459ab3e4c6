"""Each host on the way of a request is spoken to as itself: with its own certificates, through its own proxy, without others' secrets."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from sampan import registryhosts
from sampan.cli.mirrorprobe import Probe
from sampan.distribution.auth import Authorizer
from sampan.distribution.endpoints import Endpoint
from sampan.distribution.registry import Repository
from sampan.distribution.transport import REDIRECTS_MAX, Body, Transport, Unreachable
from sampan.errors import EngineError, SystemFailure
from sampan.proxies import Proxies
from sampan.spec.docker_api.auth import AuthConfig
from tests.support.certificates import Authority
from tests.support.faultyregistry import FaultyRegistry

ANSWERS = dict[str, bytes]
"""Path or URL → status, headers and body"""


@asynccontextmanager
async def server(answers: ANSWERS, seen: list[tuple[str, bytes]]) -> AsyncIterator[str]:
    """HOST:PORT of one on loopback. seen: what it is sent, the request line and the rest."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next((int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0)
        line, _, rest = head.partition(b"\r\n")
        seen.append((line.decode(), rest + await reader.readexactly(length)))
        head, _, body = answers.get(line.decode().split()[1], b"404 No").partition(b"\n\n")
        head = head.replace(b"\n", b"\r\n")
        writer.write(b"HTTP/1.1 " + head + b"\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body)
        await writer.drain()
        writer.close()

    found = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with found:
        yield f"127.0.0.1:{found.sockets[0].getsockname()[1]}"


def test_the_proxy_is_that_of_each_host() -> None:
    direct: list[tuple[str, bytes]] = []
    proxied: list[tuple[str, bytes]] = []
    through: ANSWERS = {"http://out.example/": b"200 OK\n\nfar"}
    plain: ANSWERS = {"/in": b"200 OK\n\nnear", "/away": b"307 No\nLocation: http://out.example/"}

    async def scenario() -> list[bytes]:
        got = []
        async with server(plain, direct) as here, server(through, proxied) as proxy:
            through["http://far.example/"] = b"307 No\nLocation: http://%s/in" % here.encode()
            async with Transport("test", Proxies(http=f"http://{proxy}")) as transport:
                for url in ("http://far.example/", f"http://{here}/away"):
                    async with transport.request("GET", url) as answer:
                        got.append(await answer.read(10))
        return got

    assert asyncio.run(scenario()) == [b"near", b"far"]
    assert [line.split()[1] for line, _ in direct] == ["/in", "/away"]
    assert [line.split()[1] for line, _ in proxied] == ["http://far.example/", "http://out.example/"]


async def _twice() -> AsyncIterator[bytes]:
    yield b"bo"
    yield b"dy"


@pytest.mark.parametrize(
    ("status", "method", "data", "expected"),
    [
        (307, "PUT", b"body", "PUT"),
        (308, "PUT", _twice, "PUT"),
        (302, "POST", b"body", "GET"),
        (303, "PUT", b"body", "GET"),
        (303, "HEAD", None, "HEAD"),
        (301, "GET", None, "GET"),
    ],
)
def test_what_is_sent_on(status: int, method: str, data: Body | None, expected: str) -> None:
    first: list[tuple[str, bytes]] = []
    second: list[tuple[str, bytes]] = []

    async def scenario() -> str:
        async with server({"/end": b"200 OK"}, second) as there:
            answers = {
                "/1": b"%d No\nLocation: 2?a=b" % status,
                "/2?a=b": b"%d No\nLocation: http://%s/end" % (status, there.encode()),
            }
            async with server(answers, first) as here, Transport("test", Proxies()) as transport:
                headers = {"Authorization": "Bearer secret", **({"Content-Length": "4", "Content-Type": "text/x"} if data else {})}
                async with transport.request(method, f"http://{here}/1", headers=headers, data=data) as answer:
                    assert answer.url == f"http://{there}/end"
                    return answer.method

    assert asyncio.run(scenario()) == expected
    assert [line.split()[1] for line, _ in first] == ["/1", "/2?a=b"]
    assert [line.split()[0] for line, _ in first + second] == [method, expected, expected]
    assert [b"secret" in rest for _, rest in first + second] == [True, True, False]
    assert [rest.endswith(b"body") for _, rest in first + second] == [data is not None] + [data is not None and method == expected] * 2
    assert (b"text/x" in second[0][1]) == (data is not None and method == expected)


@pytest.mark.parametrize(
    ("location", "kind", "words"),
    [
        ("/", Unreachable, f"stopped after {REDIRECTS_MAX} redirects"),
        ("ftp://x/", SystemFailure, "leads nowhere"),
        ("http://[::1", SystemFailure, "leads nowhere"),
    ],
)
def test_redirects_that_lead_nowhere(location: str, kind: type[EngineError], words: str) -> None:
    seen: list[tuple[str, bytes]] = []

    async def scenario() -> None:
        answers = {"/": b"307 No\nLocation: " + location.encode()}
        async with server(answers, seen) as here, Transport("test", Proxies()) as transport, transport.request("GET", f"http://{here}/"):
            pass

    with pytest.raises(kind, match=words):
        asyncio.run(scenario())
    assert len(seen) == (REDIRECTS_MAX if location == "/" else 1)


@pytest.fixture
def corporate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[FaultyRegistry]]:
    """Two registries that want a client certificate; there is one for each."""
    authority = Authority(tmp_path / "ca")
    registries = [FaultyRegistry(authority.server("127.0.0.1", clients=True)) for _ in range(2)]
    certificate, key = authority.issue("client", "127.0.0.1")
    monkeypatch.setattr(registryhosts, "CERTS_DIRS", (tmp_path / "certs.d",))
    for registry in registries:
        directory = tmp_path / "certs.d" / registry.host
        directory.mkdir(parents=True)
        for file, name in ((authority.certificate, "ca.crt"), (certificate, "client.cert"), (key, "client.key")):
            shutil.copy(file, directory / name)
    yield registries
    for registry in registries:
        registry.close()


Question = Callable[[Repository, FaultyRegistry, FaultyRegistry], Awaitable[object]]


async def _redirected(repository: Repository, home: FaultyRegistry, other: FaultyRegistry) -> None:
    home.refuse = (307, {"Location": f"https://{other.host}/v2/app/tags/list"}, b"")
    await repository.tags()


async def _token(repository: Repository, home: FaultyRegistry, other: FaultyRegistry) -> None:
    home.login, home.challenge = ("user", "secret"), f'Bearer realm="https://{other.host}/token",service="x"'
    await repository.tags()


async def _upload(repository: Repository, _home: FaultyRegistry, other: FaultyRegistry) -> None:
    async with repository.request("PUT", f"https://{other.host}/v2/app/blobs/uploads/x"):
        pass


@pytest.mark.parametrize("question", [_redirected, _token, _upload])
def test_a_client_certificate_is_for_the_registry_alone(corporate: list[FaultyRegistry], question: Question) -> None:
    home, other = corporate

    async def scenario(asked: Question) -> None:
        async with Transport("test", Proxies()) as transport:
            for registry in corporate:
                endpoint = Endpoint(f"https://{registry.host}")
                repository = Repository(transport, endpoint, "app", Authorizer(transport, AuthConfig(), endpoint))
                await repository.ping()
            other.requests.clear()
            endpoint = Endpoint(f"https://{home.host}")
            await asked(Repository(transport, endpoint, "app", Authorizer(transport, AuthConfig(), endpoint)), home, other)

    with pytest.raises(EngineError):
        asyncio.run(scenario(question))
    assert other.requests == []


def test_a_probe_shows_its_client_certificate_to_the_mirror_alone(corporate: list[FaultyRegistry]) -> None:
    home, other = corporate
    home.refuse, home.refuse_ping = (307, {"Location": f"https://{other.host}/v2/"}, b""), True
    for registry, works in ((other, True), (home, False)):
        other.requests.clear()
        probe = Probe("docker.io", f"https://{registry.host}/", {"insecure-registries": []})
        probe.run("", "")
        assert isinstance(probe.ping, float) == works
        assert other.requests == (["GET /v2/"] if works else [])
