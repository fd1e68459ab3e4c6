"""Go's durations and times as templates see them."""

import pytest

from sampan.cli.format import gofmt
from sampan.cli.format.execute import Template
from sampan.cli.format.values import GoDuration, GoTime

SECOND = 10**9


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0s"),
        (1, "1ns"),
        (1100, "1.1µs"),
        (2_200_000, "2.2ms"),
        (90 * SECOND, "1m30s"),
        (3600 * SECOND, "1h0m0s"),
        (-SECOND // 2, "-500ms"),
    ],
)
def test_durations(nanoseconds: int, text: str) -> None:
    assert text == gofmt.text(GoDuration(nanoseconds))
    assert text == gofmt.sprintf("%v", [GoDuration(nanoseconds)])
    assert str(nanoseconds) == gofmt.sprintf("%d", [GoDuration(nanoseconds)])


def test_times() -> None:
    data = {"t": GoTime("2026-11-24T02:33:20.500000000Z"), "zero": GoTime("0001-01-01T00:00:00Z")}
    assert Template("{{.t}}|{{.t.IsZero}}|{{.zero.IsZero}}|{{.t.Unix}}|{{.t.String}}").execute(data) == (
        "2026-11-24 02:33:20.5 +0000 UTC|false|true|1795487600|2026-11-24 02:33:20.5 +0000 UTC"
    )
