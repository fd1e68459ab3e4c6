"""The build cache as users see it: `system df`, `builder prune` with its filters and limits, and what stays."""

import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.golden.build.record import caller, prepare
from tests.support.builds import Built, build
from tests.support.engine import Engine

Make = Callable[..., Built]
MEGA = 1 << 20


@pytest.fixture(scope="module")
def own(_session_engines: Callable[..., Engine]) -> Engine:
    """An engine whose cache is this module's alone."""
    engine = _session_engines()
    engine.start()
    prepare(caller(engine.socket))
    return engine


@pytest.fixture
def make(own: Engine) -> Iterator[Make]:
    """A function that builds on it; nothing of the cache is there before or after."""

    def run(text: str, /, **query: Any) -> Built:
        built = build(caller(own.socket), {"Dockerfile": f"FROM buildbase\n{text}"}, **query)
        assert built.error == "", built.text
        return built

    own.request("POST", "/build/prune?all=1")
    yield run
    own.request("POST", "/build/prune?all=1")


def entries(engine: Engine) -> list[dict[str, Any]]:
    """Of `system df`, used last first."""
    found: list[dict[str, Any]] = engine.request("GET", "/system/df?type=build-cache")[1]["BuildCache"]
    return found


def prune(engine: Engine, version: str = "v1.50", **query: Any) -> Any:
    """The report, or the message."""
    report = engine.request("POST", f"/{version}/build/prune?{urlencode(query)}")[1]
    return report.get("message", report)


def filtered(engine: Engine, text: str) -> Any:
    return prune(engine, filters=text)


def mounted(name: str, size: int = MEGA, sharing: str = "shared") -> str:
    """A RUN with a cache of so many bytes."""
    return (
        f"RUN --mount=type=cache,id={name},target=/c,sharing={sharing} head -c {size} /dev/urandom > /c/f; echo {time.time_ns()} > /tmp/t\n"
    )


def written(size: int = MEGA) -> str:
    """A RUN whose layer has so many bytes."""
    return f"RUN head -c {size} /dev/urandom > /{time.time_ns()}\n"


def timeless(text: str) -> str:
    """Without what a second changes, and the widths of columns with it."""
    return re.sub(r" +", " ", re.sub(r"(Less than a|\S+)( a)?( \S+)? ago", "ago", text))


def test_what_df_says_of_it(own: Engine, make: Make) -> None:
    make("LABEL a=b\n" + written(), t="named")
    make(mounted("first") + written(2 * MEGA))
    found = entries(own)
    by_type = {kind: [entry for entry in found if entry["Type"] == kind] for kind in ("regular", "exec.cachemount")}
    assert len(by_type["regular"]) == 4
    (mount,) = by_type["exec.cachemount"]
    assert mount["Description"] == "cached mount first"
    assert mount["Size"] >= MEGA
    assert (mount["InUse"], mount["Shared"], mount["UsageCount"]) == (False, False, 1)
    shared = [entry for entry in by_type["regular"] if entry["Shared"]]
    assert [entry["Description"].startswith("/bin/sh -c") for entry in shared] == [True, True]
    assert sum(entry["Size"] for entry in shared) >= MEGA
    alone = [entry for entry in by_type["regular"] if not entry["Shared"]]
    assert sum(entry["Size"] for entry in alone) >= 2 * MEGA
    top = next(entry for entry in alone if entry.get(" Parents"))
    assert top[" Parents"][0] in {entry["ID"] for entry in alone}
    assert top["CreatedAt"].startswith("20")
    assert top["LastUsedAt"].startswith("20")


def test_bytes_are_counted_once(own: Engine, make: Make) -> None:
    before = own.request("GET", "/system/df")[1]
    make(written(4 * MEGA))
    after = own.request("GET", "/system/df")[1]
    cache = sum(entry["Size"] for entry in after["BuildCache"] if not entry["Shared"])
    assert 4 * MEGA <= cache < 5 * MEGA
    assert abs(after["LayersSize"] - before["LayersSize"]) < MEGA
    make(written(4 * MEGA), t="counted")
    named = own.request("GET", "/system/df")[1]
    assert 4 * MEGA <= named["LayersSize"] - after["LayersSize"] < 5 * MEGA
    assert sum(entry["Size"] for entry in named["BuildCache"] if not entry["Shared"]) == cache
    assert abs(own.request("GET", "/system/df?type=image")[1]["LayersSize"] - named["LayersSize"]) < MEGA
    assert own.request("GET", "/v1.41/system/df")[1]["BuilderSize"] == cache


def test_the_clients_show_it(own: Engine, make: Make, docker_path: str) -> None:
    make(mounted("shown") + written())
    ours, theirs = (timeless(text.stdout) for text in (own.cli("system", "df", "-v"), own.run_client([docker_path], "system", "df", "-v")))
    assert "exec.cachemount" in theirs
    assert ours.partition("Build cache usage")[2] == theirs.partition("Build cache usage")[2]
    assert own.cli("system", "df").stdout == own.run_client([docker_path], "system", "df").stdout
    pruned = own.run_client([docker_path], "builder", "prune", "--force", "--filter", "type=exec.cachemount")
    assert pruned.returncode == 0, pruned.stderr
    assert pruned.stdout.startswith("Deleted build cache objects:\n")
    assert "Total reclaimed space: 1.0" in pruned.stdout
    again = own.cli("builder", "prune", "--force")
    assert again.stdout.startswith("Deleted build cache objects:\n")
    assert entries(own) == []


