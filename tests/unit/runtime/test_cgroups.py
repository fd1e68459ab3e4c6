"""Layouts told from /proc/self/mountinfo, and what limits become."""

from sampan.runtime import cgroups
from sampan.runtime.cgroups import Resources

HYBRID = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,release_agent=/lib/x,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate
"""
UNIFIED = "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"


def test_hybrid() -> None:
    layout = cgroups.read_layout(HYBRID, "")
    assert layout.version == 1
    assert layout.v1[0] == ("cpu,cpuacct", "/sys/fs/cgroup/cpu,cpuacct")
    assert layout.v1[2] == ("systemd", "/sys/fs/cgroup/systemd")
    assert cgroups.v1_path(layout, "cpuacct", "a/b") == "/sys/fs/cgroup/cpu,cpuacct/a/b"
    assert cgroups.directories(layout, "p")[-1] == "/sys/fs/cgroup/unified/p"


def test_unified() -> None:
    layout = cgroups.read_layout(UNIFIED, "cpu memory pids\n")
    assert (layout.version, layout.unified, layout.controllers) == (2, "/sys/fs/cgroup", ("cpu", "memory", "pids"))


def test_limits_on_v2() -> None:
    layout = cgroups.read_layout(UNIFIED, "cpu memory pids")
    resources = Resources(memory=100, memory_swap=150, cpu_quota=5000, cpu_shares=1024, pids_limit=3, memory_reservation=50)
    found = {file.rpartition("/")[2]: value for file, value, _ in cgroups.resource_writes(layout, "c", resources)}
    assert found == {
        "memory.max": "100", "memory.swap.max": "50", "memory.low": "50", "cpu.weight": "39", "cpu.max": "5000 100000", "pids.max": "3",
    }  # fmt: skip


def test_unlimited_swap() -> None:
    v2 = cgroups.read_layout(UNIFIED, "memory")
    writes = cgroups.resource_writes(v2, "c", Resources(memory=100, memory_swap=-1))
    assert ("/sys/fs/cgroup/c/memory.swap.max", "max", False) in writes


def test_limits_of_single_devices() -> None:
    wanted = Resources(device_weights=(("8:0", 10), ("8:16", 1000)), throttles=(("8:0", "read_bps", 5), ("8:0", "write_iops", 7)))
    v1 = cgroups.Layout(1, (("blkio", "/b"),))
    assert [write[:2] for write in cgroups.resource_writes(v1, "c", wanted)] == [
        ("/b/c/blkio.weight_device", "8:0 10"),
        ("/b/c/blkio.weight_device", "8:16 1000"),
        ("/b/c/blkio.throttle.read_bps_device", "8:0 5"),
        ("/b/c/blkio.throttle.write_iops_device", "8:0 7"),
    ]
    assert cgroups.resource_writes(cgroups.Layout(2, (), "/u"), "c", wanted) == [
        ("/u/c/io.bfq.weight", "8:0 10", False),
        ("/u/c/io.bfq.weight", "8:16 1000", False),
        ("/u/c/io.weight", "8:0 1", True),
        ("/u/c/io.weight", "8:16 10000", True),
        ("/u/c/io.max", "8:0 rbps=5", True),
        ("/u/c/io.max", "8:0 wiops=7", True),
    ]


def test_weight_of_all_devices() -> None:
    """Whichever of the kernel's two policies is at work goes by it: BFQ by v1's numbers."""
    assert cgroups.resource_writes(cgroups.Layout(2, (), "/u"), "c", Resources(blkio_weight=1000)) == [
        ("/u/c/io.bfq.weight", "default 1000", False),
        ("/u/c/io.weight", "default 10000", True),
    ]


def test_real_time() -> None:
    v1 = cgroups.Layout(1, (("cpu,cpuacct", "/b"),))
    wanted = Resources(cpu_rt_period=2000, cpu_rt_runtime=1000)
    limits = [("/b/a/p/c/cpu.rt_period_us", "2000", True), ("/b/a/p/c/cpu.rt_runtime_us", "1000", True)]
    assert cgroups.resource_writes(v1, "a/p/c", wanted) == limits
    assert cgroups.parents_real_time(v1, "a/p/c", 0, 5) == [("/b/a/cpu.rt_runtime_us", "5", True), ("/b/a/p/cpu.rt_runtime_us", "5", True)]
    assert cgroups.resource_writes(cgroups.Layout(2, (), "/u"), "c", wanted) == []
    assert cgroups.parents_real_time(cgroups.Layout(2, (), "/u"), "p/c", 5, 5) == []
