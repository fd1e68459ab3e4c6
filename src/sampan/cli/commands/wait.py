"""sampan wait."""

from __future__ import annotations

from sampan.cli.flags import Command, Parsed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.main import Context

SPEC = Command(
    "CONTAINER [CONTAINER...]",
    "Block until one or more containers stop, then print their exit codes",
    min_args=1,
    complete="containers:running",
    aliases=("container wait", "wait"),
)


def run(ctx: Context, args: Parsed) -> int:
    """Wait for every container named, one after the other, and print its exit code."""

    def wait(name: str) -> None:
        ctx.print(str(ctx.client.request("POST", f"/containers/{ctx.path(name)}/wait").json()["StatusCode"]))

    return ctx.each(args.args, wait, echo=False)
