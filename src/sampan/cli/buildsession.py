"""What `sampan build` lends the daemon while it builds: `--secret` and `--ssh`, asked for on a connection of its own.

Rules and messages are buildx's and BuildKit's; the wire is in sessionframes.py. One thread does all of it: a TLS connection takes no two.
"""

from __future__ import annotations

import os
import select
import stat
import sys

from sampan import sessionframes as frames
from sampan.cli.flags import quote
from sampan.cli.http import ApiError, CliError
from sampan.cli.opts import split_csv

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from sampan.cli.agentkeys import KeyAgent
    from sampan.cli.flags import Parsed
    from sampan.cli.http import Client, Socket
else:
    import _socket as socket

_AGENT_SECONDS = 10.0
"""How long an agent may take to accept a connection or a request; its answer may wait for its user."""
_CHUNK = 1 << 16
_REQUEST_IDENTITIES, _SIGN_REQUEST = 11, 13
_FAILURE = b"\x00\x00\x00\x01\x05"


class Secret:
    """Where one is: in a variable, or else in a file."""

    def __init__(self, *, env: str = "", path: str = "") -> None:
        self.env, self.path = env, path

    def read(self) -> bytes:
        """Raises OSError. A variable that is not set is empty, as in buildx."""
        if self.env:
            return os.environb.get(os.fsencode(self.env), b"")
        with open(self.path, "rb") as file:
            return file.read(frames.SECRET_MAX + 1)


def parse_secrets(texts: Sequence[str]) -> dict[str, Secret]:
    """The values of --secret, by ID. Raises CliError."""
    return dict(_secret(text) for text in texts)


def _secret(text: str) -> tuple[str, Secret]:
    given = _secret_fields(text)
    name, path, env = given.get("id", ""), given.get("src", ""), given.get("env", "")
    if given.get("type") == "env" and not env:
        path, env = "", path
    if not name:
        raise CliError("secret missing ID")
    if not env and not path:
        path, env = ("", name) if name in os.environ else (name, "")
    if path and not env:
        try:
            size = os.stat(path).st_size
        except OSError as error:
            raise CliError(f"failed to stat {path}: stat {path}: {(error.strerror or '').lower()}") from None
        if size > frames.SECRET_MAX:
            raise CliError(f"secret {name} too big. max size 500KiB")
    return name, Secret(env=env, path=path)


def _secret_fields(text: str) -> dict[str, str]:
    try:
        fields = split_csv(text)
    except ValueError as error:
        raise CliError(f"failed to parse csv secret: {error}") from None
    given: dict[str, str] = {}
    for field in fields:
        key, equals, value = field.partition("=")
        key = {"source": "src"}.get(key.lower(), key.lower())
        if not equals:
            raise CliError(f"invalid field '{field}' must be a key=value pair")
        if key not in ("type", "id", "src", "env"):
            raise CliError(f"unexpected key '{key}' in '{field}'")
        if key == "type" and value not in ("file", "env"):
            raise CliError(f"unsupported secret type {quote(value)}")
        given[key] = value
    return given


class Agents:
    """The agents of --ssh by ID: sockets' paths. Those for keys are ours: close() ends them."""

    def __init__(self, texts: Sequence[str]) -> None:
        """Raises CliError."""
        self.sockets: dict[str, str] = {}
        self._own: list[KeyAgent] = []
        try:
            for text in texts:
                name, _, paths = text.partition("=")
                name = name or "default"
                if name in self.sockets:
                    raise CliError(f"duplicate agent ID {quote(name)}")
                self.sockets[name] = self._socket(name, paths.split(",") if paths else [os.environ.get("SSH_AUTH_SOCK", "")])
        except BaseException:
            self.close()
            raise

    def _socket(self, name: str, paths: Sequence[str]) -> str:
        if not paths[0]:
            raise CliError("invalid empty ssh agent socket: make sure SSH_AUTH_SOCK is set")
        found = [path for path in paths if _is_socket(name, path)]
        if not found:
            from sampan.cli.agentkeys import KeyAgent

            self._own.append(KeyAgent(paths))
            return self._own[-1].path
        if len(found) < len(paths):
            raise CliError(f"failed to convert agent config for ID: {quote(name)}: invalid combination of keys and sockets")
        if len(found) > 1:
            raise CliError(f"failed to convert agent config for ID: {quote(name)}: only single socket allowed")
        return found[0]

    def close(self) -> None:
        """May be called twice."""
        while self._own:
            self._own.pop().close()


