"""Questions before something is removed, and what prune commands report."""

from __future__ import annotations

import sys

from sampan.units import human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def confirm(message: str) -> bool:
    """Ask on stdout; only y or Y is a yes."""
    sys.stdout.write(f"{message}\nAre you sure you want to continue? [y/N] ")
    sys.stdout.flush()
    answer = sys.stdin.buffer.readline().decode("utf-8", "replace").strip()
    return answer.lower() == "y"


def report(title: str, lines: Sequence[str], reclaimed: int) -> None:
    """Print what was removed and how much space that freed."""
    out = "\n".join([f"{title}:", *lines, "", ""]) if lines else ""
    sys.stdout.write(f"{out}Total reclaimed space: {human_size(reclaimed)}\n")
