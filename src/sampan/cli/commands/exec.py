"""sampan exec."""

from __future__ import annotations

from sampan.cli.flags import Command, Flag, Parsed
from sampan.cli.http import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.main import Context

SPEC = Command(
    "[OPTIONS] CONTAINER COMMAND [ARG...]",
    "Execute a command in a running container",
    min_args=2,
    interspersed=False,
    complete="containers:running",
    aliases=("container exec", "exec"),
    flags=(
        Flag("detach", "d", "bool", False, "Detached mode: run command in the background"),
        Flag("detach-keys", "", "string", "", "Override the key sequence for detaching a container"),
        Flag("env", "e", "list:env", (), "Set environment variables", api="1.25", complete="environment"),
        Flag("env-file", "", "list", (), "Read in a file of environment variables", api="1.25", complete="files"),
        Flag("interactive", "i", "bool", False, "Keep STDIN open even if not attached"),
        Flag("privileged", "", "bool", False, "Give extended privileges to the command"),
        Flag("tty", "t", "bool", False, "Allocate a pseudo-TTY"),
        Flag("user", "u", "string", "", 'Username or UID (format: "<name|uid>[:<group|gid>]")'),
        Flag("workdir", "w", "string", "", "Working directory inside the container", api="1.35"),
    ),
)


def run(ctx: Context, args: Parsed) -> int:
    """Run a command in a container. The exit code is the command's own."""
    from sampan.cli.opts import read_key_values
    from sampan.cli.stream import check_tty, detach_keys, terminal_size

    name = ctx.path(args.args[0])
    detach, tty = args.bool("detach"), args.bool("tty")
    stdin = args.bool("interactive") and not detach
    keys = detach_keys(ctx, args.str("detach-keys"))
    try:
        environment = read_key_values(args.list("env-file"), args.list("env"), environment=True)
    except ValueError as error:
        raise CliError(str(error)) from None
    ctx.client.request("GET", f"/containers/{name}/json").read()
    if not detach:
        check_tty(stdin, tty)
    size = {"ConsoleSize": list(terminal_size())} if tty and ctx.client.at_least("1.42") else {}
    body: dict[str, Any] = {
        "User": args.str("user"),
        "Privileged": args.bool("privileged"),
        "Tty": tty,
        **size,
        "AttachStdin": stdin,
        "AttachStderr": not detach,
        "AttachStdout": not detach,
        "Detach": detach,
        "DetachKeys": keys,
        "Env": environment or None,
        "WorkingDir": args.str("workdir"),
        "Cmd": args.args[1:],
    }
    process: str = ctx.client.request("POST", f"/containers/{name}/exec", body=body).json()["Id"]
    if not process:
        raise CliError("exec ID empty")
    if detach:
        ctx.client.request("POST", f"/exec/{process}/start", body={"Detach": True, "Tty": tty, **size}).read()
        return 0
    return _interactive(ctx, process, keys, {"Detach": False, "Tty": tty, **size}, stdin)


def _interactive(ctx: Context, process: str, keys: str, body: dict[str, Any], stdin: bool) -> int:
    import os

    from sampan.cli.stream import Session

    tty = body["Tty"]
    session = Session(
        ctx.client,
        ctx.client.hijack(f"/exec/{process}/start", body=body),
        stdin=stdin,
        stdout=True,
        stderr=True,
        tty=tty,
        detach_keys=keys,
        resize=f"/exec/{process}/resize" if tty and os.isatty(0) else "",
    )
    session.begin()
    session.watch_size()
    session.run()
    if session.detached:
        raise CliError("read escape sequence")
    code: int = ctx.client.request("GET", f"/exec/{process}/json").json()["ExitCode"]
    return code
