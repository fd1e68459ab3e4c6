"""What the maker of base images does at the engine's start."""

import asyncio
from pathlib import Path
from typing import Any, cast

from sampan.archive.trees import remove_path
from sampan.engine.bootstrap import BootstrapService
from tests.support.disks import deep_tree


def test_an_unfinished_tree_of_any_depth_is_removed_at_start(tmp_path: Path) -> None:
    try:
        deep_tree(tmp_path / "tree-0/d", 3000)
        (tmp_path / "cache").mkdir()
        asyncio.run(BootstrapService(cast("Any", None), cast("Any", None), tmp_path).repair())
        assert [path.name for path in tmp_path.iterdir()] == ["cache"]
    finally:
        remove_path(tmp_path / "tree-0")  # too deep for pytest
