"""The fields of `sampan search` (docker/cli command/registry/formatter_search.go). Methods have the fields' names."""

from __future__ import annotations

from sampan.cli.format.table import ellipsis
from sampan.cli.format.values import Methods
from sampan.errors import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HEADER = {
    "Name": "NAME",
    "Description": "DESCRIPTION",
    "StarCount": "STARS",
    "IsOfficial": "OFFICIAL",
}


class Found(Methods):
    """One row."""

    go_type = "*registry.searchContext"
    METHODS = tuple(HEADER)

    def __init__(self, item: dict[str, Any], *, trunc: bool, terminal: bool) -> None:
        """terminal: the text is for people, whoever wrote it."""
        self.item = item
        self.trunc = trunc
        self.terminal = terminal

    def Name(self) -> str:
        return self._shown(self.item.get("name") or "")

    def Description(self) -> str:
        text = self._shown((self.item.get("description") or "").replace("\n", " ").replace("\r", " "))
        return ellipsis(text, 45) if self.trunc else text

    def _shown(self, text: str) -> str:
        return printable(text) if self.terminal else text

    def StarCount(self) -> str:
        return str(self.item.get("star_count") or 0)

    def IsOfficial(self) -> str:
        return "[OK]" if self.item.get("is_official") else ""

    def as_json(self) -> dict[str, Any]:
        """See Methods; what a table marks is true or false there."""
        return super().as_json() | {"IsOfficial": "true" if self.item.get("is_official") else "false"}
