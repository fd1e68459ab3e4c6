"""The frames of a build's session: what daemon and command line say to each other on the connection that POST /session took over.

    4 bytes  length of the payload, big-endian
    1 byte   kind
    4 bytes  channel, big-endian: the daemon opens each with a number of its own
    payload

The daemon asks (SECRET, AGENT), the client answers: REFUSE, or for a secret its bytes as DATA and an END, for an agent ACCEPT and then DATA
both ways until one side says END. docs/adr/0018-build-session.md
"""

from typing import Final, NamedTuple

UPGRADE: Final = "sampan-build"
"""The protocol's name in `Upgrade`."""
SESSION_HEADER: Final = "X-Docker-Expose-Session-Uuid"
"""Has the session's ID, as docker's clients send it."""
SECRET: Final = 1
"""Daemon: the payload is a secret's ID."""
AGENT: Final = 2
"""Daemon: a connection to an ssh agent, the payload is its ID."""
ACCEPT: Final = 3
REFUSE: Final = 4
"""The payload says why; empty: there is nothing of this ID."""
DATA: Final = 5
END: Final = 6
PAYLOAD_MAX: Final = 64 << 10
SECRET_MAX: Final = 500 << 10
"""Bytes of a secret, BuildKit's limit."""
AGENT_MESSAGE_MAX: Final = 256 << 10
"""Bytes of an ssh agent's message, OpenSSH's limit."""
_HEAD: Final = 9


class Frame(NamedTuple):
    """One of them."""

    kind: int
    channel: int
    payload: bytes


def frame(kind: int, channel: int, payload: bytes = b"") -> bytes:
    """On the wire. payload: PAYLOAD_MAX at most."""
    return len(payload).to_bytes(4, "big") + bytes([kind]) + channel.to_bytes(4, "big") + payload


def data_frames(channel: int, data: bytes) -> list[bytes]:
    """Bytes of any length as frames."""
    return [frame(DATA, channel, data[at : at + PAYLOAD_MAX]) for at in range(0, len(data), PAYLOAD_MAX)]


class Reader:
    """Takes bytes as they arrive and gives frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """All frames that are whole now. Raises ValueError for what is none."""
        self._buffer += data
        found: list[Frame] = []
        at = 0
        while len(self._buffer) - at >= _HEAD:
            length, kind = int.from_bytes(self._buffer[at : at + 4], "big"), self._buffer[at + 4]
            if length > PAYLOAD_MAX or not SECRET <= kind <= END:
                raise ValueError("not a frame of a build's session")
            end = at + _HEAD + length
            if len(self._buffer) < end:
                break
            channel = int.from_bytes(self._buffer[at + 5 : at + _HEAD], "big")
            found.append(Frame(kind, channel, bytes(self._buffer[at + _HEAD : end])))
            at = end
        del self._buffer[:at]
        return found


def agent_message(data: bytes | bytearray) -> int:
    """The length of the ssh agent's message (requests and answers have the same form) that the bytes begin with, 0: not all of it is there.

    Raises ValueError for what is none.
    """
    if len(data) < 5:
        return 0
    length = int.from_bytes(data[:4], "big")
    if not 1 <= length <= AGENT_MESSAGE_MAX:
        raise ValueError("not a message of an ssh agent's")
    return 4 + length if len(data) >= 4 + length else 0
