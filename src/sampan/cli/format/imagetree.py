"""`images --tree`: each image with its names, and the platforms of its index below it. Pure.

Facts: docker/cli 28.2 cli/command/image/tree.go. Only the title line has colours in a pipe too.
"""

from __future__ import annotations

import re

from sampan.cli.format.containers import short_id
from sampan.cli.format.images import is_dangling
from sampan.cli.format.table import width
from sampan.units import human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

_WARNING = "WARNING: This is an experimental feature. The output may change and shouldn't be depended on."
_RESET, _TITLE, _NAME, _VALUE, _UNTAGGED, _YELLOW = (
    "\x1b[0m",
    "\x1b[39m\x1b[1m",
    "\x1b[34m\x1b[1m",
    "\x1b[39m",
    "\x1b[39m\x1b[2m",
    "\x1b[93m",
)
_INFO = "\x1b[1m\x1b[106m\x1b[30mi\x1b[0m\x1b[0m \x1b[96mInfo → \x1b[0m\x1b[0m"
_CHIP = "\x1b[38;5;0m\x1b[48;5;14m U \x1b[0m"
_ESCAPE = re.compile("\x1b[^m]*m")
_GAP = "   "
_NAME_MIN = 12
"""Columns that must stay for names; else those at the right are left out."""


class _Row:
    """The values beside a name: ID, sizes, and whether a container uses it."""

    def __init__(self, name: str, size: int, content: int, *, used: bool, faint: bool = False) -> None:
        self.name, self.used, self.faint = name, used, faint
        self.sizes = human_size(size, 3), human_size(content, 3)


class _Tree:
    """One image."""

    def __init__(self, image: dict[str, Any]) -> None:
        manifests: list[dict[str, Any]] = image.get("Manifests") or []
        self.names: list[str] = sorted(image.get("RepoTags") or [], key=lambda name: -len(name))
        self.children: list[tuple[str, _Row]] = []
        for one in manifests:
            if one.get("Kind") != "image":
                continue
            about, size = one.get("ImageData") or {}, one.get("Size") or {}
            row = _Row(
                one.get("ID") or "", size.get("Total") or 0, size.get("Content") or 0,
                used=bool(about.get("Containers")), faint=not one.get("Available"),
            )  # fmt: skip
            self.children.append((_platform(about.get("Platform") or {}), row))
        content = sum((one.get("Size") or {}).get("Content") or 0 for one in manifests)
        used = (image.get("Containers") or 0) > 0 or any(row.used for _, row in self.children)
        self.row = _Row(image.get("Id") or "", image.get("Size") or 0, content, used=used)


def _platform(platform: dict[str, Any]) -> str:
    """containerd's platforms.Format."""
    if not platform.get("os"):
        return "unknown"
    return "/".join(part for part in (platform["os"], platform.get("architecture"), platform.get("variant")) if part)


class _Painter:
    """Cells of a given width, coloured on a terminal."""

    def __init__(self, *, is_terminal: bool, chips: bool, columns: int) -> None:
        self.is_terminal, self.chips, self.columns = is_terminal, chips, columns

    def cell(self, text: str, size: int, colour: str, *, right: bool = False, always: bool = False) -> str:
        shown = cut(text, size) if width(_ESCAPE.sub("", text)) > size else text
        blanks = " " * (size - width(_ESCAPE.sub("", text)))
        shown = self.painted(shown, colour) if not always else f"{colour}{shown}{_RESET}"
        return blanks + shown if right else shown + blanks

    def painted(self, text: str, colour: str) -> str:
        return f"{colour}{text}{_RESET}" if self.is_terminal and colour else text

    def values(self, row: _Row) -> str:
        """What stands right of a name."""
        colour = _VALUE + "\x1b[2m" * row.faint
        chip = "" if not self.chips else (_CHIP if self.is_terminal else "U") if row.used else "   " if self.is_terminal else " "
        cells = [
            self.cell(short_id(row.name), 12, colour), self.cell(row.sizes[0], 10, colour, right=True),
            self.cell(row.sizes[1], 12, colour, right=True), self.cell(chip, 5, ""),
        ]  # fmt: skip
        return "".join(_GAP + cell for cell in cells[: self.columns])


def cut(text: str, length: int) -> str:
    """The first characters of a text that is as long or longer, and an ellipsis; 0: all of it."""
    return text[: length - 1] + "…" if 0 < length <= len(text) else text


def render(images: Sequence[dict[str, Any]], *, all: bool, columns: int, is_terminal: bool) -> str:
    """The whole output. columns: of the terminal, 0 = none; all: untagged images too."""
    trees = [_Tree(image) for image in sorted(images, key=lambda one: -(one.get("Created") or 0)) if all or not is_dangling(image)]
    screen = max(columns or 80, 20)
    widest = max([5, *(len(name.encode()) for tree in trees for name in tree.names), *_widths(trees)])
    left, shown = screen, 0
    for size in (12, 10, 12, 5):
        if left - size - len(_GAP) < _NAME_MIN:
            break
        left -= size + len(_GAP)
        shown += 1
    first = min(left, widest)
    paint = _Painter(is_terminal=is_terminal, chips=any(row.used for tree in trees for _, row in tree.children), columns=shown)
    legend = f"{_INFO if is_terminal else ' Info -> '} {_CHIP if is_terminal else 'U'} In Use "
    lines = [paint.painted(_WARNING, _YELLOW), " " * (screen - width(_ESCAPE.sub("", legend))) + legend, ""]
    titles = (("ID", 12, False), ("DISK USAGE", 10, True), ("CONTENT SIZE", 12, True), ("EXTRA", 5, False))
    heads = [paint.cell("IMAGE", first, _TITLE, always=True)]
    heads += [paint.cell(title, size, _TITLE, right=right, always=True) for title, size, right in titles[:shown]]
    lines.append(_GAP.join(heads))
    spaced = any(tree.children for tree in trees)
    for tree in trees:
        *above, last = tree.names or ["<untagged>"]
        lines += [paint.painted(cut(name, columns), _NAME) for name in above]
        lines.append(paint.cell(last, first, _NAME if tree.names else _UNTAGGED) + paint.values(tree.row))
        for number, (platform, row) in enumerate(tree.children, 1):
            branch = "└─ " if number == len(tree.children) else "├─ "
            lines.append(paint.cell(branch + platform, first, _VALUE + "\x1b[2m" * row.faint) + paint.values(row))
        if spaced:
            lines.append("")
    return "\n".join(lines) + "\n"


def _widths(trees: Sequence[_Tree]) -> list[int]:
    """Of platforms, as Go's len counts them with their branch: bytes."""
    return [len(platform) + len("└─ ".encode()) for tree in trees for platform, _ in tree.children]
