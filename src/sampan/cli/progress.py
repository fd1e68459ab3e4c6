"""The daemon's streams of JSON progress objects (pull, import, ...): status lines, and on a terminal one line per layer that is redrawn."""

from __future__ import annotations

from sampan.cli import fastjson
from sampan.cli.http import CliError
from sampan.units import human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, TextIO


def display(lines: Iterable[bytes], out: TextIO, *, width: int = 0, aux: Callable[[Any], object] | None = None) -> None:
    """Show the stream. width: the terminal's columns,
    0 for none (progress is then left out). Raises CliError for an error in the stream."""
    rows: dict[str, int] = {}
    for raw in lines:
        message = parsed(raw)
        if "aux" in message and aux is not None:
            aux(message["aux"])
            continue
        if (error := error_of(message)) is not None:
            raise error
        name = message.get("id") or ""
        bar = _bar(message, width)
        if not width:
            if not bar and not message.get("progressDetail") and not message.get("progress"):
                out.write(_text(message, name) + ("" if "stream" in message else "\n"))
        elif name and (bar or message.get("progressDetail") is not None):
            _redraw(out, rows, name, _text(message, name) + bar)
        elif message.get("progressDetail") is not None and "stream" not in message:
            rows.clear()
            out.write(f"\x1b[2K\r{_text(message, name)}{bar or ' '}\r")
        else:
            rows.clear()
            out.write(_text(message, name) + ("" if "stream" in message else "\n"))
        out.flush()


def parsed(raw: bytes) -> dict[str, Any]:
    """A message of the stream. Raises CliError."""
    try:
        message = fastjson.loads(raw)
    except ValueError:
        message = None
    if not isinstance(message, dict):
        raise CliError(f"unexpected answer in the stream: {raw[:200].decode('utf-8', 'replace')}")
    return message


def error_of(message: dict[str, Any]) -> CliError | None:
    """The error that a message is, if it is one."""
    detail = message.get("errorDetail")
    if not detail and not message.get("error"):
        return None
    detail = detail if isinstance(detail, dict) else {}
    code = detail.get("code")
    return CliError(str(detail.get("message") or message.get("error")), code if isinstance(code, int) and 0 < code < 256 else 1)


def _text(message: dict[str, Any], name: str) -> str:
    if "stream" in message:
        return str(message["stream"])
    return f"{name}: {message.get('status', '')}" if name else str(message.get("status", ""))


def _redraw(out: TextIO, rows: dict[str, int], name: str, text: str) -> None:
    """Write a layer's line in its own place; a new layer gets the next line."""
    if name not in rows:
        rows[name] = len(rows)
        out.write(text + "\n")
        return
    up = len(rows) - rows[name]
    out.write(f"\x1b[{up}A\x1b[2K\r{text}\r\x1b[{up}B")


def _bar(message: dict[str, Any], width: int) -> str:
    detail = message.get("progressDetail") or {}
    return bar(detail.get("current") or 0, detail.get("total") or 0, width)


def bar(current: int, total: int, width: int) -> str:
    """What follows the name of something under way: how many bytes of how many (0: nobody knows)."""
    if current <= 0 and total <= 0:
        return ""
    if total <= 0:
        return f" {human_size(current):>8}"
    part = min(50, int(current / total * 100) // 2)
    cells = f"[{'=' * part}>{' ' * (50 - part)}] " if width > 110 else ""
    return f" {cells}{human_size(current):>8}/{human_size(total)}"
