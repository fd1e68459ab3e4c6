"""What containers use: docker's documents, and the sampler that many watchers share."""

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from sampan.clock import SystemClock
from sampan.engine import sampling
from sampan.engine.containerstore import Container, Containers
from sampan.engine.paths import Paths
from sampan.engine.sampling import Sample, Sampler
from sampan.engine.stats import MEMORY_KEYS, StatsService, document
from sampan.errors import InvalidArgument
from sampan.linux import cgroupusage
from sampan.linux.procstat import Traffic
from sampan.runtime.cgroups import Layout

GOLDEN = Path(__file__).parents[2] / "golden"
RECORDED = json.loads((GOLDEN / "api" / "stats_docker28.json").read_text())
HOST_MEMORY = 1 << 30


def sample(version: str, networks: dict[str, Traffic] | None = None, time_ns: int = 1_700_000_000_500_000_000) -> Sample:
    files = {path.name: path.read_text() for path in (GOLDEN / "cgroups" / version).iterdir()}
    usage = cgroupusage.from_v1(files) if version == "v1" else cgroupusage.from_v2(files)
    return Sample(time_ns, usage, 900_000_000_000, 2, networks or {})


def container(**attributes: Any) -> Container:
    values = {"id": "c" * 64, "name": "box", "is_running": True, "removed": asyncio.Event()} | attributes
    values.setdefault("config", SimpleNamespace(network_disabled=False))
    values.setdefault("host_config", SimpleNamespace(network_mode="bridge", cgroup_parent=""))
    values.setdefault("state", SimpleNamespace(endpoints=(), pid=0))
    made = type("Stub", (), {})()
    vars(made).update(values)
    return cast("Container", made)


def shape(value: Any) -> Any:
    """The keys in their order, and what kinds of values there are."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    return type(value).__name__


def made(*args: Any) -> Any:
    return json.loads(msgspec.json.encode(document(*args)))


def test_a_running_container_as_docker_shows_it() -> None:
    box = container()
    first = document(sample("v1"), HOST_MEMORY, None, box)
    found = made(sample("v1", time_ns=1_700_000_001_000_000_000), HOST_MEMORY, first, box)
    assert list(found) == list(RECORDED["running"])
    assert shape({**found, "memory_stats": 0, "pids_stats": 0}) == shape({**RECORDED["running"], "memory_stats": 0, "pids_stats": 0})
    assert list(found["memory_stats"]["stats"]) == list(RECORDED["running"]["memory_stats"]["stats"])
    assert (found["name"], found["id"]) == ("/box", box.id)
    assert (found["read"], found["preread"]) == ("2023-11-14T22:13:21Z", "2023-11-14T22:13:20.5Z")
    assert found["precpu_stats"] == found["cpu_stats"]
    assert found["memory_stats"]["limit"] == 67108864
    assert found["memory_stats"]["failcnt"] == 9
    assert found["pids_stats"] == {"current": 3}
    blkio = found["blkio_stats"]
    assert blkio["io_service_bytes_recursive"][1] == {"major": 254, "minor": 0, "op": "Write", "value": 8392704}
    assert blkio["io_time_recursive"] == []


def test_one_shot_has_nothing_before_it() -> None:
    found = made(sample("v1"), HOST_MEMORY)
    assert list(found) == list(RECORDED["one_shot"])
    assert found["precpu_stats"] == RECORDED["one_shot"]["precpu_stats"]
    assert found["preread"] == RECORDED["one_shot"]["preread"]


def test_a_stopped_container_is_all_zeros() -> None:
    box = container(name=RECORDED["stopped"]["name"][1:], id=RECORDED["stopped"]["id"])
    assert made(None, HOST_MEMORY, None, box) == RECORDED["stopped"]
    last = document(sample("v1"), HOST_MEMORY, None, box)
    assert made(None, HOST_MEMORY, last, box)["precpu_stats"]["cpu_usage"]["total_usage"] == 2518073123


def test_version_2() -> None:
    found = made(sample("v2"), HOST_MEMORY)
    assert list(found["memory_stats"]["stats"]) == list(MEMORY_KEYS[2])
    assert found["memory_stats"]["stats"]["inactive_file"] == 8392704
    assert found["memory_stats"]["stats"]["workingset_refault"] == 0
    assert "max_usage" not in found["memory_stats"]
    assert "percpu_usage" not in found["cpu_stats"]["cpu_usage"]
    assert found["pids_stats"] == {"current": 3, "limit": 2**64 - 1}
    blkio = found["blkio_stats"]
    assert blkio["io_service_bytes_recursive"][0] == {"major": 254, "minor": 16, "op": "read", "value": 4096}
    assert blkio["io_serviced_recursive"] is None


def test_a_limit_above_the_hosts_memory_is_the_hosts_memory() -> None:
    unlimited = cgroupusage.from_v2({"memory.max": "max\n"})
    assert made(sample("v2")._replace(usage=unlimited), HOST_MEMORY)["memory_stats"]["limit"] == HOST_MEMORY


def test_networks() -> None:
    networks = {"eth0": Traffic(1, 2, 3, 4, 5, 6, 7, 8)}
    assert made(sample("v2", networks), HOST_MEMORY)["networks"] == {
        "eth0": {
            "rx_bytes": 1, "rx_packets": 2, "rx_errors": 3, "rx_dropped": 4,
            "tx_bytes": 5, "tx_packets": 6, "tx_errors": 7, "tx_dropped": 8,
        }
    }  # fmt: skip


class Bench:
    """A sampler whose readings are counted, with boxes in it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *boxes: Container) -> None:
        self.readings: list[int] = []
        found = {box.id: box for box in boxes}
        containers = cast("Containers", SimpleNamespace(find=found.__getitem__))
        self.sampler = Sampler(containers, Layout(2, (), "/none"), Paths(Path("/a"), Path("/b"), "docker"), SystemClock())
        self.service = StatsService(containers, self.sampler)
        monkeypatch.setattr(sampling, "INTERVAL", 0.01)
        monkeypatch.setattr(sampling, "_read_all", self.read)

    def read(self, _layout: object, targets: Sequence[object], _clock: object) -> list[Sample | None]:
        self.readings.append(len(targets))
        return [sample("v2", time_ns=len(self.readings)) if target is not None else None for target in targets]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


