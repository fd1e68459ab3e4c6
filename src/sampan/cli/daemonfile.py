"""daemon.json of the engine on this machine: where it is, what it says, how it is changed without harm, and who must read it again."""

from __future__ import annotations

import os

from sampan.cli.http import CliError
from sampan.cli.replacing import replace_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.main import Context

DEFAULT_PATH = "/etc/sampan/daemon.json"


class Daemon:
    """The engine that the client talks to. pid: 0 where sampand does not run; flags: its command line; path: its daemon.json."""

    def __init__(self, pid: int, flags: list[str], path: str) -> None:
        self.pid, self.flags, self.path = pid, flags, path

    def has_flag(self, name: str) -> bool:
        """Whether sampand was started with --NAME."""
        return any(flag == f"--{name}" or flag.startswith(f"--{name}=") for flag in self.flags)

    def reload(self) -> None:
        """Have sampand read the file again (SIGHUP). Raises CliError."""
        import signal

        try:
            os.kill(self.pid, signal.SIGHUP)
        except OSError as error:
            raise CliError(f"{self.path} is changed, but sampand (PID {self.pid}) cannot be told: {_words(error)}") from None


def find(ctx: Context, path: str) -> Daemon:
    """The engine of -H or DOCKER_HOST, by the pid file beside its socket. path: its daemon.json, "" to find out. Raises CliError."""
    host = ctx.client.host
    if not host.path:
        raise CliError(f"mirrors are those of the engine on this machine, and {host.text} may be on another: run it there")
    pid = _running(os.path.join(os.path.dirname(host.path), "sampand.pid"))
    flags: list[str] = []
    if pid:
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                flags = [os.fsdecode(word) for word in file.read().split(b"\0")]
        except OSError:
            pid = 0  # it has just ended
    return Daemon(pid, flags, path or _config_file(flags, pid) or DEFAULT_PATH)


def _running(path: str) -> int:
    """The process of a pid file, as long as the lock beside it is held; 0: none."""
    import fcntl

    try:
        with open(path, "rb") as file:
            text = file.read(32).decode("ascii", "replace").strip()
    except OSError:
        return 0
    pid = int(text) if text.isdecimal() else 0
    try:
        fd = os.open(f"{path}.lock", os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError:  # root's alone: the process itself has to do
        return pid if os.path.exists(f"/proc/{pid}") else 0
    except OSError:
        return 0
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return 0
    except BlockingIOError:
        return pid
    finally:
        os.close(fd)


def _config_file(flags: list[str], pid: int) -> str:
    for at, flag in enumerate(flags):
        if flag.startswith("--config-file="):
            path = flag.partition("=")[2]
        elif flag == "--config-file" and at + 1 < len(flags):
            path = flags[at + 1]
        else:
            continue
        return path if path.startswith("/") else os.path.join(os.path.realpath(f"/proc/{pid}/cwd"), path)
    return ""


def read(path: str) -> tuple[dict[str, Any], str]:
    """The keys of a daemon.json in their order, and its text; nothing if there is no such file. Raises CliError with line and column."""
    import json

    try:
        with open(path, "rb") as file:
            text = file.read().decode("utf-8-sig")
        document = json.loads(text) if text.strip() else {}
    except FileNotFoundError:
        return {}, ""
    except OSError as error:
        raise CliError(f"cannot read {path}: {_words(error)}") from None
    except UnicodeDecodeError as error:
        raise CliError(f"{path} is left as it is: invalid UTF-8 at offset {error.start}") from None
    except json.JSONDecodeError as error:
        raise CliError(f"{path} is left as it is: invalid JSON: {error.msg} (line {error.lineno}, column {error.colno})") from None
    if not isinstance(document, dict):
        raise CliError(f"{path} is left as it is: invalid JSON: not an object (line 1)")
    return document, text


def write(path: str, document: dict[str, Any], former: str) -> None:
    """Put a document in place of the file, whole or not at all; indented as `former` is, with the file's owner and mode.

    Raises CliError.
    """
    import json

    try:
        os.makedirs(os.path.dirname(os.path.realpath(path)), 0o755, exist_ok=True)
        replace_text(path, json.dumps(document, indent=_indent(former), ensure_ascii=False) + "\n", 0o644)
    except OSError as error:
        raise CliError(f"cannot write {path}: {_words(error)}") from None


def _indent(text: str) -> str:
    """What the first key of a file stands behind; two blanks if that says nothing."""
    for line in text.splitlines():
        blanks = line[: len(line) - len(line.lstrip())]
        if blanks and line.strip():
            return blanks
    return "  "


def _words(error: OSError) -> str:
    """`permission denied (run it as root)`"""
    words = (error.strerror or str(error)).lower()
    return words + (" (run it as root)" if isinstance(error, PermissionError) and os.geteuid() else "")
