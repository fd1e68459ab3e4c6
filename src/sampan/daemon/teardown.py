"""`sampan-teardown`: end an engine for good, whatever state it is in, and leave nothing behind.

    sampan-teardown containers      stop every container, through the API while sampand answers
    sampan-teardown host-shutdown   the same, but only while the host goes down (systemd's ExecStop)
    sampan-teardown stop            containers, then our processes, mounts, cgroups, network; images and containers' files stay
    sampan-teardown purge           stop, and remove the data root too

Further arguments are sampand's own flags (--data-root, --exec-root, --bridge, ...), so that it ends the engine they name. It trusts no
record of what was there: processes are found by cgroup and by socket, mounts in mountinfo, so it also clears up after a kill -9. A
daemon.json that is not valid is reported, and what of it can be read is used.
"""

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from sampan.archive.trees import remove_path
from sampan.daemon.config import DaemonConfig, cgroup_parent, engine_cgroup, known
from sampan.linux import libc
from sampan.linux.netlink import Netlink
from sampan.linux.nftables import NftablesError
from sampan.network.bridge import owned
from sampan.network.firewall import Firewall, close_forwarding, has_ipv6, table_of
from sampan.runtime.cgroups import directories, host_layout

VERBS: Final = ("containers", "host-shutdown", "stop", "purge")
MNT_DETACH: Final = 2
SOCKETS: Final = ("keeper.sock", "supervisor.sock")
GRACE: Final = 10.0
"""Seconds a process has between SIGTERM and SIGKILL where nothing else is said."""


def say(text: str) -> None:
    print(f"sampan: {text}", flush=True)


class UnixConnection(http.client.HTTPConnection):
    """http.client over a unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def request(path: str, method: str, url: str, timeout: float = 60) -> tuple[int, bytes]:
    """One request to the engine at a unix socket: status and body. Raises OSError or HTTPException."""
    connection = UnixConnection(path, timeout)
    try:
        connection.request(method, url)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def stop_by_api(config: DaemonConfig) -> bool:
    """Stop every running container as `docker stop` would; False when no engine answers."""
    # fd:// is the socket of our unit, which is where sampand's own would be.
    own = f"{config.exec_root}/sampan.sock"
    path = next((host.removeprefix("unix://") for host in config.hosts if host.startswith("unix://")), own)
    try:
        status, body = request(path, "GET", "/containers/json", timeout=10)
    except (OSError, http.client.HTTPException):
        return False
    if status != 200:
        return False
    running = [container["Id"] for container in json.loads(body)]
    if running:
        say(f"stopping {len(running)} container{'s' * (len(running) > 1)}")
    # All at once, as at dockerd's end: each may take its whole stop timeout, and the host that goes down does not wait for long.
    with ThreadPoolExecutor(max(1, len(running))) as pool:
        list(pool.map(lambda one: stop_one(path, one), running))
    return True


def stop_one(path: str, container: str) -> None:
    try:
        request(path, "POST", f"/containers/{container}/unpause")
        request(path, "POST", f"/containers/{container}/stop", timeout=3600)
    except (OSError, http.client.HTTPException) as exc:
        say(f"container {container[:12]}: {exc}")


def cgroup_directories(config: DaemonConfig) -> list[str]:
    """The engine's cgroups that exist, in every hierarchy, children before parents."""
    found: list[str] = []
    layout = host_layout()
    for top in (*directories(layout, engine_cgroup(config)), *directories(layout, cgroup_parent(config))):
        for where, _, _ in os.walk(top, topdown=False):
            found.append(where)
    return found


def pids_in(cgroups: Iterable[str]) -> set[int]:
    found: set[int] = set()
    for directory in cgroups:
        try:
            found.update(int(pid) for pid in Path(directory, "cgroup.procs").read_text().split())
        except (OSError, ValueError):
            continue
    return found - {0, os.getpid()}


def is_ours(pid: int, word: str) -> bool:
    """Whether the process runs a program of ours: a pid file may be older than the last start of the machine."""
    try:
        return word in Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return False


def sampand_pid(config: DaemonConfig) -> int | None:
    """The daemon's process by its pid file, when it is the daemon."""
    try:
        pid = int(Path(config.pidfile).read_text())
    except (OSError, ValueError):
        return None
    return pid if is_ours(pid, "sampan") else None