def test_many_watchers_share_the_readings(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        box = container()
        bench = Bench(monkeypatch, box)
        watchers = [bench.sampler.watch(box) for _ in range(50)]
        firsts = await asyncio.gather(*(anext(watcher) for watcher in watchers))
        assert len({found.time_ns for found in firsts if found is not None}) == 1
        assert set(bench.readings) == {1}
        for watcher in watchers:
            await watcher.aclose()
        await until(lambda: bench.sampler.is_idle)
        count = len(bench.readings)
        await asyncio.sleep(0.05)
        assert len(bench.readings) == count

    asyncio.run(body())


def test_a_slow_watcher_holds_nothing_up_and_little_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        box = container()
        bench = Bench(monkeypatch, box)
        slow = bench.sampler.watch(box)
        await anext(slow)
        await until(lambda: len(bench.readings) > 40)
        vars(box)["removed"].set()
        left = [found async for found in slow]
        assert len(left) < 20  # what was kept, and what came while it caught up

    asyncio.run(body())


def test_a_stream_goes_on_over_an_end_and_ends_with_the_removal(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        box = container()
        bench = Bench(monkeypatch, box)
        stream = bench.service.stream(box.id, one_shot=False)
        assert (await anext(stream)).pids_stats.current == 3
        vars(box)["is_running"] = False
        async with asyncio.timeout(10):
            while (found := await anext(stream)).pids_stats.current:
                pass
            assert found.name == "/box"
            vars(box)["is_running"], vars(box)["name"] = True, "other"
            while not (found := await anext(stream)).pids_stats.current:
                pass
            assert found.name == "/other"
            vars(box)["removed"].set()
            assert [found async for found in stream if found.name != "/other"] == []
        await bench.sampler.close()

    asyncio.run(body())


def test_once_has_two_readings_and_one_shot_one(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        box = container()
        bench = Bench(monkeypatch, box)
        found = await bench.service.once(box.id, one_shot=False)
        assert found is not None
        assert found.precpu_stats.system_cpu_usage == 900_000_000_000
        await until(lambda: bench.sampler.is_idle)
        count = len(bench.readings)
        found = await bench.service.once(box.id, one_shot=True)
        assert found is not None
        assert found.precpu_stats.system_cpu_usage == 0
        assert len(bench.readings) == count + 1
        vars(box)["is_running"] = False
        stopped = await bench.service.once(box.id, one_shot=False)
        assert stopped == document(None, 0, None, box)
        assert len(bench.readings) == count + 1
        with pytest.raises(InvalidArgument, match=r"^cannot have stream=true and one-shot=true$"):
            bench.service.stream(box.id, one_shot=True)

    asyncio.run(body())
