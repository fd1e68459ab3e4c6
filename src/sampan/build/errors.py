"""What is wrong with a Dockerfile."""

from typing import TYPE_CHECKING

from sampan.errors import InvalidArgument

if TYPE_CHECKING:
    from sampan.build.instructions import Lines


class DockerfileError(InvalidArgument):
    """A Dockerfile that cannot be read; `lines` is where, for those who show it. The message is docker's."""

    def __init__(self, message: str, lines: "Lines | None" = None) -> None:
        super().__init__(message)
        self.lines = lines
