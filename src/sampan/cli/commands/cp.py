"""sampan cp: its options are known, the command itself is not built yet."""

from __future__ import annotations

from sampan.cli.flags import Command, Flag, Parsed
from sampan.cli.http import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.main import Context

SPEC = Command(
    "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n\tsampan cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
    "Copy files/folders between a container and the local filesystem",
    min_args=2,
    max_args=2,
    aliases=("container cp", "cp"),
    flags=(
        Flag("archive", "a", "bool", False, "Archive mode (copy all uid/gid information)"),
        Flag("follow-link", "L", "bool", False, "Always follow symbol link in SRC_PATH"),
        Flag(
            "quiet",
            "q",
            "bool",
            False,
            "Suppress progress output during copy. Progress output is automatically suppressed if no terminal is attached",
        ),
    ),
)


def run(ctx: Context, args: Parsed) -> int:
    """Say that there is no cp yet."""
    raise CliError("sampan cp is not implemented yet; until then, pipe tar through `sampan exec -i`")
