"""The daemon's side of a build's session, with a client that says what it wants."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from sampan import sessionframes as frames
from sampan.engine.buildsession import BuildSessions, Channel, Session
from sampan.errors import Conflict, InvalidArgument, NotFound, Unavailable
from sampan.sessionframes import Frame, frame
from sampan.testing.duplex import MemoryDuplex, duplex_pair

Talk = Callable[[BuildSessions, Session, MemoryDuplex], Awaitable[None]]


def with_session(talk: Talk) -> None:
    """Run talk with a session called `s` and the client's end of its stream."""

    async def run() -> None:
        sessions = BuildSessions()
        ours, theirs = duplex_pair()

        async def open_stream() -> MemoryDuplex:
            return ours

        serving = asyncio.ensure_future(sessions.serve("s", open_stream))
        await asyncio.sleep(0)
        async with asyncio.timeout(20):
            await talk(sessions, sessions.find("s"), theirs)
            theirs.close()
            await serving
        with pytest.raises(NotFound, match=r"^no active session for s$"):
            sessions.find("s")

    asyncio.run(run())


async def heard(stream: MemoryDuplex, count: int = 1) -> list[Frame]:
    """The daemon's next frames."""
    reader, found = frames.Reader(), list[Frame]()
    while len(found) < count:
        data = await stream.recv()
        assert data
        found += reader.feed(data)
    return found


def test_secrets_are_asked_for_side_by_side() -> None:
    async def talk(_: BuildSessions, session: Session, client: MemoryDuplex) -> None:
        asked = asyncio.gather(session.secret("a"), session.secret("b"), session.secret("c"))
        assert await heard(client, 3) == [Frame(frames.SECRET, number, name) for number, name in ((1, b"a"), (2, b"b"), (3, b"c"))]
        await client.send(frame(frames.DATA, 2, b"of ") + frame(frames.REFUSE, 3) + frame(frames.END, 1) + frame(frames.END, 99))
        await client.send(frame(frames.DATA, 2, b"b") + frame(frames.END, 2))
        assert await asked == [b"", b"of b", None]

    with_session(talk)


def test_a_reason_is_told() -> None:
    async def talk(_: BuildSessions, session: Session, client: MemoryDuplex) -> None:
        asked = asyncio.ensure_future(session.secret("a"))
        await heard(client)
        await client.send(frame(frames.REFUSE, 1, b"open /f: permission denied"))
        with pytest.raises(InvalidArgument, match=r"^open /f: permission denied$"):
            await asked

    with_session(talk)


@pytest.mark.parametrize("said", [b"\xff" * 9, frame(frames.SECRET, 1, b"x"), b""], ids=["nonsense", "a question", "nothing"])
def test_what_ends_the_session_ends_what_waits_for_it(said: bytes) -> None:
    async def talk(_: BuildSessions, session: Session, client: MemoryDuplex) -> None:
        asked = [asyncio.ensure_future(session.secret("a")), asyncio.ensure_future(session.has_agent("b"))]
        await heard(client, 2)
        await (client.send(frame(frames.DATA, 1, b"half") + said) if said else client.send_eof())
        for task in asked:
            with pytest.raises(Unavailable, match=r"^no active session for s: the client has closed it$"):
                await task
        with pytest.raises(Unavailable):
            await session.secret("a")

    with_session(talk)


def test_a_client_that_only_sends_is_cut_off() -> None:
    async def talk(_: BuildSessions, session: Session, client: MemoryDuplex) -> None:
        received: list[bytes] = []
        full = asyncio.Event()

        async def pump(channel: Channel) -> None:
            await full.wait()
            received.extend([piece async for piece in channel.pieces()])

        forwarding = asyncio.ensure_future(session.forward("a", pump))
        await heard(client)
        await client.send(frame(frames.ACCEPT, 1))
        for _piece in range(100):
            await client.send(frame(frames.DATA, 1, bytes(frames.PAYLOAD_MAX)))
        await client.send(frame(frames.ACCEPT, 2))
        full.set()
        await forwarding
        assert sum(map(len, received)) < 700 << 10
        assert await heard(client) == [Frame(frames.END, 1, b"")]

    with_session(talk)


def test_there_are_only_so_many_questions() -> None:
    async def talk(_: BuildSessions, session: Session, client: MemoryDuplex) -> None:
        asked = [asyncio.ensure_future(session.secret("a")) for _ in range(64)]
        await heard(client, 64)
        with pytest.raises(Unavailable, match="more than 64 requests"):
            await session.secret("a")
        asked[0].cancel()
        await asyncio.wait(asked[:1])
        asked[0] = asyncio.ensure_future(session.secret("a"))
        assert await heard(client) == [Frame(frames.SECRET, 65, b"a")]
        await client.send(b"".join(frame(frames.REFUSE, number) for number in range(1, 66)))
        assert await asyncio.gather(*asked) == [None] * 64

    with_session(talk)


def test_ids_are_checked_and_used_once() -> None:
    async def talk(sessions: BuildSessions, session: Session, client: MemoryDuplex) -> None:
        async def never() -> MemoryDuplex:
            raise AssertionError("opened")

        with pytest.raises(Conflict, match=r"^session s is active already$"):
            await sessions.serve("s", never)
        for wrong in ("", "a b", "a\n", "x" * 65):
            with pytest.raises(InvalidArgument, match=r"^invalid session ID"):
                await sessions.serve(wrong, never)

    with_session(talk)


def test_pieces_without_anything_in_them_are_no_way_to_fill_the_memory() -> None:
    async def send(data: bytes) -> None:
        del data

    channel = Channel(1, send)
    for _ in range(100_000):
        channel.take(frames.DATA, b"")
    assert channel.too_much
    assert len(channel._pieces) < 10_000
