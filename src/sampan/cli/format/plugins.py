"""The fields of `sampan plugin ls`. Methods have the fields' names."""

from __future__ import annotations

from sampan.cli.format.containers import short_id
from sampan.cli.format.table import ellipsis
from sampan.cli.format.values import Methods

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HEADER = {"ID": "ID", "Name": "NAME", "Description": "DESCRIPTION", "Enabled": "ENABLED", "PluginReference": "IMAGE"}


class Plugin(Methods):
    """One row."""

    go_type = "*plugin.pluginContext"
    METHODS = tuple(HEADER)

    def __init__(self, plugin: dict[str, Any], *, trunc: bool) -> None:
        self.p = plugin
        self.trunc = trunc

    def ID(self) -> str:
        full: str = self.p.get("Id") or ""
        return short_id(full) if self.trunc else full

    def Name(self) -> str:
        return self.p.get("Name") or ""

    def Description(self) -> str:
        text = str((self.p.get("Config") or {}).get("Description") or "").replace("\n", "").replace("\r", "")
        return ellipsis(text, 45) if self.trunc else text

    def Enabled(self) -> bool:
        return bool(self.p.get("Enabled"))

    def PluginReference(self) -> str:
        return self.p.get("PluginReference") or ""
