"""Answers that no registry would give: each ends in an error of ours, so that the next endpoint is asked."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from email.utils import formatdate

import pytest

from sampan.digest import sha256_of
from sampan.distribution.auth import Authorizer
from sampan.distribution.endpoints import Endpoint
from sampan.distribution.registry import ERROR_SHOWN, Refused, Repository
from sampan.distribution.search import search
from sampan.distribution.transport import Transport
from sampan.errors import EngineError, InvalidArgument, SystemFailure
from sampan.proxies import Proxies
from sampan.spec import oci_layout
from sampan.spec.docker_api.auth import AuthConfig

DEEP = b'{"x":' + b"[" * 60_000
NOBODY = AuthConfig()


def ask(answers: list[bytes], question: Callable[[Repository], Awaitable[object]], credentials: AuthConfig = NOBODY) -> list[bytes]:
    """Have a question answered on loopback; what was sent. In an answer HERE is the server's HOST:PORT."""
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next((int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0)
        seen.append(head + await reader.readexactly(length))
        head, _, body = answers[len(seen) - 1].partition(b"\n\n")
        here = "{}:{}".format(*writer.get_extra_info("sockname")).encode()
        head = head.replace(b"HERE", here).replace(b"\n", b"\r\n")
        writer.write(b"HTTP/1.1 " + head + b"\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body)
        await writer.drain()
        writer.close()

    async def scenario() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server, Transport("test", Proxies()) as transport:
            endpoint = Endpoint(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", insecure=True)
            await question(Repository(transport, endpoint, "a/b", Authorizer(transport, credentials, endpoint)))

    asyncio.run(scenario())
    return seen


def manifest(repository: Repository) -> Awaitable[object]:
    return repository.manifest("1")


def tags(repository: Repository) -> Awaitable[object]:
    return repository.tags()


CHALLENGE = b'401 No\nWWW-Authenticate: Bearer realm="http://HERE/token",service="x"'


@pytest.mark.parametrize(
    ("answers", "question", "words"),
    [
        ([b'500 No\n\n{"errors":[{"code":"\xff"}]}'], manifest, "received unexpected HTTP status: 500"),
        ([b"503 No\n\n" + DEEP], manifest, "received unexpected HTTP status: 503"),
        ([b"503 No\n\n" + b"x" * 100_000], manifest, "received unexpected HTTP status: 503"),
        ([b"200 OK\n\n" + DEEP], tags, "more than 100 deep"),
        ([b'200 OK\n\n{"tags":["\xff"]}'], tags, "cannot be read"),
        ([b'200 OK\n\n{"tags":[' + b'"a",' * 250_000 + b'"a"]}'], tags, "more than 200000 values"),
        ([CHALLENGE, b"200 OK\n\n" + DEEP], manifest, "the token server's answer cannot be read"),
        ([CHALLENGE, b'200 OK\n\n{"token":"\xff"}'], manifest, "the token server's answer cannot be read"),
        ([CHALLENGE.replace(b"/token", b"/\x1b[2J\xff"), b"404 No\n"], manifest, "unexpected status from token server"),
    ],
)
def test_what_cannot_be_read(answers: list[bytes], question: Callable[[Repository], Awaitable[object]], words: str) -> None:
    with pytest.raises(EngineError) as caught:
        ask(answers, question)
    assert isinstance(caught.value, (SystemFailure, InvalidArgument))
    assert words in caught.value.message
    assert caught.value.message.isprintable()


def test_a_refusals_words_move_no_cursor_and_are_few() -> None:
    with pytest.raises(Refused) as caught:
        ask([b'404 No\n\n{"errors":[{"code":"A\\u001b[31m","message":"\\u001b[2J\\nfine\\u202e' + b"x" * 9000 + b'"}]}'], manifest)
    assert caught.value.message.startswith(r"a\x1b[31m: \x1b[2J\nfine\u202exx")
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 2 * ERROR_SHOWN


def test_a_service_of_any_bytes_and_a_token_for_ever() -> None:
    body = b"{}"
    answers = [
        CHALLENGE.replace(b'"x"', b'"\xff"'),
        b'200 OK\n\n{"token":"t","expires_in":1' + b"0" * 400 + b"}",
        b"200 OK\nContent-Type: " + oci_layout.MANIFEST.encode() + b"\n\n" + body,
    ]
    seen = ask(answers, manifest)
    assert b"/token?service=%FF&" in seen[1]
    assert b"Authorization: Bearer t\r\n" in seen[2]


def test_nothing_is_to_be_compressed_on_the_way() -> None:
    (seen,) = ask([b"200 OK\n\n{}"], manifest)
    assert b"Accept-Encoding: identity\r\n" in seen


def test_a_refresh_token_goes_to_nobody_by_a_redirect() -> None:
    with pytest.raises(SystemFailure, match="unexpected status from token server: 307"):
        ask([CHALLENGE, b"307 No\nLocation: http://localhost:1/"], manifest, AuthConfig(identitytoken="secret"))


def test_a_document_of_another_size_than_the_manifest_says() -> None:
    body = b'{"a":1}'

    def document(size: int) -> None:
        descriptor = oci_layout.Descriptor(media_type="x", digest=sha256_of(body), size=size)
        ask([b"200 OK\n\n" + body], lambda repository: repository.document(descriptor, 100))

    document(len(body))
    for size in (len(body) - 1, len(body) + 1):
        with pytest.raises(InvalidArgument):
            document(size)


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        (b"7", 7),
        (b"Wed, 21 Oct 2015 07:28:00 GMT", 0),
        (b"Fri, 31 Dec 9999 23:59:59 GMT", 999_999),
        (b"in a while", 0),
        (b"99999999999", 999_999),
        (b"Wed, 99 Oct 2015 07:28:00 GMT", 0),
    ],
)
def test_when_to_come_again(said: bytes, seconds: int) -> None:
    with pytest.raises(Refused) as caught:
        ask([b"429 No\nRetry-After: " + said + b"\n\n{}"], manifest)
    assert caught.value.retry_after == seconds


def test_when_to_come_again_by_the_clock() -> None:
    with pytest.raises(Refused) as caught:
        ask([b"429 No\nRetry-After: " + formatdate(time.time() + 500, usegmt=True).encode() + b"\n\n{}"], manifest)
    assert 400 < caught.value.retry_after <= 500


BOTH = b'{"config":{},"layers":[],"manifests":[]}'


@pytest.mark.parametrize(
    ("said", "body", "words"),
    [
        (oci_layout.INDEX, BOTH, "expected index but found manifest"),
        (oci_layout.DOCKER_INDEX, BOTH, "expected index but found manifest"),
        (oci_layout.MANIFEST, BOTH, "expected manifest but found index"),
        ("", BOTH, "expected manifest but found index"),
        (oci_layout.MANIFEST, b'{"mediaType":"%s"}' % oci_layout.INDEX.encode(), "mediaType in manifest should be"),
    ],
)
def test_bytes_with_two_meanings(said: str, body: bytes, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        ask([b"200 OK\nContent-Type: " + said.encode() + b"\n\n" + body], manifest)


def test_a_type_that_the_registry_does_not_say() -> None:
    async def question(repository: Repository) -> None:
        assert (await repository.manifest("1")).media_type == oci_layout.INDEX

    ask([b'200 OK\nContent-Type: application/octet-stream\n\n{"mediaType":"%s","manifests":[]}' % oci_layout.INDEX.encode()], question)


@pytest.mark.parametrize("body", [DEEP, b'{"results":[{"name":"\xff"}]}', b"[]"])
def test_what_a_search_cannot_read(body: bytes) -> None:
    async def question(repository: Repository) -> None:
        async with Transport("test", Proxies()) as transport:
            await search(transport, [repository.endpoint], "x", 25, NOBODY)

    with pytest.raises(SystemFailure, match="error decoding registry search results"):
        ask([b"200 OK\n\n", b"200 OK\n\n" + body], question)
