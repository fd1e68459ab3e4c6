"""Seeded requests for a live engine: well-shaped ones with odd values, so that they reach create, start, exec and logs, and broken framing.

What they run is harmless wherever it runs: containers with the host's namespaces and every privilege are among them.
"""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

NAMES = [f"fuzz{number}" for number in range(8)]
ODD_NAMES = ["nope", "", "a" * 300, "..", "%2e%2e", "%00", "%ff", "x%2Fy", "é", "%0a", "-1", "sha256:" + "0" * 64, "fuzz"]
COMMANDS: list[Any] = [
    ["true"], ["sh", "-c", "echo out; echo err >&2; exit 3"], ["sleep", "60"], ["cat"], ["sh", "-c", "yes | head -c 300000"], ["nope"],
    [""], [],
    None, "true", ["/"], ["/etc/passwd"], ["sh", "-c", "trap 'exit 4' TERM; sleep 60 & wait"], ["\x00"], ["sh", "-c", "kill -9 $$"],
    ["sh", "-c", "printf '\\377\\0x'; sleep 1"], ["a" * 5000], ["true", "x" * 200_000],
]  # fmt: skip
SIGNALS = ["", "9", "KILL", "SIGTERM", "sigusr1", "0", "-1", "64", "65", "RTMIN+3", "nope", "SIGKILL ", "99999999999"]
NUMBERS = [0, 1, -1, 2, 4096, 65536, 6 << 20, 1 << 31, (1 << 63) - 1, -(1 << 63)]
PATHS = [
    "/",
    "/x",
    "x",
    "",
    ".",
    "..",
    "/../..",
    "/proc",
    "/proc/self",
    "/dev/null",
    "/etc/hosts",
    "/x\x00y",
    "/" + "d" * 300,
    "/é\n",
    "/a//b/../c",
]
TIMES = ["", "0", "1.5", "-1", "9999999999", "1700000000.000000001", "x", "99999999999999999999", "1.x", "0.9999999999999"]
FILTERS = [
    "", "{", "[]", "null", '{"status":["running"]}', '{"status":["nope"]}', '{"status":{"exited":true}}', '{"exited":["x"]}',
    '{"exited":["0","137"]}',
    '{"name":["["]}', '{"name":["fuzz"]}', '{"id":["^0"]}', '{"label":["a","a=b"]}', '{"before":["fuzz1"]}', '{"since":["nope"]}',
    '{"ancestor":["busybox","\\u0000"]}',
    '{"publish":["80","x/y","1-70000"]}', '{"expose":["80/tcp"]}', '{"volume":["/x"]}', '{"network":["bridge"]}',
    '{"health":["none","x"]}', '{"is-task":["2"]}',
    '{"until":["1h","x"]}', '{"until":["inf"]}', '{"until":["nan"]}', '{"until":["0001-01-01T00:00:00Z"]}',
    '{"publish":["1-99999999999999"]}', '{"until":["10m","5m"]}', '{"dangling":["maybe"]}', '{"reference":["*","[","a/b:c@d"]}',
    '{"label!":["x"]}', '{"type":["container"],"event":["die"]}',
    '{"a":{"b":1}}', '{"nope":["x"]}', '{"status":null}', '{"driver":["bridge"],"scope":["local"],"dangling":["1"]}',
]  # fmt: skip
KEYS = ["", "ctrl-a", "ctrl-p,ctrl-q", "a,b,c", "ctrl-", "ctrl-é", "x" * 20, "ctrl-a,,b", "\x00"]
SUFFIXES = ["", ":ro", ":z", ":nope", ":ro,rw", ":rshared"]
PROFILE = "seccomp=" + json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["nope"], "action": "SCMP_ACT_ERRNO"}]})
VERSIONS = ["", "", "", "/v1.24", "/v1.35", "/v1.41", "/v1.43", "/v1.51", "/v1.52", "/v1.23", "/v9"]


