"""One line of docker's progress: a JSON object with a status, and for a layer the bar that older clients print (moby pkg/jsonmessage)."""

from collections.abc import Mapping

from sampan.units import human_size

Progress = Mapping[str, object]

_BAR = 50


def layer_line(status: str, name: str, current: int | None = None, total: int = 0) -> Progress:
    """name: the twelve digits shown before it. current, total: bytes; without current there is no bar."""
    if current is None:
        return {"status": status, "progressDetail": {}, "id": name}
    return {**bar_line(status, current, total), "id": name}


def bar_line(status: str, current: int, total: int) -> Progress:
    """What has no name. current, total: bytes."""
    done = min(_BAR, current * _BAR // total) if total else _BAR
    bar = f"[{'=' * done}>{' ' * (_BAR - done)}] {human_size(current):>8}/{human_size(total)}"
    return {"status": status, "progressDetail": {"current": current, "total": total}, "progress": bar}
