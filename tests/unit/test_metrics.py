"""Prometheus's text format."""

from sampan.metrics import Metrics


def test_text() -> None:
    metrics = Metrics()
    metrics.describe("requests_total", "Requests.")
    metrics.gauge("open", "Open.", lambda: 1.5)
    metrics.gauges("about", "What it is.", lambda: {(("os", 'a "b"\\\n'),): 1})
    metrics.histogram("took_seconds", "Durations.", "action", (0.1, 1))
    metrics.add("requests_total", route="x")
    metrics.add("requests_total", 2, route="x")
    metrics.took("took_seconds", "start", 0.5)
    metrics.took("took_seconds", "start", 2)
    metrics.histogram("alone_seconds", "One.", "", (1,))
    metrics.took("alone_seconds", "", 0.5)
    assert metrics.text().splitlines() == [
        "# HELP requests_total Requests.", "# TYPE requests_total counter", 'requests_total{route="x"} 3',
        "# HELP open Open.", "# TYPE open gauge", "open 1.500000",
        "# HELP about What it is.", "# TYPE about gauge", 'about{os="a \\"b\\"\\\\\\n"} 1',
        "# HELP took_seconds Durations.", "# TYPE took_seconds histogram",
        'took_seconds_bucket{action="start",le="0.1"} 0', 'took_seconds_bucket{action="start",le="1"} 1',
        'took_seconds_bucket{action="start",le="+Inf"} 2', 'took_seconds_sum{action="start"} 2.500000',
        'took_seconds_count{action="start"} 2',
        "# HELP alone_seconds One.", "# TYPE alone_seconds histogram", 'alone_seconds_bucket{le="1"} 1',
        'alone_seconds_bucket{le="+Inf"} 1', "alone_seconds_sum 0.500000", "alone_seconds_count 1",
    ]  # fmt: skip
