"""Sessions of builds: what the client that asked for a build lends it while it runs, asked for when a step needs it, kept nowhere.

The wire is in sessionframes.py, docs/adr/0018-build-session.md says why it is so.
"""

import asyncio
import re
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from sampan import sessionframes
from sampan.errors import Conflict, InvalidArgument, NotFound, Unavailable
from sampan.sessionframes import AGENT, DATA, END, PAYLOAD_MAX, REFUSE, SECRET, SECRET_MAX, Frame, frame
from sampan.streams import Duplex

_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_CHANNELS_MAX: Final = 64
"""Channels of one session at a time."""
_UNREAD_MAX: Final = 512 << 10
"""Bytes of a channel that nobody has read yet: a secret, or two messages of an agent's. One with more is cut."""
_PIECE: Final = 64
"""Bytes that a piece takes besides those that are in it, at least: many may be empty."""


class Channel:
    """One secret on its way, or one connection to an agent."""

    def __init__(self, number: int, send: Callable[[bytes], Awaitable[None]]) -> None:
        self.number = number
        self._send = send
        self._pieces: deque[bytes] = deque()
        self._unread = 0
        self._changed = asyncio.Event()
        self._answered = False
        self._ended = False
        self._refusal: str | None = None
        self.too_much = False

    def take(self, kind: int, payload: bytes) -> None:
        """A frame of the client's."""
        self._answered = True
        if kind == DATA and not self._ended:
            self._unread += len(payload) + _PIECE
            self._pieces.append(payload)
            self.too_much = self._unread > _UNREAD_MAX
        elif kind == REFUSE:
            self._refusal = payload.decode("utf-8", "replace")
        if kind in (END, REFUSE) or self.too_much:
            self._ended = True
        self._changed.set()

    def end(self) -> None:
        """No more comes."""
        self._answered = self._ended = True
        self._changed.set()

    async def accepted(self) -> bool:
        """The client's answer to what was asked for: False, it has nothing of the kind. Raises InvalidArgument with its reason."""
        while not self._answered:
            await self._next()
        if self._refusal:
            raise InvalidArgument(self._refusal)
        return self._refusal is None

    async def pieces(self) -> AsyncIterator[bytes]:
        """What the client sends, until it ends the channel."""
        while True:
            while self._pieces:
                piece = self._pieces.popleft()
                self._unread -= len(piece) + _PIECE
                yield piece
            if self._ended:
                return
            await self._next()

    async def _next(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    async def send(self, data: bytes) -> None:
        """To the client. Raises ConnectionError when it is gone."""
        for one in sessionframes.data_frames(self.number, data):
            await self._send(one)


class Session:
    """One client's. It ends with its connection."""

    def __init__(self, session_id: str, stream: Duplex) -> None:
        self._id = session_id
        self._stream = stream
        self._channels: dict[int, Channel] = {}
        self._count = 0
        self._sending = asyncio.Lock()
        self._closed = False

    async def serve(self) -> None:
        """Take what the client says until it goes."""
        reader = sessionframes.Reader()
        try:
            with suppress(ConnectionError, ValueError):
                while data := await self._stream.recv(PAYLOAD_MAX):
                    for received in reader.feed(data):
                        self._take(received)
        finally:
            self._closed = True
            for channel in self._channels.values():
                channel.end()

    def _take(self, received: Frame) -> None:
        channel = self._channels.get(received.channel)
        if received.kind in (SECRET, AGENT):
            raise ValueError("clients do not ask")
        if channel is not None:  # else an answer that nobody waits for any more
            channel.take(received.kind, received.payload)

    async def secret(self, secret_id: str) -> bytes | None:
        """A secret, None: the client has none of this ID. Raises InvalidArgument, Unavailable."""
        with self._channel() as channel:
            await self._ask(SECRET, channel, secret_id)
            if not await channel.accepted():
                return None
            data = bytearray()
            async for piece in channel.pieces():
                data += piece
                if channel.too_much or len(data) > SECRET_MAX:
                    raise InvalidArgument(f"secret {secret_id} too big. max size 500KiB")
            self._check()  # what the end of the session has cut off is not the secret
            return bytes(data)

    @contextmanager
    def _channel(self) -> Iterator[Channel]:
        if len(self._channels) >= _CHANNELS_MAX:
            raise Unavailable(f"session {self._id} has more than {_CHANNELS_MAX} requests under way")
        self._count += 1
        channel = self._channels[self._count] = Channel(self._count, self._send)
        try:
            yield channel
        finally:
            del self._channels[channel.number]

    async def _ask(self, kind: int, channel: Channel, what: str) -> None:
        self._check()
        try:
            await self._send(frame(kind, channel.number, what.encode("utf-8", "surrogateescape")[:PAYLOAD_MAX]))
        except ConnectionError:
            raise self._gone() from None

    def _check(self) -> None:
        if self._closed:
            raise self._gone()

    def _gone(self) -> Unavailable:
        return Unavailable(f"no active session for {self._id}: the client has closed it")

    async def _send(self, data: bytes) -> None:
        async with self._sending:
            await self._stream.send(data)

    async def has_agent(self, agent_id: str) -> bool:
        """Whether the client forwards an agent of this ID. Raises Unavailable."""
        with self._channel() as channel:
            await self._ask(AGENT, channel, agent_id)
            accepted = await channel.accepted()
            self._check()
            if accepted:
                await self._end(channel)
            return accepted

    async def _end(self, channel: Channel) -> None:
        with suppress(ConnectionError):
            await self._send(frame(END, channel.number))

    async def forward(self, agent_id: str, pump: Callable[[Channel], Awaitable[None]]) -> None:
        """A connection of its own to the client's agent, as long as pump runs. Raises Unavailable, InvalidArgument."""
        with self._channel() as channel:
            await self._ask(AGENT, channel, agent_id)
            if not await channel.accepted():
                return
            try:
                await pump(channel)
            finally:
                await self._end(channel)


class BuildSessions:
    """All there are, by ID."""

    def __init__(self) -> None:
        self._sessions: dict[str, Session | None] = {}
        """None: its connection is being taken over."""

    async def serve(self, session_id: str, open_stream: Callable[[], Awaitable[Duplex]]) -> None:
        """One client's, until it goes. Raises InvalidArgument, Conflict before the stream is opened."""
        if not _ID.fullmatch(session_id):
            raise InvalidArgument(f"invalid session ID {session_id!r}")
        if session_id in self._sessions:
            raise Conflict(f"session {session_id} is active already")
        self._sessions[session_id] = None
        try:
            stream = await open_stream()
            session = self._sessions[session_id] = Session(session_id, stream)
            try:
                await session.serve()
            finally:
                stream.close()
        finally:
            del self._sessions[session_id]

    def find(self, session_id: str) -> Session:
        """Raises NotFound."""
        found = self._sessions.get(session_id)
        if found is None:
            raise NotFound(f"no active session for {session_id}")
        return found
