"""Manual pages: one for every command, which roff reads without a warning."""

import shutil
import subprocess
from pathlib import Path

import pytest

from sampan.cli import manpages
from sampan.cli.main import COMMANDS, GROUPS, HIDDEN


def test_every_command_has_a_page() -> None:
    names = manpages.pages().keys()
    assert names == {"sampan.1"} | {f"sampan-{path.replace(' ', '-')}.1" for path in [*COMMANDS, *GROUPS] if path not in HIDDEN}


def test_the_pages_hold_nothing_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    page = manpages.page("")
    assert str(Path.home()) + "/" not in page
    assert "~/.docker".replace("~", "\\(ti") in page


def test_roff_has_no_complaints(tmp_path: Path) -> None:
    groff = shutil.which("groff")
    if groff is None:
        pytest.skip("groff is not installed")
    manpages.main(str(tmp_path))
    command = [groff, "-man", "-ww", "-z", "-Tutf8", "-K", "utf8", *sorted(map(str, tmp_path.iterdir()))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""


def test_a_page_reads_as_the_help() -> None:
    page = manpages.page("cp")
    for line in (
        ".SH SYNOPSIS",
        "\\fBsampan\\fR cp [OPTIONS] CONTAINER:SRC_PATH DEST_PATH|\\-",
        "\\fBsampan\\fR cp [OPTIONS] SRC_PATH|\\- CONTAINER:DEST_PATH",
        "\\fB\\-L\\fR, \\fB\\-\\-follow\\-link\\fR",
        "sampan container cp, sampan cp",
    ):
        assert f"\n{line}\n" in page
