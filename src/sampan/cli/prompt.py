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
    return _yes()


def confirm_on_one_line(question: str) -> bool:
    """Ask with the question as docker has it for build caches."""
    sys.stdout.write(f"{question} [y/N] ")
    sys.stdout.flush()
    return _yes()


def _yes() -> bool:
    return sys.stdin.buffer.readline().decode("utf-8", "replace").strip().lower() == "y"


def deleted(one: str | dict[str, str]) -> str:
    """A line about one thing that was removed: its name, or what became of an image."""
    if isinstance(one, str):
        return one
    return f"untagged: {one['Untagged']}" if one.get("Untagged") else f"deleted: {one.get('Deleted', '')}"


def list_removed(title: str, lines: Sequence[str]) -> None:
    """Print what was removed of one kind, if anything was."""
    if lines:
        sys.stdout.write("\n".join([f"{title}:", *lines, "", ""]))
        sys.stdout.flush()


def total(reclaimed: int) -> None:
    """Print how much space that freed."""
    sys.stdout.write(f"Total reclaimed space: {human_size(reclaimed)}\n")


def report(title: str, lines: Sequence[str], reclaimed: int) -> None:
    """Print what was removed of one kind, and how much space that freed."""
    list_removed(title, lines)
    total(reclaimed)
