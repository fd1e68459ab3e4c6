"""The fields of `sampan context ls`. Methods have the fields' names."""

from __future__ import annotations

from sampan.cli.format.table import ellipsis
from sampan.cli.format.values import Methods

HEADER = {"Name": "NAME", "Description": "DESCRIPTION", "DockerEndpoint": "DOCKER ENDPOINT", "Error": "ERROR"}


class NamedContext(Methods):
    """One row."""

    go_type = "*formatter.clientContextContext"
    METHODS = (*HEADER, "Current")

    def __init__(self, name: str, *, current: bool, description: str = "", host: str = "", error: str = "") -> None:
        self.name = name
        self.current = current
        self.description = description
        self.host = host
        self.error = error

    def Name(self) -> str:
        return self.name

    def Description(self) -> str:
        return self.description

    def DockerEndpoint(self) -> str:
        return self.host

    def Error(self) -> str:
        return ellipsis(self.error, 45)

    def Current(self) -> bool:
        return self.current
