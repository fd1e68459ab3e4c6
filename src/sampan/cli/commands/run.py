"""sampan run: create, attach, wait, start, in this order, so that no byte of output and no exit is missed."""

from __future__ import annotations

from sampan.cli.createflags import RUN_FLAGS
from sampan.cli.flags import Command, Parsed
from sampan.cli.http import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.main import Context
    from sampan.cli.stream import ExitWaiter, Session

SPEC = Command(
    "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    "Create and run a new container from an image",
    min_args=1,
    interspersed=False,
    complete="images",
    aliases=("container run", "run"),
    flags=RUN_FLAGS,
)


def run(ctx: Context, args: Parsed) -> int:
    """Run a container. The exit code is its own, unless it could not be started (125, 126, 127)."""
    from sampan.cli import creating
    from sampan.cli.stream import ExitWaiter, check_tty

    body = creating.request_body(ctx, args, "run")
    if args.bool("detach"):
        if args.list("attach"):
            raise CliError("conflicting options: cannot specify both --attach and --detach")
        body.update(AttachStdin=False, AttachStdout=False, AttachStderr=False, StdinOnce=False)
    else:
        check_tty(body["AttachStdin"], body["Tty"])
    try:
        container = creating.create_container(ctx, args, body)
    except CliError as error:
        raise creating.start_failure(error) from None
    attach = body["AttachStdin"] or body["AttachStdout"] or body["AttachStderr"]
    session = _attach(ctx, args, container, body) if attach else None
    if not attach:
        ctx.print(container)
    try:
        removed = args.bool("rm")
        waiter = ExitWaiter(ctx, container, "removed" if removed else "next-exit") if attach or removed else None
        if session is not None and waiter is not None:
            session.until = waiter.connection
        try:
            ctx.client.request("POST", f"/containers/{container}/start").read()
        except CliError as error:
            if session is not None:
                session.end()
            if removed and waiter is not None:
                waiter()
            raise creating.start_failure(error) from None
        return _follow(session, waiter)
    finally:
        if session is not None:
            session.end()


def _attach(ctx: Context, args: Parsed, container: str, body: dict[str, Any]) -> Session:
    import os

    from sampan.cli.stream import Session, detach_keys

    keys = detach_keys(ctx, args.str("detach-keys"))
    streams = {"stdin": body["AttachStdin"], "stdout": body["AttachStdout"], "stderr": body["AttachStderr"]}
    query = {"stream": True, "detachKeys": keys or None, **{name: True for name, on in streams.items() if on}}
    tty = body["Tty"]
    session = Session(
        ctx.client,
        ctx.client.hijack(f"/containers/{container}/attach", query),
        **streams,
        tty=tty,
        detach_keys=keys,
        signals_to=container if args.bool("sig-proxy") else "",
        resize=f"/containers/{container}/resize" if tty and os.isatty(1) else "",
    )
    session.begin()
    return session


def _follow(session: Session | None, waiter: ExitWaiter | None) -> int:
    """Copy the streams until they end, then the exit code."""
    if session is None or waiter is None:
        return 0
    session.watch_size()
    session.run()
    return 0 if session.detached else waiter()
