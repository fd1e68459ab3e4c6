"""sampan registry passwd: Sampan's own, a line for the registry's htpasswd file."""

from __future__ import annotations

from sampan.cli.flags import Command, Parsed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from sampan.cli.main import Context

SPEC = Command(
    "USER",
    "Print a line for the file of users; the password is read from the terminal or from stdin",
    min_args=1,
    max_args=1,
)


def run(ctx: Context, args: Parsed) -> NoReturn:
    """Never returns."""
    from sampan.cli.registry import become

    del ctx
    become("passwd", user=args.args[0])
