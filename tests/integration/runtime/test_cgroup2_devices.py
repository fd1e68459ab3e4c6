"""The eBPF device filter on a real v2 cgroup (of the hybrid host's unified hierarchy, too)."""

import os

import pytest

from sampan.linux import cgroup2, kernelfile
from sampan.runtime import cgroups

pytestmark = pytest.mark.root


def test_only_allowed_devices_open() -> None:
    unified = cgroups.host_layout().unified
    if not unified:
        pytest.skip("no cgroup v2 hierarchy is mounted")
    directory = f"{unified}/sampan-test-devices-{os.getpid()}"
    os.mkdir(directory)
    try:
        cgroup2.attach_devices(directory, [("c", 1, 3, "rw"), ("c", 1, 5, "r")])
        pid = os.fork()
        if pid == 0:
            kernelfile.write(f"{directory}/cgroup.procs", "0")
            results = 0
            for bit, (path, flags) in enumerate(
                [("/dev/null", os.O_RDWR), ("/dev/zero", os.O_RDONLY), ("/dev/zero", os.O_WRONLY), ("/dev/full", os.O_RDONLY)]
            ):
                try:
                    os.close(os.open(path, flags))
                    results |= 1 << bit
                except PermissionError:
                    pass
            os._exit(results)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0b0011
    finally:
        os.rmdir(directory)
