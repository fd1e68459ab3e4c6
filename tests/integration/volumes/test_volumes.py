"""Volumes by the real docker client: their life, who uses them, what is copied into them, what is removed and when."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.engine import Engine

pytestmark = pytest.mark.root

Ok = Callable[..., str]
SCRIPT = (
    "mkdir -p /data/sub /data/.hidden && echo one >/data/a && ln /data/a /data/hard && ln -s a /data/link && mkfifo /data/pipe "
    "&& echo two >/data/sub/b && chown 12:34 /data/sub/b && chmod 4711 /data/sub/b && chown 77:88 /data && chmod 2750 /data"
)
HAS = "cd /data && stat -c '%u:%g %a' . sub/b && cat a link sub/b && test -p pipe -a -d .hidden && stat -c %h a"
CONTENT = "77:88 2750\n12:34 4711\none\none\ntwo\n2"


@pytest.fixture(scope="module")
def image(live_engine: Engine, docker_path: str) -> str:
    """An image with files at /data, which it says is a VOLUME."""
    run = ["run", "--name", "volume-image", "busybox", "sh", "-c", SCRIPT]
    assert live_engine.run_client([docker_path], *run).returncode == 0
    done = live_engine.run_client([docker_path], "commit", "--change", "VOLUME /data", "--change", 'CMD ["true"]', "volume-image", "vol:1")
    assert done.returncode == 0, done.stderr
    return "vol:1"


def names(ok: Ok, *filters: str) -> list[str]:
    return sorted(ok("volume", "ls", "-q", *(word for text in filters for word in ("-f", text))).split())


def mounts_of(ok: Ok, container: str) -> dict[str, dict[str, object]]:
    return {one["Destination"]: one for one in json.loads(ok("inspect", "-f", "{{json .Mounts}}", container))}


def test_a_volumes_life(engine: Engine, ok: Ok, error: Callable[..., str]) -> None:
    assert ok("volume", "create", "--label", "a=b", "data") == "data"
    assert ok("volume", "create", "data") == "data"
    shown = json.loads(ok("volume", "inspect", "data"))[0]
    created = shown.pop("CreatedAt")
    assert created.endswith("Z")
    assert len(created) == 20
    path = f"{engine.data_root}/volumes/data/_data"
    assert shown == {"Driver": "local", "Labels": {"a": "b"}, "Mountpoint": path, "Name": "data", "Options": None, "Scope": "local"}
    assert os.stat(path).st_mode & 0o7777 == 0o755
    assert os.stat(os.path.dirname(os.path.dirname(path))).st_mode & 0o7777 == 0o701
    ok("run", "--name", "user", "-v", "data:/d", "busybox", "sh", "-c", "echo kept >/d/f")
    container = ok("inspect", "-f", "{{.Id}}", "user")
    for _ in range(2):
        assert error("volume", "rm", "data") == f"remove data: volume is in use - [{container}]"
        assert error("volume", "rm", "-f", "data") == f"remove data: volume is in use - [{container}]"
        engine.stop(9)
        engine.start()
    ok("rm", "user")
    assert ok("run", "--rm", "-v", "data:/d:ro", "busybox", "cat", "/d/f") == "kept"
    assert ok("volume", "rm", "data") == "data"
    assert not os.path.exists(os.path.dirname(path))
    assert error("volume", "rm", "data") == "get data: no such volume"
    assert ok("volume", "rm", "-f", "data") == "data"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["x"], "create x: volume name is too short, names should be at least two alphanumeric characters"),
        (["-d", "nope", "xx"], 'create xx: error looking up volume plugin nope: plugin "nope" not found'),
        (["-o", "odd=1", "xx"], 'create xx: invalid option: "odd"'),
        (["-o", "type=tmpfs", "xx"], 'create xx: missing required option: "device"'),
        (["-o", "size=1m", "xx"], "create xx: quota size requested but no quota support"),
        (["n" * 256], f"create {'n' * 256}: a volume name has at most 255 characters: file name too long"),
    ],
)
def test_what_is_no_volume(error: Callable[..., str], ok: Ok, args: list[str], words: str) -> None:
    assert error("volume", "create", *args) == words
    assert names(ok) == []


def test_other_options_conflict(ok: Ok, error: Callable[..., str]) -> None:
    options = ["-o", "type=tmpfs", "-o", "device=tmpfs"]
    ok("volume", "create", *options, "data")
    assert ok("volume", "create", *options, "data") == "data"
    assert ok("volume", "create", "data") == "data"
    words = "create data: volume name must be unique: volume 'data' exists with other options"
    assert error("volume", "create", *options, "-o", "o=size=1m", "data") == words
    assert error("run", "--mount", "type=volume,src=data,dst=/d,volume-opt=type=nfs,volume-opt=device=:/x", "busybox", "true") == words


def test_an_images_files_are_copied(ok: Ok, image: str) -> None:
    assert ok("run", "--rm", image, "sh", "-c", HAS) == CONTENT
    assert names(ok) == []
    assert ok("run", "--rm", "-v", "named:/data", image, "sh", "-c", HAS) == CONTENT
    assert ok("run", "--rm", "-v", "named:/x", image, "cat", "/x/a") == "one"
    ok("run", "--rm", "-v", "named:/data", image, "sh", "-c", "rm -r /data/* && echo mine >/data/mine && chown 5:6 /data")
    assert ok("run", "--rm", "-v", "named:/data", image, "sh", "-c", "ls /data; stat -c %u:%g /data") == "mine\n5:6"
    assert ok("run", "--rm", "-v", "other:/data:nocopy", image, "sh", "-c", "ls -A /data; stat -c %u:%g /data") == "0:0"
    assert ok("run", "--rm", "--mount", "type=volume,dst=/data,volume-nocopy", image, "ls", "-A", "/data") == ""
    assert names(ok) == ["named", "other"]


def test_a_file_is_no_place_for_a_volume(ok: Ok, error: Callable[..., str]) -> None:
    words = "cannot mount volume over existing file, file exists /etc/passwd"
    assert error("create", "-v", "/etc/passwd", "-v", "made:/m", "busybox") == words
    assert names(ok) == []
    assert ok("ps", "-aq") == ""


def test_a_create_that_fails_leaves_what_was_there(ok: Ok, error: Callable[..., str]) -> None:
    ok("volume", "create", "mine")
    ok("create", "--name", "taken", "busybox")
    assert "is already in use" in error("create", "--name", "taken", "-v", "mine:/m", "-v", "new:/n", "-v", "/anon", "busybox")
    assert names(ok) == ["mine"]


def test_which_volumes_go_with_a_container(ok: Ok, image: str) -> None:
    ok("run", "--name", "aa", "-v", "named:/n", "-v", "/anon", "--mount", "type=volume,dst=/m", image)
    mounts = mounts_of(ok, "aa")
    assert {place: one["Type"] for place, one in mounts.items()} == dict.fromkeys(("/n", "/anon", "/m", "/data"), "volume")
    anonymous = sorted(str(one["Name"]) for place, one in mounts.items() if place != "/n")
    assert names(ok, "label=com.docker.volume.anonymous") == anonymous
    # referred to by name they are named ones, whatever they were
    ok("create", "--name", "again", "-v", f"{mounts['/anon']['Name']}:/anon", "busybox")
    ok("create", "--name", "from", "--volumes-from", "aa", "busybox")
    ok("rm", "-v", "aa")
    assert names(ok) == sorted([*anonymous, "named"])
    ok("rm", "-v", "from")
    assert names(ok) == sorted([str(mounts["/anon"]["Name"]), "named"])
    ok("rm", "-v", "again")
    assert names(ok) == sorted([str(mounts["/anon"]["Name"]), "named"])
    ok("create", "--name", "bb", image)
    ok("rm", "bb")
    assert len(names(ok, "dangling=true")) == 3
    ok("run", "--rm", "-v", "/anon", "-v", "named:/n", image)
    assert len(names(ok)) == 3


def test_prune(engine: Engine, ok: Ok) -> None:
    for name, options in (("named", []), ("labelled", ["--label", "keep"]), ("mounted", ["-o", "type=tmpfs", "-o", "device=tmpfs"])):
        ok("volume", "create", *options, name)
    ok("create", "--name", "user", "-v", "/used", "busybox")
    used = str(mounts_of(ok, "user")["/used"]["Name"])
    anonymous = ok("volume", "create")
    Path(engine.data_root, "volumes", anonymous, "_data/f").write_bytes(b"x" * 1234)
    warning = "WARNING! This will remove {} not used by at least one container.\nAre you sure you want to continue? [y/N] "
    assert ok("volume", "prune", stdin=b"n\n") == warning.format("anonymous local volumes").rstrip("\n")
    answer = ok("volume", "prune", stdin=b"y\n")
    shown = warning.format("anonymous local volumes")
    assert answer == f"{shown}Deleted Volumes:\n{anonymous}\n\nTotal reclaimed space: 1.234kB"
    assert ok("volume", "prune", "-af", "--filter", "label!=keep") == "Deleted Volumes:\nnamed\n\nTotal reclaimed space: 0B"
    assert ok("volume", "prune", "-af", "--filter", "label=keep") == "Deleted Volumes:\nlabelled\n\nTotal reclaimed space: 0B"
    assert names(ok) == sorted(["mounted", used])
    ok("volume", "create", "named")
    assert engine.request("POST", "/v1.41/volumes/prune")[1] == {"VolumesDeleted": ["named"], "SpaceReclaimed": 0}


def test_filters(engine: Engine, ok: Ok) -> None:
    for name in ("one", "two", "three"):
        ok("volume", "create", "--label", f"n={name}", name)
    ok("create", "-v", "two:/t", "--name", "user", "busybox")
    assert names(ok, "name=t.*e") == ["three"]
    assert names(ok, "name=o") == ["one", "two"]
    assert names(ok, "dangling=true") == ["one", "three"]
    assert names(ok, "dangling=0") == ["two"]
    assert names(ok, "label=n=one", "label=n") == ["one"]
    assert names(ok, "driver=local", "label!=n=one") == ["three", "two"]
    assert names(ok, "driver=nfs") == []
    for value in ("two", "/t", f"{engine.data_root}/volumes/two/_data"):
        assert ok("ps", "-a", "-f", f"volume={value}", "--format", "{{.Names}}") == "user"
    assert ok("ps", "-aq", "-f", "volume=one") == ""


def test_what_is_shown(engine: Engine, ok: Ok, image: str) -> None:
    ok("create", "--name", "box", "-v", "named:/n:ro", "-v", "plain:/p", "-v", "/srv:/srv:ro", "--tmpfs", "/t",
       "--mount", "type=tmpfs,dst=/mt,readonly", "--mount", "type=image,src=busybox,dst=/i", image)  # fmt: skip
    root = f"{engine.data_root}/volumes"
    mounts = mounts_of(ok, "box")
    anonymous = str(mounts["/data"]["Name"])

    def volume(name: str, place: str, mode: str, rw: bool) -> dict[str, object]:
        return {"Type": "volume", "Name": name, "Source": f"{root}/{name}/_data", "Destination": place, "Driver": "local", "Mode": mode,
                "RW": rw, "Propagation": ""}  # fmt: skip

    assert mounts == {
        "/n": volume("named", "/n", "ro", False),
        "/p": volume("plain", "/p", "z", True),
        "/data": volume(anonymous, "/data", "", True),
        "/srv": {"Type": "bind", "Source": "/srv", "Destination": "/srv", "Mode": "ro", "RW": False, "Propagation": "rprivate"},
        "/mt": {"Type": "tmpfs", "Source": "", "Destination": "/mt", "Mode": "", "RW": False, "Propagation": ""},
        "/i": {"Type": "image", "Name": "busybox", "Source": mounts["/i"]["Source"], "Destination": "/i", "Mode": "", "RW": False,
               "Propagation": "rprivate"},
    }  # fmt: skip
    listed = ok("ps", "-a", "--format", "{{.Mounts}}|{{.LocalVolumes}}")
    assert set(listed.partition("|")[0].split(",")) == {"named", "plain", "/srv", "", "busybox", f"{anonymous[:14]}…"}
    assert listed.endswith("|3")


def test_volumes_of_others(ok: Ok, error: Callable[..., str], image: str) -> None:
    ok(
        "run",
        "--name",
        "first",
        "-v",
        "both:/both",
        "-v",
        "one:/one",
        "--tmpfs",
        "/t",
        image,
        "sh",
        "-c",
        "echo 1 >/both/f; echo 1 >/one/f",
    )
    ok("run", "--name", "second", "-v", "other:/both", "busybox", "sh", "-c", "echo 2 >/both/f")
    both = ["--volumes-from", "first", "--volumes-from", "second:ro"]
    script = "cat /both/f /one/f /data/a; touch /both/x 2>&1; touch /one/x; ls -d /t 2>&1; true"
    assert ok("run", "--rm", *both, "busybox", "sh", "-c", script).splitlines() == [
        "2", "1", "one", "touch: /both/x: Read-only file system", "ls: /t: No such file or directory"
    ]  # fmt: skip
    assert ok("run", "--rm", *both, "-v", "mine:/both", "busybox", "ls", "/both") == ""
    assert error("run", "--volumes-from", "nobody", "busybox", "true") == "No such container: nobody"
    assert error("run", "--volumes-from", "first:nocopy", "busybox", "true") == "invalid mode: nocopy"


def test_cp_sees_volumes_and_commit_does_not(engine: Engine, ok: Ok, error: Callable[..., str], tmp_path: Path, image: str) -> None:
    ok("create", "--name", "box", "-v", "named:/n", "-v", "ro:/ro:ro", image)
    (tmp_path / "f").write_text("from the host")
    ok("cp", str(tmp_path / "f"), "box:/n/f")
    assert Path(engine.data_root, "volumes/named/_data/f").read_text() == "from the host"
    ok("cp", "box:/data/sub", str(tmp_path / "got"))
    assert (tmp_path / "got/b").read_text() == "two\n"
    assert error("cp", str(tmp_path / "f"), "box:/ro/f") == "mounted volume is marked read-only"
    ok("start", "box")
    ok("wait", "box")
    ok("cp", "box:/n/f", str(tmp_path / "back"))
    assert (tmp_path / "back").read_text() == "from the host"
    ok("commit", "box", "vol:2")
    assert ok("run", "--rm", "-v", "empty:/n", "vol:2", "ls", "/n") == ""
    assert not [line for line in ok("diff", "box").splitlines() if line[2:] not in ("/n", "/ro", "/data")]


def test_events(engine: Engine, ok: Ok) -> None:
    since = engine.request("GET", "/info")[1]["SystemTime"]
    ok("run", "--name", "box", "-v", "named:/n:ro", "-v", "/anon", "busybox", "true")
    container = ok("inspect", "-f", "{{.Id}}", "box")
    anonymous = str(mounts_of(ok, "box")["/anon"]["Name"])
    ok("rm", "-v", "box")
    ok("volume", "rm", "named")
    ok("volume", "prune", "-f")
    until = engine.request("GET", "/info")[1]["SystemTime"]
    lines = ok("events", "--since", since, "--until", until, "-f", "type=volume", "-f", "type=container", "--format", "{{json .}}")
    found = [(event["Type"], event["Action"], event["Actor"]) for event in map(json.loads, lines.splitlines())]
    order = [action for kind, action, _ in found if kind == "container" or action != "create"]
    wanted = ["create", "attach", "mount", "mount", "start", "unmount", "unmount", "die", "destroy", "destroy", "destroy", "prune"]
    assert order == wanted, found
    volumes = [(action, actor["ID"], actor["Attributes"]) for kind, action, actor in found if kind == "volume"]
    driver = {"driver": "local"}
    mount = {"container": container, "driver": "local", "propagation": ""}
    assert volumes == [
        ("create", "named", driver),
        ("create", anonymous, driver),
        ("mount", "named", {**mount, "destination": "/n", "read/write": "false"}),
        ("mount", anonymous, {**mount, "destination": "/anon", "read/write": "true"}),
        ("unmount", "named", {"container": container, **driver}),
        ("unmount", anonymous, {"container": container, **driver}),
        ("destroy", anonymous, driver),
        ("destroy", "named", driver),
        ("prune", "", {"reclaimed": "0"}),
    ]


def test_disk_usage(engine: Engine, ok: Ok) -> None:
    engine.request("POST", "/build/prune?all=1")  # of other tests
    ok("run", "--name", "box", "-v", "used:/u", "busybox", "sh", "-c", "head -c 5000 /dev/zero >/u/f; ln /u/f /u/g")
    ok("volume", "create", "free")
    Path(engine.data_root, "volumes/free/_data/f").write_bytes(b"x" * 3000)
    ok("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "mounted")
    usage = {one["Name"]: one["UsageData"] for one in engine.request("GET", "/system/df?type=volume")[1]["Volumes"]}
    assert usage == {"used": {"RefCount": 1, "Size": 5000}, "free": {"RefCount": 0, "Size": 3000}}
    rows = [line.split() for line in ok("system", "df").splitlines()]
    assert rows[3] == ["Local", "Volumes", "2", "1", "8kB", "3kB", "(37%)"]
    verbose = ok("system", "df", "-v").partition("Local Volumes space usage:\n\n")[2].partition("\n\n")[0]
    assert [line.split() for line in verbose.splitlines()] == [
        ["VOLUME", "NAME", "LINKS", "SIZE"],
        ["free", "0", "3kB"],
        ["used", "1", "5kB"],
    ]
    assert engine.request("GET", "/system/df?type=nope") == (400, {"message": "unknown object type: nope"})
    assert ok("system", "df", "--format", "{{.Type}} {{.TotalCount}}").splitlines()[2:] == ["Local Volumes 2", "Build Cache 0"]