def _some(rng: random.Random, values: list[Any], most: int = 3) -> list[Any]:
    return [rng.choice(values) for _ in range(rng.randrange(most + 1))]


def _fields(rng: random.Random, root: Path) -> dict[str, Callable[[], Any]]:
    """HostConfig fields and a value of each. No value can hurt the machine: only paths below root are made, only limits are odd."""

    def number() -> int:
        return rng.choice(NUMBERS)

    def text() -> str:
        return rng.choice(["", "x", "\x00", "é", "0", "-1", "a=b", ":", "/", "host", "none"])

    def container() -> str:
        return "container:" + rng.choice([*NAMES, "nope", "", "../x"])

    def modes(*more: str) -> Callable[[], str]:
        return lambda: rng.choice(["", *more, "host", "private", "none", "nope", container()])

    def device() -> dict[str, str]:
        host = rng.choice(["/dev/null", "/dev/nope", "/etc/hostname", "", "null"])
        return {"PathOnHost": host, "PathInContainer": rng.choice(PATHS), "CgroupPermissions": rng.choice(["rwm", "", "x", "r"])}

    def mount() -> dict[str, Any]:
        kind = rng.choice(["bind", "tmpfs", "volume", "image", "npipe", "", "x"])
        more = rng.choice(["BindOptions", "TmpfsOptions", "VolumeOptions", "x"])
        options: list[Any] = [
            None, {}, {"Propagation": "rshared"}, {"Propagation": "nope"}, {"CreateMountpoint": True}, {"SizeBytes": number(),
            "Mode": 0o7777},
            {"ReadOnlyForceRecursive": True}, {"NonRecursive": True}, {"Subpath": "../x"}, {"Options": [["noexec"], ["nope", "x"]]},
        ]  # fmt: skip
        asked: dict[str, Any] = {"Type": kind, "Source": rng.choice(places), "Target": rng.choice(PATHS), "ReadOnly": rng.random() < 0.5}
        return asked | {more: rng.choice(options)}

    def port() -> dict[str, str]:
        host = rng.choice(["", "127.0.0.1", "0.0.0.0", "::1", "300.1.1.1", "192.0.2.7"])
        return {"HostIp": host, "HostPort": rng.choice(["", "0", "x", "70000", "-1", "5-1", "0-0"])}

    places = [f"{root}/made{number}" for number in range(3)] + [f"{root}/file", "relative", "", "/etc/hostname", "named", "/proc/self/fd/0"]
    return {
        "Binds": lambda: _some(rng, [f"{place}:{rng.choice(PATHS)}{rng.choice(SUFFIXES)}" for place in places]),
        "Mounts": lambda: [mount() for _ in range(rng.randrange(3))],
        "Tmpfs": lambda: {rng.choice(PATHS): rng.choice(["", "size=1m", "mode=1777,noexec", "nope", "size=x", "uid=0"]) for _ in range(2)},
        "Memory": number, "MemorySwap": number, "MemoryReservation": number, "MemorySwappiness": lambda: rng.choice([0, 60, 101, -1,
        None]), "NanoCpus": number,
        "CpuShares": number, "CpuPeriod": number, "CpuQuota": number, "CpusetCpus": lambda: rng.choice(["0", "0-1", "99", "x", "0,,1",
        "1-0", ""]),
        "CpusetMems": lambda: rng.choice(["0", "7", "x"]), "PidsLimit": lambda: rng.choice([0, -1, 1, 100, None, 1 << 40]),
        "BlkioWeight": lambda: rng.choice([0, 10, 5, 1000, 1001]),
        "OomKillDisable": lambda: rng.choice([True, False, None]), "OomScoreAdj": lambda: rng.choice([0, 1000, -1000, 1001, -1001, 500]),
        "ShmSize": number,
        "CgroupParent": lambda: rng.choice(["fuzzparent", "/fuzz/a", "../up", "", "x.slice", "a\x00b", "a" * 300]),
        "Ulimits": lambda: [{"Name": rng.choice(["nofile", "nproc", "core", "nope", ""]), "Soft": rng.choice(NUMBERS),
        "Hard": rng.choice(NUMBERS)}],
        "Devices": lambda: [device()], "DeviceCgroupRules": lambda: _some(rng, ["c 1:3 rwm", "x", "a *:* rwm", "c 1:* r", ""]),
        "DeviceRequests": lambda: rng.choice([[], [{"Count": -1, "Capabilities": [["gpu"]]}]]),
        "CapAdd": lambda: _some(rng, ["ALL", "NET_ADMIN", "CAP_CHOWN", "nope", "", "sys_ptrace"]), "CapDrop": lambda: _some(rng, ["ALL",
        "CHOWN", "nope", "MKNOD"]),
        "SecurityOpt": lambda: _some(rng, ["no-new-privileges", "seccomp=unconfined", "seccomp={}", "seccomp=[", "apparmor=x",
        "label=disable", "nope", "systempaths=unconfined",
                                           PROFILE, "no-new-privileges:false", ""], 2),
        "Privileged": lambda: rng.random() < 0.3, "ReadonlyRootfs": lambda: rng.random() < 0.7, "AutoRemove": lambda: rng.random() < 0.5,
        "Init": lambda: rng.choice([True, False, None]),
        "NetworkMode": modes("bridge", "default", "nope"), "PidMode": modes(), "IpcMode": modes("shareable"), "UTSMode": modes(),
        "UsernsMode": modes(), "CgroupnsMode": modes(),
        "PortBindings": lambda: {rng.choice(["80/tcp", "80", "53/udp", "x", "0/tcp", "70000/tcp", "80-82/tcp",
        "9/sctp"]): rng.choice([None, [], [port()], [port(), port()]])},
        "PublishAllPorts": lambda: rng.random() < 0.5, "Dns": lambda: _some(rng, ["127.0.0.53", "x", "::1", ""]),
        "DnsSearch": lambda: _some(rng, [".", "a.b", "a b"]),
        "ExtraHosts": lambda: _some(rng, ["a:127.0.0.1", "a:host-gateway", "x", "a:", "a:1.2.3", "b\n:127.0.0.1"]),
        "Links": lambda: _some(rng, ["fuzz1:x", "nope", "fuzz2"], 1),
        "VolumesFrom": lambda: _some(rng, ["fuzz1", "nope:ro", "fuzz2:x"], 1), "GroupAdd": lambda: _some(rng, ["0", "nope", "1000", "-1",
        "99999999999"]),
        "RestartPolicy": lambda: {"Name": rng.choice(["", "no", "always", "on-failure", "unless-stopped", "x"]),
        "MaximumRetryCount": rng.choice([0, 2, -1])},
        "LogConfig": lambda: {"Type": rng.choice(["", "local", "json-file", "none", "nope", "syslog"]),
                              "Config": rng.choice([None, {}, {"max-size": "1k", "max-file": "2"}, {"max-size": "x"}, {"nope": "x"},
                              {"max-file": "0"}, {"mode": "non-blocking"}])},
        "Sysctls": lambda: rng.choice([{"net.ipv4.ip_default_ttl": "64"}, {"nope": "1"}, {"": ""}, {"kernel.shm_rmid_forced": "0"},
        {"net/../x": "1"}, {"net.nope": "1"}]),
        "StorageOpt": lambda: {"size": "1g"}, "Runtime": lambda: rng.choice(["", "runc", "nope"]), "Isolation": lambda: rng.choice(["",
        "default", "hyperv"]), "VolumeDriver": text,
        "ConsoleSize": lambda: rng.choice([[0, 0], [24, 80], [1], [-1, 2], [70000, 70000]]), "Annotations": lambda: {text(): text()},
        "MaskedPaths": lambda: rng.choice([None, [], PATHS[:4], PATHS[4:]]), "ReadonlyPaths": lambda: rng.choice([None, [], PATHS[:4],
        PATHS[4:]]),
    }  # fmt: skip