def _is_socket(name: str, path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError as error:
        problem = (error.strerror or "").lower()
        raise CliError(f"failed to convert agent config for ID: {quote(name)}: stat {path}: {problem}") from None


class AgentChannel:
    """One connection of a step's to an agent. A build may see the keys and have them sign; it does not add, remove or lock any."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.sock: socket.socket | None = None
        self._requests = bytearray()
        self._answer = bytearray()
        self._waiting = False

    def feed(self, data: bytes) -> bytes:
        """Bytes of the step's. Returns answers. Raises OSError, ValueError: the connection is over."""
        self._requests += data
        if len(self._requests) > 2 * frames.AGENT_MESSAGE_MAX:
            raise ValueError("requests that wait for no answer")
        return self._go_on()

    def answered(self) -> bytes:
        """The agent has something to read. Returns answers. Raises as feed()."""
        data = self.sock.recv(_CHUNK) if self.sock is not None else b""
        if not data:
            raise ValueError("the agent has closed the connection")
        self._answer += data
        length = frames.agent_message(self._answer)
        if not length:
            return b""
        if not self._waiting or length < len(self._answer):
            raise ValueError("an answer to nothing")
        answer = bytes(self._answer)
        self._answer.clear()
        self._waiting = False
        return answer + self._go_on()

    def _go_on(self) -> bytes:
        """The next request is for the agent once the one before is answered."""
        refusals = b""
        while not self._waiting and (length := frames.agent_message(self._requests)):
            request = bytes(self._requests[:length])
            del self._requests[:length]
            if request[4] in (_REQUEST_IDENTITIES, _SIGN_REQUEST):
                self._send(request)
                self._waiting = True
            else:
                refusals += _FAILURE
        return refusals

    def _send(self, request: bytes) -> None:
        if self.sock is None:
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
            self.sock.settimeout(_AGENT_SECONDS)
            self.sock.connect(self._path)
        self.sock.sendall(request)

    def close(self) -> None:
        """May be called twice."""
        if self.sock is not None:
            self.sock.close()


class BuildSession:
    """The session: `id` names it in POST /build. Begins with start(), ends with close(), or by itself when the daemon goes."""

    def __init__(self, secrets: dict[str, Secret], agents: Agents) -> None:
        self.id = os.urandom(16).hex()
        self._secrets = secrets
        self._agents = agents
        self._reader = frames.Reader()
        self._channels: dict[int, AgentChannel] = {}
        self._sock: Socket | None = None
        self._ended = False

    def start(self, client: Client) -> None:
        """Connect. Raises CliError."""
        from _thread import start_new_thread

        try:
            stream = client.hijack("/session", headers={"Upgrade": frames.UPGRADE, frames.SESSION_HEADER: self.id})
        except ApiError as error:
            raise CliError(f"the daemon cannot be lent secrets or SSH agents: {error.reason}") from None
        self._sock = stream.sock
        start_new_thread(self._serve, (stream.early,))

    def close(self) -> None:
        """End it. May be called twice."""
        self._ended = True
        if self._sock is not None:
            try:
                self._sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self._agents.close()

    def _serve(self, early: bytes) -> None:
        sock = self._sock
        assert sock is not None
        try:
            self._take(early)
            while data := self._received(sock):
                self._take(data)
        except (OSError, ValueError) as error:
            if not self._ended:
                sys.stderr.write(f"the session with the daemon is over: {error}\n")
        finally:
            for channel in self._channels.values():
                channel.close()

    def _received(self, sock: Socket) -> bytes:
        """The daemon's next bytes; agents' answers are passed on meanwhile."""
        while True:
            ready = self._ready(sock)
            for number, channel in list(self._channels.items()):
                if channel.sock is not None and channel.sock.fileno() in ready:
                    self._channel(number, channel, None)
            if sock.fileno() in ready:
                break
        return sock.recv(_CHUNK)

    def _ready(self, sock: Socket) -> set[int]:
        poll = select.poll()
        poll.register(sock.fileno(), select.POLLIN)
        for channel in self._channels.values():
            if channel.sock is not None:
                poll.register(channel.sock.fileno(), select.POLLIN)
        return {fd for fd, _ in poll.poll()}

    def _take(self, data: bytes) -> None:
        for kind, number, payload in self._reader.feed(data):
            if kind == frames.SECRET:
                self._lend_secret(number, os.fsdecode(payload))
            elif kind == frames.AGENT:
                self._lend_agent(number, os.fsdecode(payload))
            elif number in self._channels:
                if kind == frames.DATA:
                    self._channel(number, self._channels[number], payload)
                else:
                    self._channels.pop(number).close()

    def _lend_secret(self, number: int, name: str) -> None:
        secret = self._secrets.get(name)
        if secret is None:
            self._send(frames.frame(frames.REFUSE, number))
            return
        try:
            data = secret.read()
        except OSError as error:
            self._refuse(number, f"open {secret.path}: {(error.strerror or '').lower()}")
            return
        if len(data) > frames.SECRET_MAX:
            self._refuse(number, f"secret {name} too big. max size 500KiB")
            return
        self._send(b"".join(frames.data_frames(number, data)) + frames.frame(frames.END, number))

    def _refuse(self, number: int, reason: str) -> None:
        self._send(frames.frame(frames.REFUSE, number, reason.encode("utf-8", "surrogateescape")[: frames.PAYLOAD_MAX]))

    def _lend_agent(self, number: int, name: str) -> None:
        path = self._agents.sockets.get(name)
        if path is not None:
            self._channels[number] = AgentChannel(path)
        self._send(frames.frame(frames.REFUSE if path is None else frames.ACCEPT, number))

    def _channel(self, number: int, channel: AgentChannel, data: bytes | None) -> None:
        """Bytes of the step's for an agent; None: the agent has an answer."""
        try:
            answers = channel.answered() if data is None else channel.feed(data)
        except (OSError, ValueError):
            channel.close()
            del self._channels[number]
            self._send(frames.frame(frames.END, number))
            return
        self._send(b"".join(frames.data_frames(number, answers)))

    def _send(self, data: bytes) -> None:
        if data and self._sock is not None:
            self._sock.sendall(data)


def session_of(args: Parsed) -> BuildSession | None:
    """The session that the flags ask for, not connected yet. Raises CliError."""
    if not args.list("secret") and not args.list("ssh"):
        return None
    return BuildSession(parse_secrets(args.list("secret")), Agents(args.list("ssh")))
