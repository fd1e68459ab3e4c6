"""Files without a name, where the file system has such and where it has not."""

import errno
import os
from pathlib import Path

import pytest

from sampan.linux import nameless


@pytest.mark.parametrize("refused", [0, errno.EOPNOTSUPP, errno.EISDIR])
def test_there_is_nothing_to_be_seen_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: int) -> None:
    real = os.open

    def opened(path: str, flags: int, mode: int = 0o777) -> int:
        if refused and flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(refused, os.strerror(refused))
        return real(path, flags, mode)

    monkeypatch.setattr(os, "open", opened)
    fd = nameless.nameless_file(tmp_path)
    assert os.listdir(tmp_path) == []
    os.write(fd, b"text")
    assert (os.pread(fd, 9, 0), os.fstat(fd).st_nlink, os.get_inheritable(fd)) == (b"text", 0, False)
    os.close(fd)


def test_other_failures_are_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        nameless.nameless_file(tmp_path / "gone")
