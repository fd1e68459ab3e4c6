"""sampan start."""

from __future__ import annotations

from sampan.cli.flags import Command, Flag, Parsed
from sampan.cli.http import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.main import Context

SPEC = Command(
    "[OPTIONS] CONTAINER [CONTAINER...]",
    "Start one or more stopped containers",
    min_args=1,
    complete="containers:stopped",
    aliases=("container start", "start"),
    flags=(
        Flag("attach", "a", "bool", False, "Attach STDOUT/STDERR and forward signals"),
        Flag("checkpoint", "", "string", "", "Restore from this checkpoint", hidden=True, api="experimental"),
        Flag("checkpoint-dir", "", "string", "", "Use a custom checkpoint storage directory", hidden=True, api="experimental"),
        Flag("detach-keys", "", "string", "", "Override the key sequence for detaching a container"),
        Flag("interactive", "i", "bool", False, "Attach container's STDIN"),
    ),
)


def run(ctx: Context, args: Parsed) -> int:
    """Start every container named, or one with its streams attached."""
    query = {"checkpoint": args.str("checkpoint") or None, "checkpoint-dir": args.str("checkpoint-dir") or None}
    if args.bool("attach") or args.bool("interactive"):
        if len(args.args) > 1:
            raise CliError("you cannot start and attach multiple containers at once")
        return _attached(ctx, args, query)
    if args.str("checkpoint"):
        if len(args.args) > 1:
            raise CliError("you cannot restore multiple containers at once")
        ctx.client.request("POST", f"/containers/{ctx.path(args.args[0])}/start", query).read()
        return 0
    failed: list[str] = []
    for name in args.args:
        try:
            ctx.client.request("POST", f"/containers/{ctx.path(name)}/start").read()
            ctx.print(name)
        except CliError as error:
            ctx.error(error.message)
            failed.append(name)
    if failed:
        raise CliError(f"Error: failed to start containers: {', '.join(failed)}")
    return 0


def _attached(ctx: Context, args: Parsed, query: dict[str, str | None]) -> int:
    import os

    from sampan.cli.stream import ExitWaiter, Session, detach_keys

    container = ctx.client.request("GET", f"/containers/{ctx.path(args.args[0])}/json").json()
    path = f"/containers/{container['Id']}"
    tty = container["Config"]["Tty"]
    keys = detach_keys(ctx, args.str("detach-keys"))
    stdin = args.bool("interactive") and container["Config"]["OpenStdin"]
    stream = ctx.client.hijack(
        f"{path}/attach", {"stream": True, "stdin": stdin or None, "stdout": True, "stderr": True, "detachKeys": keys or None}
    )
    session = Session(
        ctx.client,
        stream,
        stdin=stdin,
        stdout=True,
        stderr=True,
        tty=tty,
        detach_keys=keys,
        signals_to="" if tty else container["Id"],
        resize=f"{path}/resize" if tty and os.isatty(1) else "",
    )
    session.begin()
    try:
        removed = container["HostConfig"]["AutoRemove"]
        waiter = ExitWaiter(ctx, container["Id"], "removed" if removed else "next-exit")
        try:
            ctx.client.request("POST", f"{path}/start", query).read()
        except CliError:
            session.end()
            if removed:
                waiter()
            raise
        session.watch_size()
        session.run()
        return 0 if session.detached else waiter()
    finally:
        session.end()
