"""An extracted layer's tar, made again."""

import subprocess
from pathlib import Path

import pytest

from sampan.archive.writer import END
from tests.support.layers import assembled, extract
from tests.support.tars import tar

pytestmark = pytest.mark.root


@pytest.mark.parametrize("hole_last", [False, True])
def test_a_sparse_file_that_is_replaced(tmp_path: Path, hole_last: bool) -> None:
    with (tmp_path / "s").open("wb") as file:
        for place in (1 << 16, 1 << 20):
            file.seek(place)
            file.write(b"some" * 2000)
        if hole_last:
            file.truncate(3 << 20)
    command = ["tar", "-C", str(tmp_path), "--sparse", "--blocking-factor=1", "-cf", "-", "s"]
    first = subprocess.run(command, check=True, capture_output=True, timeout=20).stdout
    assert len(first) < 100_000
    archive = first.removesuffix(END) + tar(("f", "s", "other"), ("d", "s"))
    (tmp_path / "layer").mkdir()
    extract(archive, tmp_path / "layer", tmp_path / "recipe")
    assert (tmp_path / "layer/s").is_dir()
    assert [path.name for path in (tmp_path / "layer").iterdir()] == ["s"]
    assert assembled(tmp_path / "recipe", tmp_path / "layer") == archive
