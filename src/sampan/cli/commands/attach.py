"""sampan attach."""

from __future__ import annotations

from sampan.cli.flags import Command, Flag, Parsed
from sampan.cli.http import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.main import Context

SPEC = Command(
    "[OPTIONS] CONTAINER",
    "Attach local standard input, output, and error streams to a running container",
    min_args=1,
    max_args=1,
    complete="containers:running",
    aliases=("container attach", "attach"),
    flags=(
        Flag("detach-keys", "", "string", "", "Override the key sequence for detaching a container"),
        Flag("no-stdin", "", "bool", False, "Do not attach STDIN"),
        Flag("sig-proxy", "", "bool", True, "Proxy all received signals to the process"),
    ),
)


def _inspect(ctx: Context, name: str) -> dict[str, Any]:
    container: dict[str, Any] = ctx.client.request("GET", f"/containers/{ctx.path(name)}/json").json()
    state = container["State"]
    if not state["Running"]:
        raise CliError("You cannot attach to a stopped container, start it first")
    if state["Paused"]:
        raise CliError("You cannot attach to a paused container, unpause it first")
    if state["Restarting"]:
        raise CliError("You cannot attach to a restarting container, wait until it is running")
    return container


def run(ctx: Context, args: Parsed) -> int:
    """Attach to a running container until it ends or the detach keys are typed. The exit code is the container's."""
    import os

    from sampan.cli.stream import Session, check_tty, detach_keys

    name = args.args[0]
    waiting = ctx.client.request("POST", f"/containers/{ctx.path(name)}/wait")
    config = _inspect(ctx, name)["Config"]
    tty, stdin = config["Tty"], not args.bool("no-stdin")
    check_tty(stdin, tty)
    keys = detach_keys(ctx, args.str("detach-keys"))
    stdin = stdin and config["OpenStdin"]
    query = {"stream": True, "stdin": stdin or None, "stdout": True, "stderr": True, "detachKeys": keys or None}
    stream = ctx.client.hijack(f"/containers/{ctx.path(name)}/attach", query)
    _inspect(ctx, name)  # it may have ended meanwhile: an attach to it would never end
    resize = f"/containers/{ctx.path(name)}/resize" if tty and os.isatty(1) else ""
    session = Session(
        ctx.client,
        stream,
        stdin=stdin,
        stdout=True,
        stderr=True,
        tty=tty,
        detach_keys=keys,
        signals_to=ctx.path(name) if args.bool("sig-proxy") and not tty else "",
        resize=resize,
    )
    session.begin()
    session.watch_size(redraw=True)
    session.run()
    if session.detached:
        raise CliError("read escape sequence")
    answer = waiting.json()
    if answer.get("Error"):
        raise CliError(answer["Error"].get("Message", ""))
    code: int = answer["StatusCode"]
    return code
