"""What a cgroup has used, out of the files of both versions."""

from pathlib import Path

import pytest

from sampan.linux import cgroupusage, procstat
from sampan.linux.cgroupusage import Cpu, Io
from sampan.runtime.cgroups import Layout, usage

GOLDEN = Path(__file__).parents[2] / "golden" / "cgroups"


def texts(version: str) -> dict[str, str]:
    return {path.name: path.read_text() for path in (GOLDEN / version).iterdir()}


def test_version_1() -> None:
    found = cgroupusage.from_v1(texts("v1"))
    assert found.version == 1
    assert found.cpu == Cpu(
        total=2518073123, kernel=410_000_000, user=2_100_000_000, each=(1500000123, 1018073000),
        periods=31, throttled_periods=12, throttled=640210555,
    )  # fmt: skip
    memory = found.memory
    assert (memory.usage, memory.most, memory.limit, memory.failures) == (11296768, 12345344, 67108864, 9)
    assert memory.stat["total_inactive_file"] == 8392704
    assert (found.pids, found.pids_limit) == (3, 0)
    assert found.io["io_service_bytes"][:2] == (Io(254, 0, "Read", 135168), Io(254, 0, "Write", 8392704))
    assert [entry.operation for entry in found.io["io_serviced"]] == ["Read", "Write", "Sync", "Async", "Discard", "Total"]
    assert found.io["time"] == ()


def test_version_1_with_a_scheduler_that_counts() -> None:
    own = {
        "blkio.io_service_bytes_recursive": "8:16 Read 4096\n8:16 Write 0\nTotal 4096\n",
        "blkio.time_recursive": "8:16 12\n",
        "blkio.sectors_recursive": "8:16 8\n",
    }
    found = cgroupusage.from_v1(texts("v1") | own)
    assert found.io["io_service_bytes"] == (Io(8, 16, "Read", 4096), Io(8, 16, "Write", 0))
    assert (found.io["time"], found.io["sectors"]) == ((Io(8, 16, "", 12),), (Io(8, 16, "", 8),))


def test_version_2() -> None:
    found = cgroupusage.from_v2(texts("v2"))
    assert found.version == 2
    assert found.cpu == Cpu(
        total=2518073000, kernel=418032000, user=2100041000, periods=31, throttled_periods=12, throttled=640210000
    )  # fmt: skip
    memory = found.memory
    assert (memory.usage, memory.most, memory.limit, memory.failures) == (11296768, 0, 67108864, 2)
    assert memory.stat["inactive_file"] == 8392704
    assert (found.pids, found.pids_limit) == (3, 2**64 - 1)
    assert found.io == {
        "io_service_bytes": (
            Io(254, 16, "read", 4096), Io(254, 16, "write", 8392704), Io(254, 0, "read", 135168), Io(254, 0, "write", 0),
        )
    }  # fmt: skip


def test_no_files_and_odd_ones() -> None:
    assert cgroupusage.from_v1({}).cpu == Cpu()
    assert cgroupusage.from_v2({"memory.max": "max\n"}).memory.limit == 2**64 - 1
    assert cgroupusage.from_v1({"memory.stat": "cache\nrss x\n\nswap 7\n", "pids.current": "?"}).memory.stat == {"swap": 7}
    assert cgroupusage.from_v1({"blkio.throttle.io_serviced": "\n8:0\n8:0 Read 1\n"}).io["io_serviced"] == (Io(8, 0, "Read", 1),)


def test_read_where_they_are(tmp_path: Path) -> None:
    for controller, names in cgroupusage.V1_FILES.items():
        directory = tmp_path / controller / "docker" / "c1"
        directory.mkdir(parents=True)
        for name in names:
            if (GOLDEN / "v1" / name).exists():
                (directory / name).write_text((GOLDEN / "v1" / name).read_text())
    layout = Layout(1, tuple((name, str(tmp_path / name)) for name in cgroupusage.V1_FILES))
    assert usage(layout, "docker/c1") == cgroupusage.from_v1(texts("v1"))
    assert usage(layout, "docker/gone") is None
    v2 = Layout(2, (), str(GOLDEN))
    assert usage(v2, "v2") == cgroupusage.from_v2(texts("v2"))
    assert usage(v2, "gone") is None


def test_processors() -> None:
    text = "cpu  100 1 20 3000 4 0 5 6 7 8\ncpu0 1 2 3\ncpu1 1 2 3\nintr 5\ncpux 9\n"
    assert procstat.processors(text) == (3130 * 10_000_000, 2)


@pytest.mark.parametrize("name", ["eth0", "a:b"])
def test_interfaces(name: str) -> None:
    head = "Inter-|   Receive  | Transmit\n face |bytes packets ...\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n"
    found = procstat.interfaces(f"{head}{name:>6}: 10 11 12 13 0 0 0 0 20 21 22 23 0 0 0 0\n")
    assert found[name] == procstat.Traffic(10, 11, 12, 13, 20, 21, 22, 23)
    assert set(found) == {"lo", name}