def create_body(rng: random.Random, root: Path) -> dict[str, Any]:
    """A body of /containers/create: right types, odd values."""
    fields = _fields(rng, root)
    host = {name: fields[name]() for name in rng.sample(sorted(fields), rng.choice([0, 1, 1, 2, 4]))}
    body: dict[str, Any] = {
        "Image": rng.choice(["busybox"] * 12 + ["nope", "", "busybox:x", "BUSYBOX", "busybox@sha256:" + "0" * 64]),
        "Cmd": rng.choice(COMMANDS[:5] * 3 + COMMANDS),
    }
    body["HostConfig"] = host
    more: dict[str, Any] = {
        "Tty": rng.random() < 0.5, "OpenStdin": True, "StdinOnce": True, "AttachStdin": True, "User": rng.choice(["0", "nobody", "nope",
        "1:2", "-1", "4294967296", ":", "é", "a:b:c"]),
        "WorkingDir": rng.choice(PATHS), "Env": _some(rng, ["A=b", "A", "=x", "", "A=\x00", "PATH=", "HOME=/x"]),
        "Entrypoint": rng.choice(COMMANDS), "Hostname": rng.choice(["h", "a" * 70, "-", "é", "a.b"]),
        "Domainname": "d", "ExposedPorts": rng.choice([{"80/tcp": {}}, {"x": {}}, {"": {}}, {"1-65535/tcp": {}}]),
        "Labels": rng.choice([{"a": "b"}, {"": ""}, {"é": "\x00"}]),
        "StopSignal": rng.choice(SIGNALS), "StopTimeout": rng.choice([0, 1, -1, 2, None]), "Volumes": {rng.choice(PATHS): {}},
        "MacAddress": rng.choice(["x", "02:42:ac:11:00:02"]),
        "NetworkDisabled": True, "Healthcheck": rng.choice([{"Test": ["NONE"]}, {"Test": ["CMD", "true"], "Interval": 1}, {"Test": ["x"]},
        {"Interval": -1}]), "Shell": ["x"],
        "NetworkingConfig": {"EndpointsConfig": rng.choice([{}, {"nope": {}}, {"bridge": {"IPAMConfig": {"IPv4Address": "1.2.3.4"}}},
        {"bridge": None, "host": {}}, {"bridge": {"Aliases": ["a"]}}])},
    }  # fmt: skip
    return body | {name: more[name] for name in rng.sample(sorted(more), rng.choice([0, 0, 1, 2]))}


