"""sampan top."""

from __future__ import annotations

from sampan.cli.flags import Command, Parsed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.main import Context

SPEC = Command(
    "CONTAINER [ps OPTIONS]",
    "Display the running processes of a container",
    min_args=1,
    interspersed=False,
    complete="containers:running",
    aliases=("container top", "top"),
)


def run(ctx: Context, args: Parsed) -> int:
    """Print the processes of a container as ps shows them."""
    query = {"ps_args": " ".join(args.args[1:])} if args.args[1:] else None
    answer = ctx.client.request("GET", f"/containers/{ctx.path(args.args[0])}/top", query).json()
    rows = [answer["Titles"] or [], *(answer["Processes"] or [])]
    # Go's tabwriter: cells at least 20 wide, 3 blanks after the longest, the last column as it is
    count = max(len(row) for row in rows)
    widths = [max(20, max(len(row[at]) for row in rows if len(row) > at) + 3) for at in range(count)]
    for row in rows:
        ctx.print("".join(cell if at == len(row) - 1 else cell.ljust(widths[at]) for at, cell in enumerate(row)))
    return 0
