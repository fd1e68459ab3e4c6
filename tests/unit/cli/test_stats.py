"""What `sampan stats` computes, and rows without an answer."""

import json
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sampan.cli import watching
from sampan.cli.format.stats import Entry, cpu_percent, memory_used
from sampan.cli.http import CliError
from sampan.cli.main import Context
from sampan.cli.watching import Row


@pytest.mark.parametrize(
    ("stats", "used"),
    [
        ({"total_inactive_file": 30, "inactive_file": 10}, 70),
        ({"total_inactive_file": 100, "inactive_file": 10}, 90),
        ({"inactive_file": 40}, 60),
        ({"inactive_file": 100}, 100),
        (None, 100),
    ],
)
def test_memory_without_the_cache(stats: dict[str, int] | None, used: int) -> None:
    assert memory_used({"usage": 100, "stats": stats}) == used


@pytest.mark.parametrize(
    ("total", "system", "processors", "percent"),
    [(150, 2000, {"online_cpus": 4}, 20.0), (150, 2000, {}, 10.0), (100, 2000, {}, 0.0), (50, 2000, {}, 0.0), (150, 1000, {}, 0.0)],
)
def test_percent_of_a_processor(total: int, system: int, processors: dict[str, int], percent: float) -> None:
    now = {"cpu_usage": {"total_usage": total, "percpu_usage": [1, 2]}, "system_cpu_usage": system, **processors}
    before = {"cpu_usage": {"total_usage": 100}, "system_cpu_usage": 1000}
    assert cpu_percent({"cpu_stats": now, "precpu_stats": before}) == percent


def test_nothing_known() -> None:
    row = Entry("box", {}, known=False, trunc=True)
    assert row.as_json() == {
        "BlockIO": "--", "CPUPerc": "--", "Container": "box", "ID": "", "MemPerc": "--", "MemUsage": "-- / --", "Name": "--",
        "NetIO": "--", "PIDs": "--",
    }  # fmt: skip
    assert Entry("box", {}, known=True, trunc=True).MemUsage() == "0B / 0B"


def context(lines: Iterator[bytes]) -> Context:
    """One whose daemon answers a request for figures with these lines."""
    response = SimpleNamespace(lines=lambda: lines)
    pending = SimpleNamespace(connection=None, response=lambda: response)
    return cast("Context", SimpleNamespace(client=SimpleNamespace(begin=lambda *_: pending), path=Context.path))


def document(name: str) -> bytes:
    found: dict[str, Any] = {"name": name}
    return json.dumps(found).encode()


def test_a_daemon_that_says_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "_SILENCE", 0.05)
    row, known = Row("box"), []

    def lines() -> Iterator[bytes]:
        row.wait()
        known.append((row.error, row.known))
        yield document("/first")
        known.append((row.error, row.known))
        time.sleep(0.1)
        known.append((row.error, row.known))
        yield document("/second")
        known.append((row.error, row.known))
        raise CliError("unexpected EOF")

    row.follow(context(lines()), stream=True)
    assert known == [("timeout waiting for stats", False), ("", True), ("", False), ("", True)]
    assert (row.error, row.known, row.stats["name"]) == ("unexpected EOF", False, "/second")


def test_once() -> None:
    row = Row("box")
    row.follow(context(iter([document("/a"), document("/b")])), stream=False)
    assert (row.stats, row.error, row.first.is_set()) == ({"name": "/a"}, "", True)
    gone = Row("box")
    gone.follow(context(iter([])), stream=False)
    assert (gone.error, gone.first.is_set()) == ("EOF", True)
