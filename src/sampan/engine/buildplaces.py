"""Where builds have their files: what a start looks at, to take away what a kill has left."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

VOID: Final = "void"
"""A directory with nothing in it."""
MOUNTS: Final = "mounts"
"""The directories of --mount=type=cache."""


def workspaces(root: Path) -> Iterator[Path]:
    """The places of single builds. Raises OSError."""
    with suppress(FileNotFoundError):
        yield from (path for path in list(root.iterdir()) if path.name not in (VOID, MOUNTS))


def containers(root: Path) -> Iterator[str]:
    """The IDs of their steps' containers. Raises OSError."""
    for path in workspaces(root):
        with suppress(OSError):
            yield from os.listdir(path / "containers")
