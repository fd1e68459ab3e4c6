"""sampan stop."""

from __future__ import annotations

from sampan.cli.flags import Command, Flag, Parsed
from sampan.cli.http import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.main import Context

FLAGS = (
    Flag("signal", "s", "string", "", "Signal to send to the container", complete="signals"),
    Flag("timeout", "t", "int", 0, "Seconds to wait before killing the container"),
    Flag(
        "time",
        "",
        "int",
        0,
        "Seconds to wait before killing the container (deprecated: use --timeout)",
        hidden=True,
        deprecated="use --timeout instead",
    ),
)
"""Of `stop` and `restart`."""
SPEC = Command(
    "[OPTIONS] CONTAINER [CONTAINER...]",
    "Stop one or more running containers",
    min_args=1,
    complete="containers:running",
    aliases=("container stop", "stop"),
    flags=FLAGS,
)


def query(args: Parsed) -> dict[str, str | int | None]:
    """What the flags ask for; without a timeout the container's own (or 10 s) counts. Raises CliError."""
    if args.changed("time") and args.changed("timeout"):
        raise CliError("conflicting options: cannot specify both --timeout and --time")
    seconds = args.int("time") if args.changed("time") else args.int("timeout") if args.changed("timeout") else None
    return {"signal": args.str("signal") or None, "t": seconds}


def run(ctx: Context, args: Parsed) -> int:
    """Stop every container named."""
    wanted = query(args)
    return ctx.each_at_once(args.args, lambda name: ctx.client.begin("POST", f"/containers/{ctx.path(name)}/stop", wanted))
