"""sampan logs."""

from __future__ import annotations

from sampan.cli.flags import Command, Flag, Parsed
from sampan.cli.http import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.main import Context

_WHEN = 'timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)'

SPEC = Command(
    "[OPTIONS] CONTAINER",
    "Fetch the logs of a container",
    min_args=1,
    max_args=1,
    complete="containers:all",
    aliases=("container logs", "logs"),
    flags=(
        Flag("details", "", "bool", False, "Show extra details provided to logs"),
        Flag("follow", "f", "bool", False, "Follow log output"),
        Flag("since", "", "string", "", f"Show logs since {_WHEN}"),
        Flag("tail", "n", "string", "all", "Number of lines to show from the end of the logs"),
        Flag("timestamps", "t", "bool", False, "Show timestamps"),
        Flag("until", "", "string", "", f"Show logs before a {_WHEN}", api="1.35"),
    ),
)


def run(ctx: Context, args: Parsed) -> int:
    """Print a container's logs, stdout and stderr each where it belongs."""
    from sampan.cli.stream import Demux, write_all

    container = ctx.client.request("GET", f"/containers/{ctx.path(args.args[0])}/json").json()
    query: dict[str, str | bool | None] = {
        "stdout": True,
        "stderr": True,
        "timestamps": args.bool("timestamps") or None,
        "details": args.bool("details") or None,
        "follow": args.bool("follow") or None,
        "tail": args.str("tail"),
    }
    for name in ("since", "until"):
        if args.str(name):
            from sampan.cli.timestamps import to_unix

            try:
                query[name] = to_unix(args.str(name))
            except ValueError as error:
                raise CliError(f'invalid value for "{name}": {error}') from None
    response = ctx.client.request("GET", f"/containers/{container['Id']}/logs", query)
    if container["Config"]["Tty"]:
        for data in response.stream():
            write_all(1, [data])
    else:
        demux = Demux()
        for data in response.stream():
            demux.feed(data)
    return 0
