"""ssh:// URLs, and the command that they become."""

import re
import shlex
from typing import Any

import pytest

from sampan.cli import sshhost
from sampan.cli.flags import parse
from sampan.cli.http import Host
from sampan.cli.main import GLOBAL_FLAGS, Context


def test_a_command() -> None:
    remote = "sh -c 'if command -v sampan >/dev/null; then exec sampan system dial-stdio; else exec docker system dial-stdio; fi'"
    assert sshhost.command("ssh://me@far:22") == ["ssh", "-o", "ConnectTimeout=30", "-T", "-l", "me", "-p", "22", "--", "far", remote]


def test_nothing_of_a_url_reaches_a_shell_unquoted() -> None:
    words = sshhost.command("ssh://a%20-oProxyCommand=x@-oProxyCommand=y/run/$(touch%20x);'y'.sock")
    assert words[4:8] == ["-l", "'a -oProxyCommand=x'", "--", "-oproxycommand=y"]
    inner = "'--host=unix:///run/$(touch x);'\"'\"'y'\"'\"'.sock'"
    assert shlex.split(words[-1])[:2] == ["sh", "-c"]
    assert inner in shlex.split(words[-1])[2]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ssh://u:p@h", "ssh host connection is not valid: invalid SSH URL: plain-text password is not supported"),
        ("ssh://", "ssh host connection is not valid: invalid SSH URL: hostname is empty"),
        ("ssh://h?x=1", 'ssh host connection is not valid: invalid SSH URL: query parameters are not allowed: "x=1"'),
        ("ssh://h#f", 'ssh host connection is not valid: invalid SSH URL: fragments are not allowed: "f"'),
        ("ssh://h:x", 'parse "ssh://h:x": invalid port ":x" after host'),
        ("ssh://u@[::1]:1x", 'parse "ssh://u@[::1]:1x": invalid port ":1x" after host'),
        ("ssh://[::1", "parse \"ssh://[::1\": missing ']' in host"),
    ],
)
def test_a_url_that_is_none(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message) + "$"):
        sshhost.command(url)


@pytest.mark.parametrize(("host", "most"), [(sshhost.SshHost("ssh://h"), 4), (Host("unix:///x"), 50)])
def test_few_connections_are_opened_at_once(host: Host, most: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Every request of a command with many names is an ssh of its own."""
    open_now: list[int] = []
    seen: list[int] = []

    class Answer:
        def finish(self) -> None:
            open_now.pop()

    class Client:
        def __init__(self) -> None:
            self.host = host

    def begin(_: str) -> Any:
        open_now.append(1)
        seen.append(len(open_now))
        return Answer()

    ctx = Context(parse(GLOBAL_FLAGS, []))
    ctx._client = Client()  # type: ignore[assignment]
    names = [f"c{number}" for number in range(120)]
    assert ctx.each_at_once(names, begin) == 0
    assert (max(seen), capsys.readouterr().out.split()) == (most, names)
