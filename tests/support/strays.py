"""What is left of containers that are gone: the whole machine is searched, no record of the engine is believed."""

import fcntl
import os
import re
import socket
import struct
import subprocess
import time
from pathlib import Path
from typing import Any

from sampan.runtime.protocol import Channel
from tests.support.engine import Engine

COMPLAINT = re.compile(r"^[\w.]*(Error|Exception)\b|background work failed|never retrieved|in the handler of")
FLOCK = "hhqqi4x"
"""struct flock: type, whence, start, length, pid."""
ID = re.compile(r"[0-9a-f]{64}")


def pid_of(engine: Engine, role: str) -> int | None:
    """The process of a role: sampand, keeper or supervisor. Of the lean ones it is the lock that tells: their children look the same."""
    if role == "sampand":
        return engine.pid
    try:
        with open(f"{engine.exec_root}/{role}.lock", "r+b") as file:
            found = fcntl.fcntl(file, fcntl.F_GETLK, struct.pack(FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    except FileNotFoundError:
        return None
    kind, _, _, _, pid = struct.unpack(FLOCK, found)
    return None if kind == fcntl.F_UNLCK else int(pid)


def ask(engine: Engine, role: str, message: dict[str, Any]) -> dict[str, Any]:
    """One request to keeper or supervisor. Raises OSError, ChannelClosed when it is just being killed."""
    channel = Channel(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
    deadline = time.monotonic() + 60
    try:
        channel.sock.connect(f"{engine.exec_root}/{role}.sock")
        channel.send({**message, "seq": 1})
        while time.monotonic() < deadline:
            received = channel.recv()
            if received is not None and received[0].get("re") == 1:
                return received[0]
            time.sleep(0.002)
    finally:
        channel.close()
    raise AssertionError(f"{role} does not answer")


def ids_in(directory: Path | str) -> set[str]:
    """Entries that are named like a container."""
    try:
        return {name for name in os.listdir(directory) if ID.fullmatch(name)}
    except FileNotFoundError:
        return set()


def cgroups_of(engine: Engine) -> dict[str, list[int]]:
    """Containers' cgroups by container, with the processes in them."""
    found: dict[str, list[int]] = {}
    for directory in engine.cgroups():
        name = next((part for part in directory.split("/") if ID.fullmatch(part)), None)
        if name is not None:
            try:
                pids = [int(word) for word in Path(directory, "cgroup.procs").read_text().split()]
            except OSError:
                continue
            found[name] = sorted({*found.get(name, []), *pids})
    return found


def elements(engine: Engine) -> list[str]:
    """Published ports in the engine's nft table."""
    table = f"sampan_{engine.bridge}"
    text = subprocess.run(["nft", "list", "table", "ip", table], capture_output=True, text=True, timeout=30, check=False).stdout
    return [
        line.strip()
        for part in re.split(r"\n\t(?=set|map|chain)", text)
        if part.startswith("map")
        for line in part.splitlines()
        if " : " in line and "type" not in line
    ]


def ports_of(engine: Engine) -> list[str]:
    """The veths on the engine's bridge."""
    try:
        return os.listdir(f"/sys/class/net/{engine.bridge}/brif")
    except FileNotFoundError:
        return []


def zombies(engine: Engine) -> list[str]:
    """Ended children that nobody has reaped, of any of our three processes."""
    parents = {pid_of(engine, role) for role in ("sampand", "keeper", "supervisor")}
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            try:
                name, _, rest = Path(f"/proc/{entry}/stat").read_text().rpartition(")")
            except OSError:
                continue
            if rest.split()[0] == "Z" and int(rest.split()[1]) in parents:
                found.append(f"{name})")
    return found


def net_namespaces(engine: Engine) -> list[str]:
    """Network namespaces that our three processes hold open: nothing else keeps one without a process."""
    found = []
    for role in ("sampand", "keeper", "supervisor"):
        directory = f"/proc/{pid_of(engine, role)}/fd"
        for fd in os.listdir(directory):
            try:
                target = os.readlink(f"{directory}/{fd}")
            except OSError:
                continue
            if target.startswith("net:"):
                found.append(f"{role} {target}")
    return found


def strays(engine: Engine) -> dict[str, Any]:
    """Whatever belongs to no container of the engine's own list, by kind; empty when all is well."""
    listed = engine.request("GET", "/containers/json?all=1")[1]
    known = {item["Id"] for item in listed}
    running = {item["Id"] for item in listed if item["State"] in ("running", "paused")}
    endpoints = sum("bridge" in item["NetworkSettings"]["Networks"] for item in listed if item["Id"] in running)
    groups = cgroups_of(engine)
    keys = {proc["key"] for proc in ask(engine, "supervisor", {"op": "list"})["procs"]}
    keys |= {stream["key"] for stream in ask(engine, "keeper", {"op": "hello"})["streams"]}
    found = {
        "mounts": [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(engine.data_root) in line],
        "directories": sorted(ids_in(engine.data_root / "containers") ^ known),
        "trees": sorted(ids_in(engine.data_root / "overlay/c") ^ known),
        "cgroups": sorted(set(groups) ^ running),
        "known to an OCI runtime": sorted(ids_in(engine.exec_root / "runtimes") - running),
        "running without a process": sorted(name for name in running if not groups.get(name)),
        "runs held by keeper or supervisor": sorted(key for key in keys if "." in key and key.partition(".")[0] not in running),
        "veths": sorted(ports_of(engine)) if len(ports_of(engine)) != endpoints else [],
        "nft elements": elements(engine) if not running else [],
        "network namespaces": net_namespaces(engine) if not running else [],
        "zombies": zombies(engine),
        "system check": engine.findings(),
    }
    return {kind: what for kind, what in found.items() if what}


def complaints(engine: Engine) -> list[str]:
    """Lines of our processes' logs that tell of a failure nobody foresaw."""
    found = []
    for path in (engine.log, engine.exec_root / "keeper.log", engine.exec_root / "supervisor.log"):
        lines = path.read_text(errors="replace").splitlines() if path.exists() else []
        found += [line for line in lines if COMPLAINT.search(line)]
    return found


def wait_for_none(engine: Engine, seconds: float = 30) -> None:
    """Assert that there are no strays, in time: the end of a run goes on after its client was told."""
    deadline = time.monotonic() + seconds
    while found := strays(engine):
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