def exec_body(rng: random.Random) -> dict[str, Any]:
    """A body of /containers/ID/exec."""
    return {
        "Cmd": rng.choice(COMMANDS), "AttachStdin": rng.random() < 0.5, "AttachStdout": True, "AttachStderr": rng.random() < 0.5,
        "Tty": rng.random() < 0.3,
        "Detach": rng.random() < 0.3, "User": rng.choice(["", "", "nope", "1:1", "é"]), "WorkingDir": rng.choice(["", "", *PATHS]),
        "Privileged": rng.random() < 0.2,
        "Env": rng.choice([None, [], ["A"], ["=", "\x00"]]), "DetachKeys": rng.choice(KEYS), "ConsoleSize": rng.choice([None, [24, 80],
        [0, 0], [70000, 1]]),
    }  # fmt: skip


class Request:
    """The bytes of one request; `stream`: its answer may last as long as the client stays."""

    def __init__(
        self, method: str, path: str, query: dict[str, Any] | None = None, body: Any = None, *, stream: bool = False, extra: str = ""
    ) -> None:
        data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        target = quote(path, safe="/%:@") + ("?" + urlencode(query) if query else "")
        kind = "Content-Type: application/json\r\n" if body is not None else ""
        self.data = f"{method} {target} HTTP/1.1\r\nHost: d\r\n{kind}{extra}Content-Length: {len(data)}\r\n\r\n".encode() + data
        self.stream = stream


