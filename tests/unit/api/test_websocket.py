"""WebSockets: the handshake, frames in pieces, control frames, ends of both kinds, and clients that break the rules."""

import asyncio
import os
import struct
import subprocess
import sys
from collections.abc import Awaitable, Callable

import pytest

from sampan.api.websocket import WebSocket, handshake
from sampan.errors import InvalidArgument
from sampan.testing.duplex import MemoryDuplex, duplex_pair

ASKED = {
    "connection": "keep-alive, Upgrade",
    "upgrade": "WebSocket",
    "sec-websocket-version": "13",
    "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
}
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def frame(kind: int, payload: bytes = b"", *, last: bool = True, mask: bytes = b"\x01\x02\x03\x04") -> bytes:
    """As a client sends it."""
    size = len(payload)
    length = (
        bytes([0x80 | size])
        if size < 126
        else struct.pack(">BH", 0x80 | 126, size)
        if size < 65536
        else struct.pack(">BQ", 0x80 | 127, size)
    )
    masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
    return bytes([(0x80 if last else 0) | kind]) + length + mask + masked


def run(scenario: Callable[[WebSocket, MemoryDuplex], Awaitable[None]], *, binary: bool = True, takes_input: bool = True) -> None:
    async def main() -> None:
        ours, client = duplex_pair()
        socket = WebSocket(ours, binary=binary, takes_input=takes_input)
        try:
            async with asyncio.timeout(20):
                await scenario(socket, client)
        finally:
            client.close()
            await socket.end()

    asyncio.run(main())


async def received(client: MemoryDuplex, size: int) -> bytes:
    data = b""
    while len(data) < size and (piece := await client.recv()):
        data += piece
    return data


def test_the_example_of_the_rfc() -> None:
    head = handshake(ASKED).decode()
    assert head.startswith("HTTP/1.1 101 Switching Protocols\r\n")
    assert "\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in head
    assert "Protocol" in handshake({**ASKED, "sec-websocket-protocol": "chat"}).decode().splitlines()[-2]


@pytest.mark.parametrize(
    "changed",
    [{"upgrade": "tcp"}, {"connection": "close"}, {"sec-websocket-version": "8"}, {"sec-websocket-key": "x"}, {"sec-websocket-key": ""},
     {"sec-websocket-protocol": "a, b"}],
)  # fmt: skip
def test_what_is_no_websocket_is_refused(changed: dict[str, str]) -> None:
    with pytest.raises(InvalidArgument):
        handshake({**ASKED, **changed})


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 300001])
def test_messages_of_any_length_in_both_directions(size: int) -> None:
    payload = os.urandom(size)

    async def scenario(socket: WebSocket, client: MemoryDuplex) -> None:
        sent = asyncio.create_task(client.send(frame(BINARY, payload) + frame(CLOSE)))
        found = b""
        while piece := await socket.recv(1000):
            found += piece
        assert found == payload
        await sent

    async def back(socket: WebSocket, client: MemoryDuplex) -> None:
        sent = asyncio.create_task(socket.send(payload))
        head = 2 if size < 126 else 4 if size < 65536 else 10
        data = await received(client, head + size)
        assert (data[0], data[head:]) == (0x82, payload)
        await sent

    run(scenario)
    run(back)


def test_a_message_in_many_frames_with_a_ping_between() -> None:
    async def scenario(socket: WebSocket, client: MemoryDuplex) -> None:
        for byte in frame(TEXT, b"one ", last=False) + frame(PING, b"?") + frame(0, b"two", mask=b"\xff\x00\xff\x00"):
            await client.send(bytes([byte]))
        found = b""
        while len(found) < 7:
            found += await socket.recv()
        assert found == b"one two"
        assert await received(client, 3) == b"\x8a\x01?"

    run(scenario)


def test_text_for_old_clients() -> None:
    async def scenario(socket: WebSocket, client: MemoryDuplex) -> None:
        await socket.send(b"hi")
        assert await received(client, 4) == b"\x81\x02hi"

    run(scenario, binary=False)


def test_text_is_utf8_in_whatever_pieces_it_comes() -> None:
    async def scenario(socket: WebSocket, client: MemoryDuplex) -> None:
        for piece in (b"\xe2\x82", b"\xac", b"\xff!"):
            await socket.send(piece)
        assert await received(client, 2 + 5 + 6) == b"\x81\x00" + b"\x81\x03\xe2\x82\xac" + b"\x81\x04\xef\xbf\xbd!"
        await client.send(frame(TEXT, b"\xff"))
        assert await received(client, 4) == b"\x88\x02\x03\xef"

    run(scenario, binary=False)


def test_sampand_loads_it_with_the_first_one_only() -> None:
    code = "import sys, sampan.daemon.wiring; sys.exit('wsproto' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_our_end_is_a_close_and_nothing_after_it() -> None:
    async def scenario(socket: WebSocket, client: MemoryDuplex) -> None:
        await socket.send_eof()
        assert await received(client, 4) == b"\x88\x02\x03\xe8"
        with pytest.raises(BrokenPipeError):
            await socket.send(b"more")

    run(scenario)


@pytest.mark.parametrize("takes_input", [True, False])
def test_a_clients_close_is_answered_and_is_the_end_of_its_input(takes_input: bool) -> None:
    async def scenario(socket: WebSocket, client: MemoryDuplex) -> None:
        await client.send(frame(BINARY, b"x" * 200000) + frame(CLOSE, b"\x03\xe8"))
        if takes_input:
            while await socket.recv():
                pass
            assert await socket.recv() == b""
        assert await received(client, 4) == b"\x88\x02\x03\xe8"
        await client.wait_closed()
        with pytest.raises(BrokenPipeError):
            await socket.send(b"more")

    run(scenario, takes_input=takes_input)


@pytest.mark.parametrize(
    "sent",
    [b"\x82\x01x", b"\xc2\x80\x00\x00\x00\x00", b"\x83\x80\x00\x00\x00\x00", b"\x09\x80\x00\x00\x00\x00", b"\x89\xfe\x00\x80",
     b"\x82\xff\x80" + bytes(11)],
    ids=["unmasked", "reserved-bit", "unknown-kind", "control-in-pieces", "long-control", "endless"],
)  # fmt: skip
def test_who_breaks_the_rules_is_told_and_left(sent: bytes) -> None:
    async def scenario(socket: WebSocket, client: MemoryDuplex) -> None:
        await client.send(sent)
        assert await received(client, 4) == b"\x88\x02\x03\xea"
        assert await socket.recv() == b""
        await client.wait_closed()

    run(scenario)


@pytest.mark.parametrize("sent", [b"", b"\x82", frame(BINARY, b"cut")[:-1]])
def test_a_connection_that_ends_is_the_end_of_input(sent: bytes) -> None:
    async def scenario(socket: WebSocket, client: MemoryDuplex) -> None:
        await client.send(sent)
        await client.send_eof()
        while await socket.recv():
            pass
        assert await socket.recv() == b""

    run(scenario)
