"""What sampan-teardown decides from what it reads."""

import os
import subprocess
from pathlib import Path

import pytest

from sampan.archive.trees import remove_path
from sampan.daemon import teardown
from sampan.daemon.config import DaemonConfig, cgroup_parent
from tests.support.disks import deep_tree


def test_each_data_root_has_a_cgroup_parent_of_its_own(monkeypatch):
    monkeypatch.delenv("SAMPAN_CGROUP_PARENT", raising=False)
    assert cgroup_parent(DaemonConfig()) == "sampan"
    one, two = (cgroup_parent(DaemonConfig(data_root=root)) for root in ("/srv/one", "/srv/two"))
    assert one.startswith("sampan-")
    assert len({one, two, "sampan"}) == 3
    assert cgroup_parent(DaemonConfig(cgroup_parent="/mine")) == "mine"


def test_the_delegated_unit_is_the_parent_under_systemd(monkeypatch):
    monkeypatch.setenv("SAMPAN_CGROUP_PARENT", "/system.slice/sampan-containers.service")
    assert cgroup_parent(DaemonConfig()) == "system.slice/sampan-containers.service"


def test_a_process_that_ignores_term_is_killed_after_the_grace():
    stubborn = subprocess.Popen(["sh", "-c", "trap '' TERM; echo up; while :; do sleep 60 & wait; done"], stdout=subprocess.PIPE)
    assert stubborn.stdout is not None
    with stubborn.stdout as out:
        assert out.readline() == b"up\n"
    teardown.end([stubborn.pid], 0.2)
    assert stubborn.wait(10) == -9


def test_a_zombie_counts_as_ended():
    child = subprocess.Popen(["true"])
    while teardown.alive(child.pid):
        os.sched_yield()
    assert child.wait() == 0


def test_a_pid_file_of_another_program_is_not_believed(tmp_path):
    (tmp_path / "pid").write_text("1")
    assert teardown.sampand_pid(DaemonConfig(pidfile=str(tmp_path / "pid"))) is None


def test_mounts_are_found_below_a_root_only():
    assert "/proc" in teardown.mounts_below(["/proc"])
    assert not teardown.mounts_below(["/pro"])


@pytest.mark.parametrize("words", [[], ["nonsense"]])
def test_without_a_verb_it_explains_itself(words, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["sampan-teardown", *words])
    with pytest.raises(SystemExit) as left:
        teardown.entry()
    assert left.value.code == 2
    assert "sampan-teardown purge" in capsys.readouterr().out


def test_nothing_is_removed_when_it_is_not_known_where(tmp_path, monkeypatch, capsys):
    (tmp_path / "daemon.json").write_text('{"data-root": ')
    done = []
    monkeypatch.setattr(teardown, "run", lambda verb, config: done.append(verb))
    monkeypatch.setattr("sys.argv", ["sampan-teardown", "purge", f"--config-file={tmp_path}/daemon.json"])
    with pytest.raises(SystemExit) as left:
        teardown.entry()
    assert (left.value.code, done) == (1, ["stop"])
    assert "give --data-root" in capsys.readouterr().err


def test_a_purge_removes_trees_of_any_depth(tmp_path: Path) -> None:
    data_root = tmp_path / "data"
    (tmp_path / "link").symlink_to(data_root)
    try:
        deep_tree(data_root / "overlay/l/layer", 3000)
        deep_tree(data_root / "overlay/c/container/upper", 3000)
        config = DaemonConfig(
            data_root=str(tmp_path / "link"), exec_root=str(tmp_path / "exec"), pidfile=str(tmp_path / "pid"), hosts=("unix://x",)
        )
        teardown.remove_state(config, "stop")
        assert data_root.is_dir()
        teardown.remove_state(config, "purge")
        assert not data_root.exists()
    finally:
        remove_path(data_root)  # too deep for pytest