UPGRADE = "Connection: Upgrade\r\nUpgrade: tcp\r\n"


def shaped(rng: random.Random, root: Path, execs: list[str]) -> Request:
    """One well-framed request of the life of containers and images. execs: IDs of execs made so far."""
    version = rng.choice(VERSIONS)
    name = rng.choice(NAMES) if rng.random() < 0.93 else rng.choice(ODD_NAMES)
    at = f"{version}/containers/{name}"
    exec_at = f"{version}/exec/{rng.choice(execs[-20:] or ['nope'])}"
    upgrade = rng.choice([UPGRADE, UPGRADE, ""])

    def flag() -> str:
        return rng.choice(["1", "0", "true", "x"])

    def streams() -> dict[str, Any]:
        return {key: flag() for key in rng.sample(["stdin", "stdout", "stderr", "stream", "logs"], 3)}

    image = rng.choice(["busybox", "fuzz", "fuzz:a", "nope", "a/b/c", "é", "sha256:00", "%2e%2e/x", "A:B"])
    makers: list[tuple[int, Callable[[], Request]]] = [
        (20, lambda: Request("POST", f"{version}/containers/create", {"name": name}, create_body(rng, root))),
        (20, lambda: Request("POST", f"{at}/start", stream=True)),
        (8, lambda: Request("DELETE", at, {"force": flag(), "v": flag()})),
        (3, lambda: Request("POST", f"{at}/stop", {"t": rng.choice([0, 1, "", "x", -1]), "signal": rng.choice(SIGNALS)}, stream=True)),
        (2, lambda: Request("POST", f"{at}/restart", {"t": 0}, stream=True)),
        (4, lambda: Request("POST", f"{at}/kill", {"signal": rng.choice(SIGNALS)})),
        (3, lambda: Request("POST", f"{at}/{rng.choice(['pause', 'unpause'])}")),
        (2, lambda: Request("POST", f"{at}/rename", {"name": rng.choice([*NAMES, *ODD_NAMES])})),
        (3, lambda: Request("POST", f"{at}/resize", {"h": rng.choice([24, -1, "x", 70000, 0]), "w": 80})),
        (4, lambda: Request("POST", f"{at}/wait", {"condition": rng.choice(["", "next-exit", "removed", "not-running", "x"])},
        stream=True)),
        (4, lambda: Request("GET", f"{at}/top", {"ps_args": rng.choice(["", "aux", "-o pid", "-o nope", "--help", "'", "-ef; true",
        "\x00"])})),
        (5, lambda: Request("GET", f"{at}/json", {"size": flag()})),
        (8, lambda: Request("GET", f"{at}/logs", {"stdout": "1", "stderr": flag(), "follow": rng.choice("001"), "tail": rng.choice(["",
        "all", "0", "5", "-1", "x", "9" * 30]),
                                                  "since": rng.choice(TIMES), "until": rng.choice(TIMES), "timestamps": flag(),
                                                  "details": flag()}, stream=True)),
        (6, lambda: Request("POST", f"{at}/attach", {**streams(), "detachKeys": rng.choice(KEYS)}, stream=True, extra=upgrade)),
        (8, lambda: Request("POST", f"{at}/exec", None, exec_body(rng))),
        (8, lambda: Request("POST", f"{exec_at}/start", None, {"Detach": rng.random() < 0.4, "Tty": rng.random() < 0.2,
        "ConsoleSize": rng.choice([None, [1, 1], [0, 70000]])},
                            stream=True, extra=upgrade)),
        (3, lambda: Request("GET", f"{exec_at}/json")),
        (2, lambda: Request("POST", f"{exec_at}/resize", {"h": rng.choice([24, "x", 99999]), "w": 80})),
        (5, lambda: Request("GET", f"{version}/containers/json", {"all": flag(), "limit": rng.choice([0, 3, -1, "x"]), "size": flag(),
        "filters": rng.choice(FILTERS)})),
        (3, lambda: Request("GET", f"{version}/images/json", {"all": flag(), "filters": rng.choice(FILTERS)})),
        (2, lambda: Request("GET", f"{version}/{rng.choice(['networks', 'volumes', 'info', 'version', '_ping', 'system/df', 'plugins'])}",
        {"filters": rng.choice(FILTERS)})),
        (2, lambda: Request("GET", f"{version}/events", {"since": rng.choice(TIMES), "until": rng.choice(TIMES),
        "filters": rng.choice(FILTERS)}, stream=True)),
        (1, lambda: Request("POST", f"{version}/containers/prune", {"filters": rng.choice(FILTERS)})),
        (3, lambda: Request("GET", f"{version}/images/{image}/{rng.choice(['json', 'history'])}")),
        (3, lambda: Request("POST", f"{version}/images/busybox/tag", {"repo": rng.choice(["fuzz", "a/b/c", "A", "", "é", "x" * 300]),
        "tag": rng.choice(["", "a", "é", "a" * 200])})),
        (2, lambda: Request("DELETE", f"{version}/images/{image if image != 'busybox' else 'fuzz'}", {"force": flag(), "noprune": flag()})),
        (2, lambda: Request("POST", f"{version}/images/create", {"fromSrc": "-", "repo": "fuzz", "changes": rng.choice(["", "CMD x",
        "NOPE", "ENV", "USER\x00", "LABEL a=b"])},
                            rng.choice([b"", b"x", b"\0" * 1024, bytes(rng.randrange(256) for _ in range(2048))]), stream=True)),
    ]  # fmt: skip
    return rng.choices([make for _, make in makers], [weight for weight, _ in makers])[0]()


