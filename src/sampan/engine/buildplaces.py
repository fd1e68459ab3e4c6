"""Where builds have their files: what a start looks at, to take away what a kill has left."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

CONTAINERS: Final = "containers"
"""In a build's place: files with the names of its steps' containers."""
VOID: Final = "void"
"""A directory with nothing in it."""
MOUNTS: Final = "mounts"
"""The directories of --mount=type=cache."""


def root(data_root: Path) -> Path:
    """The directory with all of them."""
    return data_root / "build"


def workspaces(builds: Path) -> Iterator[Path]:
    """The places of single builds. Raises OSError."""
    with suppress(FileNotFoundError):
        yield from (path for path in list(builds.iterdir()) if path.name not in (VOID, MOUNTS))


def containers(builds: Path) -> Iterator[str]:
    """The IDs of their steps' containers. Raises OSError."""
    for path in workspaces(builds):
        with suppress(OSError):
            yield from os.listdir(path / CONTAINERS)
