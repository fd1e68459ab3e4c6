"""Which file of /proc is told a profile, and what a refusal names."""

import os
from pathlib import Path

import pytest

from sampan.linux.apparmor import confine_at_exec


@pytest.mark.parametrize("file", ["apparmor/exec", "exec"])
def test_the_profile_is_written_where_the_kernel_wants_it(tmp_path: Path, file: str) -> None:
    for name in {file, "exec"}:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    confine_at_exec("mine", str(tmp_path))
    assert (tmp_path / file).read_text() == "exec mine"


def test_a_refusal_names_the_file(tmp_path: Path) -> None:
    os.symlink("/dev/full", tmp_path / "exec")
    with pytest.raises(OSError, match="No space") as caught:
        confine_at_exec("mine", str(tmp_path))
    assert caught.value.filename == f"{tmp_path}/exec"