def abuse(rng: random.Random) -> bytes:
    """A request whose framing is broken, huge, pipelined or cut off."""
    ping = b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n"
    chunked = b"POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    head = b"POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\n"
    return rng.choice(
        [
            ping * rng.choice([2, 50]), ping + b"x" * 30, ping[:-2], ping[: rng.randrange(len(ping))], b"\r\n" * rng.randrange(1, 9) + ping,
            chunked + b"x\r\n", chunked + b"-1\r\n\r\n", chunked + b"5\r\n{}\r\n0\r\n\r\n", chunked + b"ffffffffffffffffff\r\n{}",
            chunked + b"2;" + b"e" * 70000 + b"\r\n{}",
            chunked + b"2\r\n{}\r\n0\r\nTrailer: x\r\n\r\n", chunked + b"2\r\n{}0\r\n\r\n", chunked + b"1\r\n{\r\n" * 50,
            chunked + b"2\n{}\n0\n\n",
            head + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", head + b"Content-Length: -1\r\n\r\n",
            head + b"Content-Length: 99999999999999999999\r\n\r\n{}",
            head + b"Content-Length: 10\r\n\r\n{}", head + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
            head + b"Content-Length: 2\r\n\r\n{}{}{}" + ping,
            head + b"X: " + b"x" * rng.choice([1000, 70_000, 2_000_000]) + b"\r\n\r\n", head + b"A: b\r\n" * rng.choice([50,
            20_000]) + b"\r\n",
            b"GET /" + b"a" * rng.choice([5000, 100_000]) + b" HTTP/1.1\r\nHost: d\r\n\r\n", b"GET /_ping HTTP/9.9\r\n\r\n",
            b"GET /_ping\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET  /_ping HTTP/1.1\r\n\r\n", b"GET /_ping HTTP/1.0\r\n\r\n", b"\x00" * 100,
            b"GET /_ping HTTP/1.1\r\nA\x00: b\r\n\r\n",
            head + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n{}",
            b"POST /containers/fuzz1/attach?stream=1&stdin=1 HTTP/1.1\r\nHost: d\r\n" + UPGRADE.encode() + b"\r\nearly",
        ]
    )  # fmt: skip
