"""What an index finds is shown on a terminal, whoever wrote it."""

from types import SimpleNamespace

import pytest

from sampan.cli.commands import search

EVIL = {"name": "a\x1b[2J", "description": "b\x1b]0;c\x07\u202e", "star_count": 1, "is_official": False}


class Arguments:
    """`sampan search x`, with a format perhaps."""

    args = ("x",)
    source = ""

    def str(self, _name: str) -> str:
        return self.source

    def int(self, _name: str) -> int:
        return 0

    def bool(self, _name: str) -> bool:
        return False

    def get(self, _name: str) -> None:
        return None


def test_a_table_moves_no_cursor(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "registry_auth", lambda *_: "")
    answer = SimpleNamespace(json=lambda: [EVIL])
    context = SimpleNamespace(client=SimpleNamespace(request=lambda *_, **_named: answer))
    arguments = Arguments()
    search.run(context, arguments)  # type: ignore[arg-type]
    table = capsys.readouterr().out
    assert r"a\x1b[2J" in table
    assert r"b\x1b]0;c\x07\u202e" in table
    assert "\x1b" not in table
    arguments.source = "{{.Name}}"
    search.run(context, arguments)  # type: ignore[arg-type]
    assert capsys.readouterr().out == "a\x1b[2J\n", "a program's"
