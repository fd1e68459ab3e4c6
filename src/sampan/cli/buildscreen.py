"""What a terminal shows of a build whose steps run side by side, after buildx: the engine's messages go in, lines come out. Pure.

Messages are lines of `POST /build?steps=1` (engine/buildtelling.py). What they hold is somebody else's: no control character of theirs
reaches the terminal, and of endless output the last lines are kept.
"""

from __future__ import annotations

import re
from collections import deque
from itertools import islice

from sampan.units import human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

OUTPUT_SHOWN = 6
"""Lines of a running step's output."""
_KEPT = 1 << 20
"""Characters of output that are kept for when the step fails."""
_LINE_MAX = 1 << 16
"""Characters of one line that are."""
_TEXT_MAX = 4096
"""Characters of anything else, and of a line that is drawn."""
_NOTES_MAX = 1000
_LAYERS_MAX = 256
_LABEL_MIN = 12
"""Columns of a step's label; the time is left out where there are not so many."""
_BLUE, _RED, _DIM, _PLAIN = "\x1b[34m", "\x1b[31m", "\x1b[2m", "\x1b[0m"
_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_SURROGATE = re.compile("[\ud800-\udfff]")


def harmless(text: str) -> str:
    """A line without what would do something to a terminal; of one that was written over (CR), what is seen at last."""
    text = _SEQUENCE.sub("", _seen(text).replace("\t", "    "))
    return _SURROGATE.sub("\ufffd", _CONTROL.sub("", text))


def _seen(text: str) -> str:
    return text.rstrip("\r").rpartition("\r")[2]


def width_of(text: str) -> int:
    """Columns that it takes; colors take none."""
    text = _SEQUENCE.sub("", text)
    if text.isascii():
        return len(text)
    return sum(map(_columns, text))


def _columns(char: str) -> int:
    from unicodedata import category, east_asian_width

    return 0 if category(char) in ("Mn", "Me", "Cf") else 2 if east_asian_width(char) in "WF" else 1


def cut(text: str, columns: int) -> str:
    """As much of it as fits."""
    if text.isascii():
        return text[:columns]
    taken = 0
    for place, char in enumerate(text):
        taken += _columns(char)
        if taken > columns:
            return text[:place]
    return text


class Step:
    """One step."""

    def __init__(self, label: str, started: float) -> None:
        """label: its place and text. started: of a clock that only goes on, seconds."""
        self.label = label
        self.started = started
        self.ended: float | None = None
        self.state = "started"
        self.output: deque[str] = deque()
        self.left_out = 0
        """Lines of output that came before those."""
        self._size = 0
        self._partial = ""
        self._layers: dict[str, str] = {}

    def write(self, text: str) -> None:
        """More of what it writes."""
        *lines, rest = (self._partial + text).split("\n")
        for line in lines:
            self._keep(_shortened(line))
        self._partial = _shortened(rest)

    def _keep(self, line: str) -> None:
        self.output.append(line)
        self._size += len(line) + 1
        while self._size > _KEPT:
            self._size -= len(self.output.popleft()) + 1
            self.left_out += 1

    def status(self, message: dict[str, Any]) -> None:
        """A line of docker's progress: a base that is pulled, a file that is fetched."""
        name = str(message.get("id") or "")[:_TEXT_MAX]
        if name not in self._layers and len(self._layers) >= _LAYERS_MAX:
            return
        self._layers.pop(name, None)  # the latest comes last
        status = str(message.get("status", ""))[:_TEXT_MAX] + _bar(message.get("progressDetail"))
        self._layers[name] = f"{name}: {status}" if name else status

    def end(self, state: str, now: float) -> None:
        """It is over."""
        self.state, self.ended = state, now
        if self._partial:
            self._keep(self._partial)
        self._partial = ""
        self._layers.clear()
        if state != "failed":
            self.output.clear()

    def shown(self, count: int) -> list[str]:
        """The last lines of what it writes; none once it is over."""
        if self.ended is not None or count <= 0:
            return []
        latest = [*islice(reversed(self.output), count)][::-1]
        lines = [*latest, *([self._partial] if self._partial else [])] or list(self._layers.values())
        return [harmless(_seen(line)[:_TEXT_MAX]) for line in lines[-count:]]


def _shortened(line: str) -> str:
    """The end of a line that is too long to be kept."""
    return line if len(line) <= _LINE_MAX else f"…{line[1 - _LINE_MAX :]}"


