"""`sampan build --progress`: how a build is told of. The drawing itself is buildscreen's."""

from __future__ import annotations

import os

from sampan.cli import fastjson
from sampan.cli.http import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from queue import Queue
    from typing import Any, TextIO

    from sampan.cli.buildscreen import Screen

MODES = ("auto", "plain", "tty", "rawjson", "quiet")
_EVERY_S = 0.1
"""Between two drawings."""
_WAITING_MAX = 256
_SIZE = (80, 24)
"""Of a terminal that does not tell."""


def mode_of(given: str, out: TextIO, *, quiet: bool = False) -> str:
    """plain, tty, rawjson or quiet; `auto` may be said otherwise by the environment, as buildx has it. quiet: `-q`. Raises CliError."""
    if quiet:
        if given not in ("auto", "quiet"):
            raise CliError(f"progress={given} and quiet cannot be used together")
        return "quiet"
    mode = (os.environ.get("BUILDKIT_PROGRESS") if given == "auto" else given) or "auto"
    if mode not in MODES:
        raise CliError(f"invalid progress mode {mode}")
    if mode == "auto":
        return "tty" if out.isatty() and os.environ.get("TERM") != "dumb" else "plain"
    if mode == "tty" and not out.isatty():
        raise CliError("failed to get console: provided file is not a console")
    return mode


def show(mode: str, lines: Iterator[bytes], out: TextIO, aux: Callable[[Any], object], *, width: int) -> None:
    """Tell of the engine's messages. aux: takes what is not for the user. width: of a terminal, or 0. Raises CliError for an error."""
    if mode == "tty":
        draw(lines, out, aux)
    elif mode == "rawjson":
        copy(lines, out, aux)
    else:
        from sampan.cli.progress import display

        display(lines, out, width=width, aux=aux)


def copy(lines: Iterator[bytes], out: TextIO, aux: Callable[[Any], object]) -> None:
    """Show the engine's own messages, one a line. Raises CliError for an error among them."""
    from sampan.cli.progress import error_of, parsed

    for raw in lines:
        message = parsed(raw)
        out.write(fastjson.dumps(message) + "\n")
        out.flush()
        if "aux" in message:
            aux(message["aux"])
        if (error := error_of(message)) is not None:
            raise error


def draw(lines: Iterator[bytes], out: TextIO, aux: Callable[[Any], object]) -> None:
    """Draw steps as they run. An engine that does not tell of steps is shown as ever. Raises CliError for an error in the stream."""
    from itertools import chain
    from time import monotonic

    from sampan.cli.buildscreen import Screen
    from sampan.cli.progress import display, parsed

    first = next(lines, None)
    if first is None:
        return
    if "plan" not in parsed(first):
        display(chain([first], lines), out, width=_size(out)[0], aux=aux)
        return
    screen = Screen(monotonic(), color="NO_COLOR" not in os.environ)
    painter = _Painter(out)
    try:
        for message in _timely(chain([first], lines)):
            now = monotonic()
            if message is None:
                columns, rows = _size(out)
                painter.paint(screen.lines(now, columns, rows), columns, rows)
            else:
                _take(screen, message, now, aux)
    finally:
        screen.close(monotonic())
        columns, rows = _size(out)
        painter.paint(screen.lines(monotonic(), columns), columns, rows)
        out.write("".join(_below(screen)))
        out.flush()


def _take(screen: Screen, message: dict[str, Any], now: float, aux: Callable[[Any], object]) -> None:
    from sampan.cli.progress import error_of

    if "aux" in message:
        aux(message["aux"])
    elif (error := error_of(message)) is not None:
        raise error
    else:
        screen.event(message, now)


def _below(screen: Screen) -> Iterator[str]:
    """What is told below the drawing: what the engine said besides, and the output of the steps that failed."""
    from sampan.cli.buildscreen import harmless

    for note in screen.notes:
        yield "".join(f"{harmless(line)}\n" for line in note.splitlines())
    for label, output in screen.failed:
        yield "\n".join(("------", f" > {label}:", *output, "------", ""))


def _timely(lines: Iterator[bytes]) -> Iterator[dict[str, Any] | None]:
    """The messages as they come, and None whenever it is time to draw. Raises what reading raises."""
    import queue
    from threading import Thread
    from time import monotonic

    waiting: Queue[dict[str, Any] | BaseException | None] = queue.Queue(_WAITING_MAX)
    Thread(target=_read, args=(lines, waiting), daemon=True).start()
    due = monotonic()
    while True:
        left = due - monotonic()
        if left <= 0:
            yield None
            due = monotonic() + _EVERY_S
            continue
        try:
            message = waiting.get(timeout=left)
        except queue.Empty:
            continue
        if message is None:
            return
        if isinstance(message, BaseException):
            raise message
        yield message


def _read(lines: Iterator[bytes], waiting: Queue[dict[str, Any] | BaseException | None]) -> None:
    """In a thread of its own: a terminal is drawn on while nothing comes."""
    from sampan.cli.progress import parsed

    try:
        for raw in lines:
            waiting.put(parsed(raw))
    except BaseException as error:  # told where the messages are read
        waiting.put(error)
    else:
        waiting.put(None)


def _size(out: TextIO) -> tuple[int, int]:
    try:
        columns, rows = os.get_terminal_size(out.fileno())
    except OSError:
        return _SIZE
    return columns or _SIZE[0], rows or _SIZE[1]


class _Painter:
    """Draws in the place of what it drew before."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._widths: list[int] = []

    def paint(self, lines: Sequence[str], columns: int, rows: int) -> None:
        """Draw; the cursor is left below. The lines drawn before have been broken by the terminal, if it is narrower now."""
        from sampan.cli.buildscreen import width_of

        up = min(sum(max(1, -(-width // columns)) for width in self._widths), rows - 1)
        back = f"\x1b[{up}A" if up else ""
        # no line goes on in the next one, even where the terminal has other notions of a character's width
        self._out.write(f"\x1b[?7l{back}\r" + "".join(f"\x1b[2K{line}\n" for line in lines) + "\x1b[J\x1b[?7h")
        self._out.flush()
        self._widths = [width_of(line) for line in lines]
