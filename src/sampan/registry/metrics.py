"""Counters for Prometheus, in its text format (prometheus.io, "Exposition formats", version 0.0.4)."""

from bisect import bisect_left
from collections.abc import Callable

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 300.0)
"""Seconds."""
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """All of one registry. Labels come from our own tables, never from requests, so their number is bounded."""

    def __init__(self) -> None:
        self._counters: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
        self._help: dict[str, tuple[str, str]] = {}
        self._asked: dict[str, Callable[[], float]] = {}
        self._durations: dict[str, tuple[list[int], float]] = {}

    def add(self, name: str, amount: float = 1, /, **labels: str) -> None:
        """Count."""
        values = self._counters.setdefault(name, {})
        key = tuple(labels.items())
        values[key] = values.get(key, 0) + amount

    def describe(self, name: str, text: str) -> None:
        """What a counter is; it begins at 0."""
        self._help[name] = ("counter", text)

    def counter(self, name: str, text: str, value: Callable[[], float]) -> None:
        """A value that only grows, counted elsewhere, and asked for when somebody looks."""
        self._help[name] = ("counter", text)
        self._asked[name] = value

    def gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        """A value that is asked for when somebody looks."""
        self._help[name] = ("gauge", text)
        self._asked[name] = value

    def took(self, route: str, seconds: float) -> None:
        """A request's duration."""
        counts, total = self._durations.get(route) or ([0] * (len(BUCKETS) + 1), 0.0)
        counts[bisect_left(BUCKETS, seconds)] += 1
        self._durations[route] = (counts, total + seconds)

    def text(self) -> str:
        """Everything."""
        lines = []
        for name, (kind, meaning) in self._help.items():
            lines += [f"# HELP {name} {meaning}", f"# TYPE {name} {kind}"]
            if name in self._asked:
                lines.append(f"{name} {_number(self._asked[name]())}")
            for labels, value in sorted(self._counters.get(name, {}).items()):
                shown = ",".join(f'{label}="{text}"' for label, text in labels)
                lines.append(f"{name}{{{shown}}} {_number(value)}" if shown else f"{name} {_number(value)}")
        name = "sampan_registry_request_seconds"
        lines += [f"# HELP {name} How long requests took, bodies included.", f"# TYPE {name} histogram"]
        for route, (counts, total) in sorted(self._durations.items()):
            so_far = 0
            for limit, count in zip((*map(str, BUCKETS), "+Inf"), counts, strict=True):
                so_far += count
                lines.append(f'{name}_bucket{{route="{route}",le="{limit}"}} {so_far}')
            lines += [f'{name}_sum{{route="{route}"}} {total:.6f}', f'{name}_count{{route="{route}"}} {so_far}']
        return "\n".join(lines) + "\n"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:.6f}"
