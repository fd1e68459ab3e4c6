"""sampan network rm."""

from __future__ import annotations

import sys

from sampan.cli.flags import Command, Flag, Parsed
from sampan.cli.http import ApiError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.main import Context

SPEC = Command(
    "NETWORK [NETWORK...]",
    "Remove one or more networks",
    min_args=1,
    aliases=("network rm", "network remove"),
    complete="networks",
    flags=(Flag("force", "f", "bool", False, "Do not error if the network does not exist"),),
)


def run(ctx: Context, args: Parsed) -> int:
    """Remove networks, and print the name of each that is gone; as docker's client does, errors come at once and `exit status 1` last."""
    failed = False
    for name in args.args:
        try:
            ctx.client.request("DELETE", f"/networks/{ctx.path(name)}")
            ctx.print(name)
        except ApiError as error:
            if not (args.bool("force") and error.status == 404):
                failed = True
                sys.stderr.write(f"{error.message}\n")
    if failed:
        ctx.error("exit status 1")
    return int(failed)
