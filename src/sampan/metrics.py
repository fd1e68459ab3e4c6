"""What is counted and measured, for Prometheus, in its text format (prometheus.io, "Exposition formats", version 0.0.4)."""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Labels = tuple[tuple[str, str], ...]


class _Histogram:
    """Durations by the values of one label; label "" has none."""

    def __init__(self, label: str, buckets: Sequence[float]) -> None:
        self.label, self.buckets = label, buckets
        self.values: dict[str, tuple[list[int], float]] = {}

    def took(self, value: str, seconds: float) -> None:
        """One more."""
        counts, total = self.values.get(value) or ([0] * (len(self.buckets) + 1), 0.0)
        counts[bisect_left(self.buckets, seconds)] += 1
        self.values[value] = (counts, total + seconds)

    def lines(self, name: str) -> list[str]:
        """As text."""
        lines = []
        for value, (counts, total) in sorted(self.values.items()):
            own: Labels = ((self.label, value),) if self.label else ()
            so_far = 0
            for limit, count in zip((*map(str, self.buckets), "+Inf"), counts, strict=True):
                so_far += count
                lines.append(f"{name}_bucket{_shown((*own, ('le', limit)))} {so_far}")
            lines += [f"{name}_sum{_shown(own)} {total:.6f}", f"{name}_count{_shown(own)} {so_far}"]
        return lines


class Metrics:
    """All of one program. Labels come from our own tables, never from requests, so their number is bounded."""

    def __init__(self) -> None:
        self._help: dict[str, tuple[str, str]] = {}
        self._counters: dict[str, dict[Labels, float]] = {}
        self._asked: dict[str, Callable[[], Mapping[Labels, float]]] = {}
        self._histograms: dict[str, _Histogram] = {}

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
        self.counters(name, text, lambda: {(): value()})

    def counters(self, name: str, text: str, values: Callable[[], Mapping[Labels, float]]) -> None:
        """Such values by their labels."""
        self._help[name] = ("counter", text)
        self._asked[name] = values

    def gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        """A value that is asked for when somebody looks."""
        self.gauges(name, text, lambda: {(): value()})

    def gauges(self, name: str, text: str, values: Callable[[], Mapping[Labels, float]]) -> None:
        """Values by their labels, asked for when somebody looks."""
        self._help[name] = ("gauge", text)
        self._asked[name] = values

    def histogram(self, name: str, text: str, label: str, buckets: Sequence[float]) -> None:
        """Durations in seconds, by the values of a label; label "": of one kind."""
        self._help[name] = ("histogram", text)
        self._histograms[name] = _Histogram(label, buckets)

    def took(self, name: str, value: str, seconds: float) -> None:
        """A duration for a histogram."""
        self._histograms[name].took(value, seconds)

    def text(self) -> str:
        """Everything."""
        lines = []
        for name, (kind, meaning) in self._help.items():
            lines += [f"# HELP {name} {meaning}", f"# TYPE {name} {kind}"]
            if name in self._histograms:
                lines += self._histograms[name].lines(name)
            asked = self._asked[name]() if name in self._asked else self._counters.get(name, {})
            lines += [f"{name}{_shown(labels)} {_number(value)}" for labels, value in sorted(asked.items())]
        return "\n".join(lines) + "\n"


def _shown(labels: Labels) -> str:
    shown = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels)
    return f"{{{shown}}}" if labels else ""


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:.6f}"
