"""Daemons at `ssh://[user@]host[:port][/path/of/the.sock]`: HTTP through `ssh HOST sampan system dial-stdio` (docker's where only it is).

ssh's stdin and stdout are one end of a pair of sockets, so that the other end is a connection like any other, which can be half closed.
"""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
from urllib.parse import SplitResult, unquote, urlsplit

from sampan.cli.flags import quote
from sampan.cli.http import CliError, ConnectError, Connection, Host

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_PR_SET_PDEATHSIG = 1
_SIGTERM = 15
_SECONDS = 10
_STDERR_MAX = 4096


class SshHost(Host):
    """A daemon of another machine."""

    name = "docker.example.com"  # what docker's client calls it
    at_once = 4  # sshd refuses some of more than 10 that are not logged in yet (MaxStartups)

    def __init__(self, text: str) -> None:
        self.text = text
        self.path = self.base = ""
        self.tls = None
        self.address = ("", 0)
        try:
            self._command = command(text)
        except ValueError as error:
            raise CliError(f"Failed to initialize: {error}") from None

    def open(self) -> Connection:
        """See Host; every connection is an ssh of its own."""
        ours, theirs = socket.socketpair()
        try:
            process = subprocess.Popen(
                self._command,
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C is for the container
                preexec_fn=_end_with_parent(),
            )
        except (OSError, ValueError) as error:
            ours.close()
            raise ConnectError(f"error during connect: exec: {quote(self._command[0])}: {_reason(error)}") from None
        finally:
            theirs.close()
        return _SshConnection(ours, process)


class _SshConnection(Connection):
    """A connection, and the ssh behind it."""

    def __init__(self, sock: socket.socket, process: subprocess.Popen[bytes]) -> None:
        super().__init__(sock)
        self._process = process
        self._stderr = b""
        import threading

        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        """Keep the end of what ssh says: it must never wait for somebody to read it."""
        stream = self._process.stderr
        while stream is not None and (piece := os.read(stream.fileno(), _STDERR_MAX)):
            self._stderr = (self._stderr + piece)[-_STDERR_MAX:]

    def reason(self, seen: str) -> str:
        """See Connection: ssh's own words, in docker's."""
        shown = " ".join(map(str, self._process.args)) if isinstance(self._process.args, list) else ""
        try:
            code = self._process.wait(_SECONDS)
        except subprocess.TimeoutExpired:
            return f"command [{shown}] did not exit after {seen}: stderr={self._text()!r}"
        if not code:
            return seen
        self._reader.join(_SECONDS)
        status = f"exit status {code}" if code > 0 else f"signal {-code}"
        return (
            f"command [{shown}] has exited with {status}, make sure the URL is valid, and Sampan, or Docker 18.09 or later, "
            f"is installed on the remote host: stderr={self._text()}"
        )

    def _text(self) -> str:
        return self._stderr.decode("utf-8", "replace")

    def close(self) -> None:
        """See Connection: the ssh ends too."""
        super().close()
        self._process.terminate()


def command(url: str) -> list[str]:
    """The ssh that leads to a URL's daemon. Raises ValueError in docker's words."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError(f"parse {quote(url)}: missing ']' in host") from None
    port = parts.netloc.rpartition("@")[2].rpartition("]")[2].partition(":")[2]
    if port and not (port.isascii() and port.isdecimal()):
        raise ValueError(f"parse {quote(url)}: invalid port {quote(f':{port}')} after host")
    problem = _problem(parts)
    if problem:
        raise ValueError(f"ssh host connection is not valid: invalid SSH URL: {problem}")
    words = ["ssh", "-o", "ConnectTimeout=30", "-T"]
    if parts.username:
        words += ["-l", shlex.quote(unquote(parts.username))]
    if port:
        words += ["-p", port]
    return [*words, "--", shlex.quote(parts.hostname or ""), _remote(unquote(parts.path))]


def _remote(path: str) -> str:
    """What the other machine's shell, whichever it is, runs."""
    rest = "system dial-stdio"
    if path.strip("/"):
        rest = f"{shlex.quote(f'--host=unix://{path}')} {rest}"
    return "sh -c " + shlex.quote(f"if command -v sampan >/dev/null; then exec sampan {rest}; else exec docker {rest}; fi")


def _problem(parts: SplitResult) -> str:
    if parts.password is not None:
        return "plain-text password is not supported"
    if not parts.hostname:
        return "hostname is empty"
    if parts.query:
        return f"query parameters are not allowed: {quote(parts.query)}"
    return f"fragments are not allowed: {quote(parts.fragment)}" if parts.fragment else ""


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, ValueError):
        return str(error)
    return "executable file not found in $PATH" if isinstance(error, FileNotFoundError) else (error.strerror or "").lower()


def _end_with_parent() -> Callable[[], None]:
    """What the child does first: however this process ends, ssh does not outlive it."""
    import ctypes

    prctl = ctypes.CDLL(None).prctl

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, _SIGTERM)

    return ask