def test_what_was_used_longest_ago_goes_first_whatever_it_is(own: Engine, make: Make) -> None:
    make(mounted("old"), t="keeps-its-step")
    make(written())
    make(mounted("young"), t="keeps-its-step")
    make(mounted("old"), t="keeps-its-step")
    total = sum(entry["Size"] for entry in entries(own) if not entry["Shared"])
    assert prune(own, **{"reserved-space": total})["CachesDeleted"] is None
    order = [entry["ID"] for entry in reversed(entries(own)) if not entry["Shared"] and entry["Size"] >= MEGA]
    went = []
    for keep in (2.5, 1.5, 0.5):
        report = prune(own, **{"max-used-space": int(keep * MEGA)})
        went += [name for name in report["CachesDeleted"] or () if name in order]
    assert went == order
    names = {entry["Description"] for entry in entries(own) if entry["Type"] == "exec.cachemount"}
    assert names == set()


def test_reserved_space_stays_and_free_space_is_looked_at(own: Engine, make: Make) -> None:
    make(written())
    disk = os.statvfs(own.data_root)
    free = disk.f_bavail * disk.f_frsize
    assert prune(own, **{"min-free-space": 1})["CachesDeleted"] is None
    assert prune(own, **{"min-free-space": free * 2, "reserved-space": 1 << 40})["CachesDeleted"] is None
    assert prune(own, version="v1.47", **{"min-free-space": 1, "keep-storage": 1 << 40})["CachesDeleted"] is None
    assert prune(own, **{"min-free-space": free * 2})["SpaceReclaimed"] >= MEGA


def test_filters(own: Engine, make: Make) -> None:
    make(mounted("chosen") + "LABEL x=y\n")
    found = {entry["Type"]: entry for entry in entries(own)}
    nothing = {"CachesDeleted": None, "SpaceReclaimed": 0}
    others = {
        "type": "source.local",
        "until": "1h",
        "unused-for": "2000-01-01",
        "id": "nobody",
        "inuse": "1",
        "shared": "true",
        "label": "a",
    }
    for key, value in {**others, "private": "false", "parent": "none", "description": "none"}.items():
        assert filtered(own, f'{{"{key}":["{value}"]}}') == nothing, key
    mount = found["exec.cachemount"]["ID"]
    assert filtered(own, f'{{"id":["{mount}"]}}')["CachesDeleted"] == [mount]
    step = next(entry for entry in entries(own) if entry.get(" Parents"))
    assert filtered(own, f'{{"description":["{step["Description"]}"],"inuse":["0"]}}')["CachesDeleted"] == [step["ID"]]
    assert len(filtered(own, '{"type":["regular"],"private":["1"],"until":["0s"]}')["CachesDeleted"]) == 1


@pytest.mark.parametrize(
    ("filters", "words"),
    [
        ('{"foo":["x"]}', "invalid filter 'foo'"),
        ('{"mutable":["x"]}', "invalid filter 'mutable'"),
        ('{"inuse":["1","0"]}', "filters expect only one value"),
        ('{"id":["a","b"]}', "filters expect only one value"),
        ('{"until":["1h","2h"]}', "filters expect only one value"),
        ('{"until":["2h"],"unused-for":["1h"]}', 'conflicting filters: "until" and "unused-for"'),
        (
            '{"until":["1d"]}',
            '"until" filter expects a duration (e.g., \'24h\') or a timestamp: failed to parse value as time or duration: "1d"',
        ),
    ],
)
def test_filters_that_are_none(own: Engine, filters: str, words: str) -> None:
    assert filtered(own, filters) == f"failed to prune build cache: {words}"


def test_limits_that_are_none(own: Engine) -> None:
    for name, text in (("reserved-space", "abc"), ("max-used-space", "1.5"), ("keep-storage", "x")):
        words = f'{name} is in bytes and expects an integer, got {text}: strconv.Atoi: parsing "{text}": invalid syntax'
        assert prune(own, **{name: text}) == words
    assert prune(own, version="v1.47", **{"max-used-space": "x"})["SpaceReclaimed"] == 0


def test_what_a_build_stands_on_stays(own: Engine, make: Make) -> None:
    wait = "touch /c/on; for i in $(seq 200); do [ -e /c/off ] && exit 0; sleep 0.1; done"
    text = f"FROM buildbase\n{written()}RUN --mount=type=cache,id=busy,target=/c {wait}\n"
    built: list[Built] = []
    thread = threading.Thread(target=lambda: built.append(build(caller(own.socket), {"Dockerfile": text})))
    thread.start()
    try:
        place = own.data_root / "build/mounts"
        deadline = time.monotonic() + 20
        while not (begun := list(place.glob("*/on"))) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert [entry["InUse"] for entry in entries(own)] == [True, True]
        assert prune(own)["CachesDeleted"] is None
    finally:
        for path in begun:
            path.with_name("off").touch()
        thread.join(60)
    assert built[0].error == ""
    assert build(caller(own.socket), {"Dockerfile": text}).cached == 2


def test_one_lock_of_two_mounts(make: Make) -> None:
    one = "--mount=type=cache,id=lock,sharing=locked,target="
    assert "\nseen\n" in make(f"RUN {one}/a {one}/b touch /a/seen; ls /b\n", nocache=1).text


def test_what_a_kill_has_left_of_a_prune(own: Engine, make: Make) -> None:
    make("LABEL left=1\n")
    gone = own.data_root / "build/mounts/gone-0123456789abcdef"
    gone.mkdir()
    (gone / "f").write_text("x")
    prune(own)
    assert not gone.exists()
