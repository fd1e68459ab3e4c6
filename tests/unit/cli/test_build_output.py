"""`sampan build --output`: what may be asked for, in buildx's words."""

import os
import pty
import tarfile
from pathlib import Path

import pytest

from sampan.cli import buildoutput
from sampan.cli.http import CliError
from tests.support.builds import Content, context
from tests.support.nobody import as_nobody


@pytest.mark.parametrize(
    ("value", "kind", "destination"),
    [
        ("out", "local", "out"),
        ("-", "tar", "-"),
        ("type=local,dest=out", "local", "out"),
        ('type=local,"dest=a,b"', "local", "a,b"),
        ("TYPE=tar,dest=a=b.tar", "tar", "a=b.tar"),
        ("type=tar", "tar", "-"),
        ("type=image", "image", ""),
        ("type=docker", "docker", ""),
    ],
)
def test_forms(value: str, kind: str, destination: str) -> None:
    (output,) = buildoutput.parse([value])
    assert (output.kind, output.destination) == (kind, destination)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["a,b"], "invalid value a"),
        (["dest=x"], "dest=x"),  # a directory's name, as it is to buildx
        (["dest=x,x=y"], "type is required for output"),
        (["type=local"], "dest is required for local exporter"),
        (["type=local,dest=-"], "dest cannot be stdout for local exporter"),
        (["type=local,dest={here}/file"], "destination directory {here}/file is a file"),
        (["type=local,dest={here}/file/x"], "invalid destination directory: {here}/file/x: not a directory"),
        (["type=tar,dest={here}"], "destination file {here} is a directory"),
        (["type=tar,dest={here}/file/x"], "invalid destination file: {here}/file/x: not a directory"),
        (["type=oci,dest=x"], "the oci exporter is not implemented by Sampan: save the image: sampan save"),
        (["type=registry"], "the registry exporter is not implemented by Sampan: give the image a name and push it: sampan push"),
        (
            ["type=image,push=true"],
            "push is not implemented by Sampan for the image exporter: give the image a name and push it: sampan push",
        ),
        (["type=docker,dest=x"], "dest is not implemented by Sampan for the docker exporter: save the image: sampan save"),
        (["type=what"], 'exporter "what" could not be found'),
        (["type=tar", "-"], "only one output can be written to stdout"),
        (['"type=tar'], 'parse error on line 1, column 1: bare " in non-quoted-field: "type=tar'),
    ],
)
def test_what_cannot_be(tmp_path: Path, values: list[str], message: str) -> None:
    (tmp_path / "file").touch()
    try:
        told = buildoutput.parse([value.format(here=tmp_path) for value in values])[0].destination
    except CliError as error:
        told = error.message
    assert told == message.format(here=tmp_path)


def test_a_terminal_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    master, slave = pty.openpty()
    with os.fdopen(master, "rb"), os.fdopen(slave, "w") as terminal:
        monkeypatch.setattr("sys.stdout", terminal)
        with pytest.raises(CliError, match=r"^dest file is required for tar exporter\. refusing to write to console$"):
            buildoutput.parse(["-"])


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({"../elsewhere/file": "x"}, "'../elsewhere/file' is outside of the root: breakout"),
        ({"link": {"link": "../elsewhere"}, "link/file": "x"}, "link/file: Too many levels of symbolic links"),
        ({"hard": {"hard": "../elsewhere/secret"}}, "invalid hardlink 'hard': '../elsewhere/secret' is outside of the root: breakout"),
        ({"link": {"link": "../elsewhere"}, "hard": {"hard": "link/secret"}}, "link link/secret hard: no such file or directory"),
        ({"there": "x"}, "cannot overwrite directory"),
    ],
)
def test_what_a_daemon_sends_stays_in_the_directory(tmp_path: Path, files: dict[str, Content], problem: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "secret").touch()
    (tmp_path / "out" / "there").mkdir(parents=True)
    with pytest.raises(CliError) as raised:
        buildoutput.extract(iter([context(files)]), str(tmp_path / "out"))
    assert raised.value.message.startswith(f"failed to write to {tmp_path}/out: {problem}")
    assert os.listdir(tmp_path / "elsewhere") == ["secret"]
    assert (tmp_path / "elsewhere" / "secret").stat().st_nlink == 1


def test_devices_are_left_out(tmp_path: Path) -> None:
    buildoutput.extract(iter([context({"disk": {"type": tarfile.BLKTYPE}, "/file": "x"})]), str(tmp_path / "out"))
    assert os.listdir(tmp_path / "out") == ["file"]


@pytest.mark.root
def test_directories_that_are_not_to_be_written_to_are_filled_first(tmp_path: Path) -> None:
    for directory in (tmp_path, *tmp_path.parents[:3]):
        directory.chmod(0o755)
    (tmp_path / "mine").mkdir()
    os.chown(tmp_path / "mine", 65534, 65534)
    archive = context({"d": {"data": None, "mode": 0o555}, "d/e": {"mode": 0o500}, "d/e/file": "x", "d/file": "x"})
    out = tmp_path / "mine" / "out"
    for _ in range(2):  # the second replaces what the first has made
        assert as_nobody(lambda: buildoutput.extract(iter([archive]), str(out))) == ""
        assert (out / "d" / "e" / "file").read_text() == "x"
        assert [(out / name).stat().st_mode & 0o777 for name in ("d", "d/e")] == [0o555, 0o500]
