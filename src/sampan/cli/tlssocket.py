"""A socket with TLS, as much of one as the client needs. One thread may send while another one receives, and shutdown ends one direction:
Python's own can do neither.
"""

from __future__ import annotations

import ssl
from threading import Lock

from sampan.tlsstream import TlsStream

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket

_CHUNK = 1 << 16
_RECORD = 1 << 14
_SHUT_WR = 1


class TlsSocket:
    """Over a connected socket, which is its own from then on."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, name: str) -> None:
        """Shakes hands with the server of that name. Raises OSError."""
        self._sock = sock
        self._stream = TlsStream(context, server_hostname=name)
        self._state = Lock()
        self._sending = Lock()
        self._unsent = memoryview(b"")
        self._taken = 0
        """Bytes of plain text that `unsent` is."""
        try:
            self._shake_hands()
        except BaseException:
            sock.close()
            raise

    def _shake_hands(self) -> None:
        data = b""
        done = False
        while not done:
            try:
                done = self._stream.shake_hands(data)
            except ssl.SSLError:
                self._sock.send(self._stream.outgoing())  # the server is told why
                raise
            self._sock.sendall(self._stream.outgoing())
            if not done and not (data := self._sock.recv(_CHUNK)):
                raise OSError("EOF")

    def fileno(self) -> int:
        """To wait for: nothing that has arrived is kept back by recv."""
        return self._sock.fileno()

    def setblocking(self, flag: bool) -> None:
        """See socket."""
        self._sock.setblocking(flag)

    def recv(self, size: int, flags: int = 0) -> bytes:
        """See socket; it may be a little more than `size`. Raises OSError, ValueError where there are flags."""
        if flags:
            raise ValueError("TLS has no flags")
        while not self._stream.ended:
            data = self._sock.recv(size)
            if not data:
                break
            with self._state:
                plain = self._stream.receive(data)
            if plain:
                return plain
        return b""

    def send(self, data: bytes | bytearray | memoryview) -> int:
        """See socket: what is taken has been sent. Where it would block, the same is to be sent again."""
        with self._sending:
            if not self._taken:
                piece = memoryview(data)[:_RECORD]
                with self._state:
                    self._stream.send(piece)
                    self._unsent = memoryview(self._stream.outgoing())
                self._taken = len(piece)
            self._send_rest()
            taken, self._taken = self._taken, 0
            return taken

    def _send_rest(self) -> None:
        while self._unsent:
            self._unsent = self._unsent[self._sock.send(self._unsent) :]

    def sendall(self, data: bytes | bytearray | memoryview) -> None:
        """See socket."""
        left = memoryview(data)
        while left:
            left = left[self.send(left) :]

    def shutdown(self, how: int) -> None:
        """See socket: what the server sends after our end is still received."""
        if how != _SHUT_WR:
            self._sock.shutdown(how)
            return
        with self._sending:
            self._send_rest()
            with self._state:
                self._stream.end()
                self._unsent = memoryview(self._stream.outgoing())
            self._send_rest()

    def close(self) -> None:
        """See socket."""
        self._sock.close()