def _bar(detail: object) -> str:
    if not isinstance(detail, dict):
        return ""
    current, total = detail.get("current"), detail.get("total")
    if not isinstance(current, int) or current <= 0:
        return ""
    return f" {human_size(current)}" + (f" / {human_size(total)}" if isinstance(total, int) and total > 0 else "")


class Screen:
    """All of a build."""

    def __init__(self, started: float, *, color: bool) -> None:
        """started: when, seconds of a clock that only goes on."""
        self._started = started
        self._color = color
        self._steps: dict[int, Step] = {}
        self._total = 0
        self.notes: deque[str] = deque(maxlen=_NOTES_MAX)
        """What is to be told below the steps, at the end."""

    def event(self, message: dict[str, Any], now: float) -> None:
        """Take a message in."""
        if isinstance(message.get("plan"), dict):
            self._total = int(message["plan"].get("steps") or 0)
            return
        step = message.get("step")
        if not isinstance(step, dict):
            if isinstance(message.get("stream"), str):
                self.notes.append(message["stream"])
            return
        number, state = step.get("id"), step.get("state")
        if not isinstance(number, int):
            return
        if state == "started":
            self._steps[number] = Step(_label(step), now)
            return
        known = self._steps.get(number)
        if known is None:
            return
        if state is not None:
            known.end(str(state), now)
        elif isinstance(step.get("output"), str):
            known.write(step["output"])
        elif isinstance(message.get("status"), str):
            known.status(message)
        elif "[Warning]" in str(message.get("stream", "")):
            self.notes.append(f"{known.label}: {message['stream'].strip().removeprefix('---> ')}\n")

    def close(self, now: float) -> None:
        """The build is over: what still ran no longer does."""
        for step in self._steps.values():
            if step.ended is None:
                step.end("canceled", now)

    @property
    def failed(self) -> list[tuple[str, list[str]]]:
        """The steps that failed, and what they wrote, as far as it was kept."""
        return [(step.label, list(_whole(step))) for step in self._steps.values() if step.state == "failed"]

    # drawing

    def lines(self, now: float, columns: int, rows: int = 0) -> list[str]:
        """The drawing, of fewer lines than the terminal's; rows 0: all there is, as is left at the end."""
        steps = list(self._steps.values())
        over = all(step.ended is not None for step in steps)
        done = sum(step.state in ("done", "cached") for step in steps)
        head = f"[+] Building {_seconds(now - self._started)} ({done}/{max(self._total, len(steps))})"
        if over and not rows:
            head += " FINISHED" if done == len(steps) else " ERROR"
        room = max(rows - 2, 0) if rows else len(steps)
        running = [step for step in steps if step.ended is None]
        chosen = {*_last(running, room)}
        chosen |= {*_last([step for step in steps if step.ended is not None], room - len(chosen))}
        each = min(OUTPUT_SHOWN, (room - len(chosen)) // len(running)) if running and rows else 0
        drawn = [self._painted(cut(head, columns - 1), _BLUE if over else "")]
        for step in steps:
            if step in chosen:
                drawn += self._of(step, now, columns, each)
        return drawn[: rows - 1] if rows else drawn

    def _of(self, step: Step, now: float, columns: int, output: int) -> Iterator[str]:
        mark = {"cached": "CACHED ", "failed": "ERROR ", "canceled": "CANCELED "}.get(step.state, "")
        time = _seconds((now if step.ended is None else step.ended) - step.started)
        room = columns - 1 - len(time) - 1
        color = "" if step.ended is None else _RED if step.state == "failed" else _BLUE
        if room < _LABEL_MIN:
            room, time = columns - 1, ""
        text = cut(f" => {mark}{step.label}", room)
        yield self._painted(f"{text}{' ' * (room - width_of(text))} {time}" if time else text, color)
        for line in step.shown(output):
            yield self._painted(cut(f" => => # {line}", columns - 1), _DIM)

    def _painted(self, text: str, color: str) -> str:
        return f"{color}{text}{_PLAIN}" if color and self._color else text


def _last(steps: list[Step], count: int) -> list[Step]:
    return steps[-count:] if count > 0 else []


def _whole(step: Step) -> Iterator[str]:
    if step.left_out:
        yield f"[{step.left_out} lines before these are left out]"
    yield from map(harmless, step.output)


def _label(step: dict[str, Any]) -> str:
    of = str(step.get("of", ""))
    place = f"{step.get('place', '')!s:>{len(of)}}/{of}"
    stage = f"{str(step['stage'])[:_TEXT_MAX]} " if step.get("stage") else ""
    return harmless(f"[{stage}{place}] {' '.join(str(step.get('text', ''))[:_TEXT_MAX].split())}")


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f}s"