def helper_pids(config: DaemonConfig) -> set[int]:
    """Keeper, supervisor and proxy: whoever listens on the first two's sockets, and whoever names this exec-root on its command line."""
    found: set[int] = set()
    for name in SOCKETS:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
            try:
                probe.connect(f"{config.exec_root}/{name}")
                credentials = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            except OSError:
                continue
            found.add(int.from_bytes(credentials[:4], sys.byteorder))
    for entry in os.listdir("/proc"):
        if entry.isdecimal() and int(entry) != os.getpid():
            try:
                words = Path(f"/proc/{entry}/cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            if config.exec_root in words and any("sampan" in word and word.endswith(".py") for word in words):
                found.add(int(entry))
    return {pid for pid in found if is_ours(pid, "sampan") or is_ours(pid, "supervisor")}


def end(pids: Iterable[int], grace: float, *, first: int = signal.SIGTERM) -> None:
    """Signal the processes, wait for them, and SIGKILL what is left after `grace` seconds."""
    left = set(pids)
    for number, seconds in ((first, grace), (signal.SIGKILL, 5.0)):
        for pid in left:
            try:
                os.kill(pid, number)
            except OSError:
                continue
        deadline = time.monotonic() + seconds
        while left and time.monotonic() < deadline:
            left = {pid for pid in left if alive(pid)}
            time.sleep(0.01)
        if not left:
            return


def alive(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def end_processes(config: DaemonConfig) -> None:
    """sampand first, then keeper and supervisor at once (each would bring the other back), then what is left in containers."""
    daemon = sampand_pid(config)
    if daemon:
        say("ending the daemon")
        end([daemon], config.shutdown_timeout + GRACE)
    thaw(config)
    own = helper_pids(config)
    containers = pids_in(cgroup_directories(config)) - own
    if containers:
        say(f"ending {len(containers)} process{'es' * (len(containers) > 1)} left in containers")
        end(containers, GRACE)
    end(own, 5.0, first=signal.SIGKILL)
    for _ in range(50):
        rest = pids_in(cgroup_directories(config))
        if not rest:
            break
        end(rest, 1.0, first=signal.SIGKILL)


def thaw(config: DaemonConfig) -> None:
    """A frozen process takes no signal."""
    for directory in cgroup_directories(config):
        for name, text in (("freezer.state", "THAWED"), ("cgroup.freeze", "0")):
            try:
                with open(f"{directory}/{name}", "r+") as file:
                    file.write(text)
            except OSError:
                continue


def mounts_below(roots: Sequence[str]) -> list[str]:
    """Mount points at or below the directories, the last mounted first."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = line.split()[4].encode().decode("unicode_escape")
        if any(point == root or point.startswith(root + "/") for root in roots):
            found.append(point)
    return found[::-1]


def unmount(config: DaemonConfig) -> None:
    from sampan.engine.imagemounts import mounted

    images = [point for point, _ in mounted(os.path.realpath(config.data_root))]
    for point in [*images, *mounts_below([os.path.realpath(config.data_root), os.path.realpath(config.exec_root)])]:
        try:
            libc.umount2(point, MNT_DETACH)
        except OSError as exc:
            say(f"unmount {point}: {exc.strerror}")


def remove_cgroups(config: DaemonConfig) -> None:
    for directory in cgroup_directories(config):
        for _ in range(50):
            try:
                os.rmdir(directory)
                break
            except FileNotFoundError:
                break
            except OSError:
                time.sleep(0.02)


def run_quietly(*words: str) -> subprocess.CompletedProcess[str] | None:
    """A host tool's result, or None where the tool is not there or hangs."""
    path = shutil.which(words[0], path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if not path:
        return None
    try:
        return subprocess.run([path, *words[1:]], capture_output=True, text=True, check=False, timeout=20)
    except subprocess.TimeoutExpired:
        return None


def remove_network(config: DaemonConfig) -> None:
    """The bridges, the nft table, and the ACCEPT rules put into the host's firewall."""
    with contextlib.suppress(NftablesError):  # no libnftables: no table either
        Firewall(table_of(config.bridge, config.exec_root), ipv6=has_ipv6()).remove()
    made = set(owned(config.exec_root))  # bridges, and parents of macvlans
    for bridge in sorted(made | ({config.bridge} - {"", "none"})):
        close_forwarding(bridge)
        if bridge in made or Path(f"/sys/class/net/{bridge}/bridge").is_dir():
            with Netlink() as netlink:
                netlink.delete_link(bridge)


def going_down() -> bool:
    """Whether systemd is stopping the host."""
    result = run_quietly("systemctl", "is-system-running")
    return bool(result and result.stdout.strip() == "stopping")


def remove_directory(path: str) -> None:
    """A root of ours, wherever its name leads: containers may have made trees of any depth in it."""
    try:
        remove_path(os.path.realpath(path))
    except OSError as exc:
        say(f"remove {path}: {exc.strerror}")


def remove_state(config: DaemonConfig, verb: str) -> None:
    remove_directory(config.exec_root)
    for name in (config.pidfile, f"{config.pidfile}.lock"):
        Path(name).unlink(missing_ok=True)
    for host in config.hosts:
        if host.startswith("unix://"):
            Path(host.removeprefix("unix://")).unlink(missing_ok=True)
    if verb == "purge":
        remove_directory(config.data_root)


def run(verb: str, config: DaemonConfig) -> None:
    """One verb of the head's table on the engine the configuration names."""
    if verb == "host-shutdown" and not going_down():
        return
    answered = stop_by_api(config)
    if verb in ("containers", "host-shutdown"):
        if not answered:
            thaw(config)
            end(pids_in(cgroup_directories(config)) - helper_pids(config), GRACE)
        return
    steps = (end_processes, unmount, remove_network, remove_cgroups)
    for step in steps:
        try:
            step(config)
        except OSError as exc:  # one thing that cannot be removed is no reason to leave the others
            say(f"{step.__name__.replace('_', ' ')}: {exc}")
    remove_state(config, verb)


def entry() -> None:
    """The program `sampan-teardown`."""
    verb = sys.argv[1] if len(sys.argv) > 1 else ""
    if verb not in VERBS:
        print(__doc__)
        raise SystemExit(2)
    found = known(sys.argv[2:])
    if found.problem:
        print(f"sampan: {found.problem}\nsampan: going by the flags, and by what of the file can be read", file=sys.stderr, flush=True)
    if verb == "purge" and not found.places:
        run("stop", found.config)
        print("sampan: nothing is removed: it cannot be known where the data root is; mend the file, or give --data-root", file=sys.stderr)
        raise SystemExit(1)
    run(verb, found.config)


if __name__ == "__main__":
    entry()
