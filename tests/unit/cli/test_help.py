"""Help texts are docker's, recorded with `docker COMMAND --help` (28.2) at 80 columns, with our program's name."""

import re
from pathlib import Path

import pytest

from sampan.cli import help as texts
from sampan.cli.main import ABSENT, COMMANDS, GROUPS, main

GOLDEN = sorted((Path(__file__).parents[2] / "golden" / "cli" / "help").glob("*.txt"))
BUILD = {name: "what docker has by buildx only" for name in ("--output", "--progress", "--secret", "--ssh")}
TLS = {"--tls-verify": "insecure registries without a change of the daemon's configuration"}
PORTS = dict.fromkeys(("--publish-add", "--publish-rm"), "docker publishes ports at create only")
ZONE = {"--tz": "docker's containers have their image's time zone"}
OURS: dict[str, dict[str, str]] = {
    "docker": {
        "completion": "hidden in docker's help",
        "mirror": "mirrors of every registry",
        "registry": "the registry that comes with Sampan",
        "version": "it is not docker's version",
    },
    "build": BUILD,
    "builder build": BUILD,
    "image build": BUILD,
    "image": dict.fromkeys(("bootstrap", "mount", "umount"), "more than docker can"),
    "pull": TLS,
    "image pull": TLS,
    "push": TLS,
    "image push": TLS,
    "run": ZONE,
    "container run": ZONE,
    "create": ZONE,
    "container create": ZONE,
    "update": PORTS,
    "container update": PORTS,
    "system": {"check": "the check of everything that is stored"},
    "version": {"": "it is not docker's version"},
    "manifest": {"": "docker's has a text of its own"},
}
"""Lines that are ours alone or say something else, by page and option or command ("" for the text above them), with the reason."""
NOT_OURS: dict[str, dict[str, str]] = {
    "docker": {name: f"no {ABSENT[name]}" for name in ("checkpoint", "trust")},
    "plugin": {path.split()[1]: f"no {ABSENT[path]}" for path in ABSENT if path.startswith("plugin ") and path != "plugin remove"},
    "start": dict.fromkeys(("--checkpoint", "--checkpoint-dir"), "no checkpoints"),
    "container start": dict.fromkeys(("--checkpoint", "--checkpoint-dir"), "no checkpoints"),
}
"""Lines of docker's that are not ours, likewise."""


def entries(page: str) -> dict[str, str]:
    """A page's options and commands with their kinds and descriptions on one line each; under "" everything else."""
    found = {"": ""}
    name = ""
    for line in page.split("\n"):
        option = re.match(r"^ +(-\w, +)?(--[a-z0-9-]+)(?: (\w+))?   +(.*)", line)
        command = re.match(r"^  ([a-z-]+)\*? +(.*)", line)
        if option:
            name = option[2]
            found[name] = f"{option[1]} {option[3]}: {option[4]}"
        elif command:
            name = command[1]
            found[name] = command[2]
        elif name and line.startswith("       "):
            found[name] += " " + line.strip()
        else:
            name = ""
            found[name] += line.strip() + "\n"
    return found


def not_here(path: str) -> bool:
    """A page of a command that is not ours, for a reason given above."""
    group, _, name = path.rpartition(" ")
    parents = NOT_OURS["docker"].keys() | {path}
    return path.split()[0] in parents - {path} or name in NOT_OURS.get(group or "docker", {})


PAGES = [path for path in GOLDEN if not not_here(path.stem.replace("_", " "))]


@pytest.mark.parametrize("golden", PAGES, ids=[path.stem for path in PAGES])
def test_help_is_dockers(golden: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_terminal(_: int) -> None:
        raise OSError

    monkeypatch.setattr("os.get_terminal_size", no_terminal)
    path = golden.stem.replace("_", " ")
    theirs = re.sub(r"\nEXPERIMENTAL:\n(?:  .*\n)+", "", golden.read_text())  # manifest is no experiment here
    ours = texts.text([] if path == "docker" else path.split()).replace("sampan", "docker")
    if path == "docker":
        theirs, ours = of_the_program(theirs), of_the_program(ours)
    extra, missing = OURS.get(path, {}), NOT_OURS.get(path, {})
    if not extra and not missing:
        assert ours == theirs
    mine, reference = entries(ours), entries(theirs)
    assert extra.keys() <= mine.keys()
    assert missing.keys() <= reference.keys() - mine.keys()
    assert {name: text for name, text in mine.items() if name not in extra} == {
        name: text for name, text in reference.items() if name not in extra and name not in missing
    }


def of_the_program(page: str) -> str:
    """The program's own page without what depends on the machine, the swarm's heading and the link to docker's guides."""
    page = re.sub(r'\(default\s+"[^"]*\.docker', '(default "HOME/.docker', page)
    return re.sub(r"Swarm Commands:\n(  .*\n)*\n", "", page.partition("\nFor more help")[0])


@pytest.mark.parametrize("words", [["swarm", "init"], ["service", "ls"], ["stack"], ["trust", "sign", "x"], ["checkpoint", "ls", "c"]])
def test_what_is_not_here_says_so(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == f"'sampan {words[0]}' is not available: Sampan has no {ABSENT[words[0]]}\n"


def test_legacy_commands_can_be_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\n  wait  " in texts.text([])
    monkeypatch.setenv("DOCKER_HIDE_LEGACY_COMMANDS", "1")
    page = texts.text([])
    assert "\nCommands:" not in page
    assert "\n  wait  " not in page
    assert "\n  run  " in page


def test_managed_plugins_are_listed_and_not_installed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugin", "install", "x"]) == 1
    assert capsys.readouterr().err == "'sampan plugin install' is not available: Sampan has no managed plugins\n"


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
