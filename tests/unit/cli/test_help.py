"""Help texts are docker's, recorded with `docker COMMAND --help` (28.2) at 80 columns, with our program's name."""

from pathlib import Path

import pytest

from sampan.cli import help as texts
from sampan.cli.main import COMMANDS, GROUPS, main

GOLDEN = sorted((Path(__file__).parents[2] / "golden" / "cli" / "help").glob("*.txt"))


@pytest.mark.parametrize("golden", GOLDEN, ids=[path.stem for path in GOLDEN])
def test_help_is_dockers(golden: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_terminal(_: int) -> None:
        raise OSError

    monkeypatch.setattr("os.get_terminal_size", no_terminal)
    assert texts.text(golden.stem.split("_")) == golden.read_text().replace("docker ", "sampan ").replace(
        "sampan socket", "docker socket"
    ).replace("Bind mount sampan", "Bind mount docker")


def test_every_group_and_command_has_a_help(capsys: pytest.CaptureFixture[str]) -> None:
    for path in [*GROUPS, *COMMANDS]:
        if not path.startswith("__"):
            assert main([*path.split(), "--help"]) == 0, path
            assert capsys.readouterr().out.startswith(f"Usage:  sampan {path}")


def test_without_a_command_the_program_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Usage:  sampan [OPTIONS] COMMAND\n")
    assert "  run         Create and run a new container from an image\n" in out


def test_an_alias_is_shown_by_its_proper_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["container", "list", "--help"]) == 0
    assert capsys.readouterr().out.startswith("Usage:  sampan container ls [OPTIONS]\n")


def test_a_group_without_a_command_reminds_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["container"]) == 0
    reminder = capsys.readouterr()
    assert main(["container", "--help"]) == 0
    asked = capsys.readouterr()
    assert (reminder.out, asked.err) == ("", "")
    assert reminder.err == asked.out
    assert asked.out.startswith("Usage:  sampan container COMMAND\n")


def test_help_of_an_unknown_command_is_the_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nope", "--help"]) == 0
    assert capsys.readouterr().out.startswith("Usage:  sampan [OPTIONS] COMMAND\n")
