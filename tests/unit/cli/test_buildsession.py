"""--secret and --ssh of `sampan build`, on the client's side."""

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from sampan.cli import buildsession
from sampan.cli.buildsession import AgentChannel, Agents, parse_secrets
from sampan.cli.http import CliError

LIST, SIGN = b"\0\0\0\x01\x0b", b"\0\0\0\x02\x0d!"
FAILURE = b"\0\0\0\x01\x05"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("src=/x", "secret missing ID"),
        ("mysecret", "invalid field 'mysecret' must be a key=value pair"),
        ("id=a,foo=b", "unexpected key 'foo' in 'foo=b'"),
        ("id=a,type=socket", 'unsupported secret type "socket"'),
        ("id=a,src=/not/there", "failed to stat /not/there: stat /not/there: no such file or directory"),
        ("id=not-there", "failed to stat not-there: stat not-there: no such file or directory"),
    ],
)
def test_mistakes_are_told_as_buildx_does(text: str, message: str) -> None:
    with pytest.raises(CliError) as told:
        parse_secrets([text])
    assert told.value.message == message


def test_a_secret_is_a_file_or_a_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_bytes(b"\xffof the file")
    monkeypatch.setenv("VARIABLE", "of the variable")
    given = {
        "a": "id=a,src=file", "b": "ID=b,Source=file,type=file", "file": "id=file", "c": '"id=c","src=file"',
        "VARIABLE": "id=VARIABLE", "d": "id=d,env=VARIABLE", "e": "id=e,type=env,src=VARIABLE", "f": "id=f,env=VARIABLE,src=/not/there",
        "g": "id=g,env=UNSET",
    }  # fmt: skip
    found = {name: secret.read() for name, secret in parse_secrets(list(given.values())).items()}
    assert found == {
        **dict.fromkeys(("a", "b", "file", "c"), b"\xffof the file"),
        **dict.fromkeys(("VARIABLE", "d", "e", "f"), b"of the variable"),
        "g": b"",
    }


def test_large_ones_are_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes((500 << 10) + 1))
    with pytest.raises(CliError, match=r"^secret big too big. max size 500KiB$"):
        parse_secrets([f"id=big,src={tmp_path}/big"])


class FakeAgent:
    """Answers each request with its own bytes, when it is told to."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.seen: list[bytes] = []
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(self.path)
        self._listening.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with suppress(OSError):  # shut down
            connection, _ = self._listening.accept()
            self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            while data := connection.recv(1000):
                self.seen.append(data)
                for byte in data:
                    connection.sendall(bytes([byte]))

    def close(self) -> None:
        """End it."""
        self._listening.shutdown(socket.SHUT_RDWR)
        self._thread.join(20)
        self._listening.close()


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[FakeAgent]:
    made = FakeAgent(tmp_path / "agent")
    yield made
    made.close()


def answers(channel: AgentChannel, count: int) -> bytes:
    """What comes, until there are so many bytes."""
    found = b""
    while len(found) < count:
        found += channel.answered()
    return found


def test_a_build_may_only_look_and_have_signed(agent: FakeAgent) -> None:
    channel = AgentChannel(agent.path)
    for kind in (17, 18, 19, 22, 23, 25, 27, 9):
        assert channel.feed(b"\0\0\0\x01" + bytes([kind])) == FAILURE
    assert channel.sock is None  # nothing for the agent
    assert channel.feed(LIST[:3]) == b""
    # the second one waits for the first one's answer, and what is refused for both
    assert channel.feed(LIST[3:] + SIGN + b"\0\0\0\x01\x13" + LIST) == b""
    assert answers(channel, 21) == LIST + SIGN + FAILURE + LIST
    channel.close()
    assert b"".join(agent.seen) == LIST + SIGN + LIST


@pytest.mark.parametrize("wrong", [b"\0\0\0\0\x0b", b"\xff\xff\xff\xff\x0b", LIST + bytes(600_000)], ids=["empty", "long", "much"])
def test_what_is_no_request_ends_the_connection(agent: FakeAgent, wrong: bytes) -> None:
    channel = AgentChannel(agent.path)
    with pytest.raises(ValueError, match=r"request|message"):
        channel.feed(wrong)
    channel.close()


def test_agents_are_checked_as_buildkit_does(tmp_path: Path, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    (tmp_path / "key").write_text("x")
    convert = "failed to convert agent config for ID: "
    for texts, message in (
        (["default"], "invalid empty ssh agent socket: make sure SSH_AUTH_SOCK is set"),
        (["a=/not/there"], f'{convert}"a": stat /not/there: no such file or directory'),
        ([f"a={agent.path},{tmp_path}/key"], f'{convert}"a": invalid combination of keys and sockets'),
        ([f"a={agent.path},{agent.path}"], f'{convert}"a": only single socket allowed'),
        ([f"a={agent.path}", f"a={agent.path}"], 'duplicate agent ID "a"'),
    ):
        with pytest.raises(CliError) as told:
            Agents(texts)
        assert told.value.message == message
    monkeypatch.setenv("SSH_AUTH_SOCK", agent.path)
    assert Agents(["default", f"x={agent.path}"]).sockets == {"default": agent.path, "x": agent.path}


def test_no_flags_no_session() -> None:
    from sampan.cli.commands.build import SPEC
    from sampan.cli.flags import parse

    assert buildsession.session_of(parse(SPEC.flags, ["."])) is None
