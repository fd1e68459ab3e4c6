"""Another version of Sampan in the place of one whose containers run: they notice nothing, and are this version's from then on."""

import os
import pty
import shutil
import signal
import sqlite3
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.engine import START, Engine
from tests.support.strays import ask, complaints, pid_of, wait_for_none

pytestmark = pytest.mark.root

REPO = Path(__file__).resolve().parents[3]
OLD = "0a01044e"
"""The last commit with schema 5: no networks of users' own, no build cache, no version said by keeper and supervisor."""
LEAN = ("keeper", "supervisor")
WRITER = "trap 'exit 7' TERM; i=0; while :; do echo line $i; i=$((i+1)); sleep 0.02; done"
ECHO = "while read line; do echo got $line; done; exit 5"
DEADLINE_SECONDS = 60.0

Docker = Callable[..., str]


def client(engine: Engine, docker_path: str) -> Docker:
    """The docker client; its output. A failure fails the test."""

    def docker(*words: str) -> str:
        done = engine.run_client([docker_path], *words)
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout.strip()

    return docker


def wait_for(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def processes(engine: Engine, names: list[str]) -> dict[str, tuple[Any, ...]]:
    """What must not change of running containers."""
    found = {}
    for name in names:
        state = engine.request("GET", f"/containers/{name}/json")[1]
        found[name] = (state["Id"], state["State"]["Pid"], state["State"]["StartedAt"], state["RestartCount"])
    return found


def start_containers(docker: Docker) -> list[str]:
    """One of each kind, each with something to be asked of it afterwards."""
    docker("run", "-d", "--name=writer", "--restart=always", "busybox", "sh", "-c", WRITER)
    docker(
        "run", "-d", "--name=web", "-p", "127.0.0.1::80", "-v", "kept:/www", "busybox", "sh", "-c", "echo hello > /www/x; httpd -f -h /www"
    )
    docker("run", "-dit", "--name=terminal", "busybox", "sh", "-c", ECHO)
    docker("run", "-di", "--name=piped", "busybox", "sh", "-c", "read line; echo got $line; exit 5")
    docker("run", "-d", "--name=init", "--init", "--restart=on-failure", "busybox", "sleep", "100000")
    docker("run", "-d", "--name=json", "--log-driver=json-file", "busybox", "sh", "-c", WRITER)
    docker("create", "--name=created", "busybox", "echo", "it was not started")
    return ["writer", "web", "terminal", "piped", "init", "json"]


def lines(docker: Docker, name: str) -> int:
    """The log is line 0, line 1, ...; how many."""
    found = docker("logs", name).splitlines()
    assert found == [f"line {number}" for number in range(len(found))], (name, found[:3], found[-3:])
    return len(found)


def check_containers(engine: Engine, docker: Docker, docker_path: str) -> None:
    """Logs, exec, ports, volumes, attach, stop, restart policy."""
    for name in ("writer", "json"):
        before = lines(docker, name)
        wait_for(lambda name=name, before=before: lines(docker, name) > before, name)  # type: ignore[misc]
    port = docker("port", "web", "80").rpartition(":")[2]
    fetch = ["curl", "-fsS", "--noproxy", "*", "--max-time", "5", f"http://127.0.0.1:{port}/x"]
    assert subprocess.run(fetch, capture_output=True, text=True, timeout=30, check=False).stdout == "hello\n"
    assert docker("run", "--rm", "-v", "kept:/www", "busybox", "cat", "/www/x") == "hello"
    for name in ("writer", "web", "terminal", "piped", "init"):
        assert docker("exec", name, "echo", "hi") == "hi"
    talk_to_a_terminal(engine, docker_path)
    done = engine.run_client([docker_path], "attach", "piped", stdin=b"some words\n")
    assert (done.returncode, done.stdout) == (5, "got some words\n"), done
    assert docker("start", "-a", "created") == "it was not started"
    os.kill(int(docker("inspect", "-f", "{{.State.Pid}}", "init")), signal.SIGKILL)  # `kill` would be the user's will
    wait_for(lambda: engine.request("GET", "/containers/init/json")[1]["RestartCount"] == 1, "the restart policy")
    docker("stop", "writer", "json")
    assert [docker("inspect", "-f", "{{.State.ExitCode}}", name) for name in ("writer", "json")] == ["7", "7"]
    docker("start", "writer")


def talk_to_a_terminal(engine: Engine, docker_path: str) -> None:
    """Attach with a terminal of our own, say something, hear it, and end it."""
    ours, theirs = pty.openpty()
    attached = subprocess.Popen(
        [docker_path, "attach", "terminal"], stdin=theirs, stdout=theirs, stderr=theirs, env=engine.environment(), start_new_session=True
    )
    os.close(theirs)
    try:
        os.write(ours, b"words\n")
        heard = b""
        while b"got words" not in heard:
            heard += os.read(ours, 4096)
        os.write(ours, b"\x04")
        assert attached.wait(30) == 5
    finally:
        attached.kill()
        attached.wait()
        os.close(ours)


def builds(engine: Engine) -> list[str]:
    """What keeper and supervisor say of their version."""
    return [ask(engine, role, {"op": "hello", "role": "sampand"}).get("build", "") for role in LEAN]


def descriptors(engine: Engine) -> list[int]:
    """How many each of them holds: the least of a second, as connections that were just closed count for a moment."""
    least = [sys.maxsize] * len(LEAN)
    for _ in range(20):
        time.sleep(0.05)
        least = [min(number, len(os.listdir(f"/proc/{pid_of(engine, role)}/fd"))) for number, role in zip(least, LEAN, strict=True)]
    return least


def copied(place: Path) -> list[str]:
    """A program that starts this version's sampand from elsewhere, with a lean program that differs."""
    shutil.copytree(REPO / "src/sampan", place / "sampan", ignore=shutil.ignore_patterns("__pycache__"))
    with (place / "sampan/runtime/supervisor/loop.py").open("a") as file:
        file.write("# of another version\n")
    return [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(place)!r}); from sampan.daemon.main import entry; entry()"]


def test_keeper_and_supervisor_become_those_of_the_new_version(
    make_engine: Callable[..., Engine], docker_path: str, tmp_path: Path
) -> None:
    """In place: the processes stay, as the parents that containers' ends are told to."""
    engine = make_engine()
    engine.program = copied(tmp_path)
    engine.start()
    engine.bootstrap()
    docker = client(engine, docker_path)
    names = [*start_containers(docker), "crun"]
    docker("run", "-di", "--name=crun", "--runtime=crun", "busybox", "sh", "-c", "read line; echo got $line; exit 6")
    before, roles, others, held = processes(engine, names), [pid_of(engine, role) for role in LEAN], builds(engine), descriptors(engine)
    assert engine.stop() == 0
    shutil.rmtree(tmp_path / "sampan")
    engine.program = START
    engine.start()
    assert processes(engine, names) == before
    assert [pid_of(engine, role) for role in LEAN] == roles
    ours = builds(engine)
    assert ours[0] == ours[1] not in ("", *others)
    wait_for(lambda: descriptors(engine) == held, "no descriptor more")
    assert docker("exec", "writer", "sh", "-c", "ulimit -n; ulimit -Hn") == docker(
        "run", "--rm", "busybox", "sh", "-c", "ulimit -n; ulimit -Hn"
    )
    assert str(tmp_path) not in "".join(Path(f"/proc/{pid}/cmdline").read_text() for pid in roles)
    check_containers(engine, docker, docker_path)
    assert docker("exec", "crun", "echo", "hi") == "hi"
    done = engine.run_client([docker_path], "attach", "crun", stdin=b"words\n")
    assert (done.returncode, done.stdout) == (6, "got words\n"), done
    engine.remove_containers()
    wait_for_none(engine)
    assert complaints(engine) == []


def install(venv: Path, wheels: Path, commit: str | None) -> None:
    """Put a commit's wheel (None: that of the tree as it is) into a virtual environment whose other packages are ours."""
    tree = wheels / (commit or "tree")
    if commit is None:
        shutil.copytree(REPO / "src", tree / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(REPO / name, tree)
    else:
        tree.mkdir()
        archive = subprocess.run(["git", "-C", str(REPO), "archive", commit], capture_output=True, check=True, timeout=60).stdout
        subprocess.run(["tar", "-x", "-C", str(tree)], input=archive, check=True, timeout=60)
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(tree / "dist"), str(tree)]
    subprocess.run(build, check=True, timeout=110)
    (wheel,) = (tree / "dist").glob("*.whl")
    options = ["--no-deps", "--force-reinstall", "--no-index"]
    subprocess.run([*pip, "--python", str(venv / "bin/python"), "install", *options, str(wheel)], check=True, timeout=110)


@pytest.fixture(scope="module")
def has_history() -> None:
    found = subprocess.run(["git", "-C", str(REPO), "cat-file", "-e", f"{OLD}^{{commit}}"], capture_output=True, check=False)
    if found.returncode != 0:
        pytest.skip(f"the history is not here: no commit {OLD} to install")


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("has_history")
def test_an_older_commit_is_upgraded_in_place(make_engine: Callable[..., Engine], docker_path: str, tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    (venv / f"lib/python3.{sys.version_info.minor}/site-packages/ours.pth").write_text(sysconfig.get_path("purelib"))
    install(venv, tmp_path, OLD)
    engine = make_engine()
    engine.program = [str(venv / "bin/sampand")]
    engine.flags = [flag for flag in engine.flags if "runtime" not in flag]  # of which the older one knows none
    engine.start()
    engine.bootstrap()
    docker = client(engine, docker_path)
    names = start_containers(docker)
    before, former = processes(engine, names), schema(engine)
    assert engine.stop() == 0
    install(venv, tmp_path, None)
    # Killed as soon as it is on its way, several times over: what was not done is done by the next one.
    for seconds in (0.3, 0.5, 0.7, 0.9, 1.1, 1.4):
        with engine.log.open("ab") as log:
            process = subprocess.Popen([*engine.program, *engine.flags], stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd="/")
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    engine.start()
    assert schema(engine) > former
    assert processes(engine, names) == before
    assert len(set(builds(engine))) == 1
    assert builds(engine)[0]
    check_containers(engine, docker, docker_path)
    refuse_the_older(engine, venv, tmp_path, names)
    engine.start()
    docker("exec", "web", "true")
    engine.remove_containers()
    wait_for_none(engine)


def schema(engine: Engine) -> int:
    with sqlite3.connect(f"file:{engine.data_root}/state.db?mode=ro", uri=True) as database:
        return int(database.execute("PRAGMA user_version").fetchone()[0])


def refuse_the_older(engine: Engine, venv: Path, tmp_path: Path, names: list[str]) -> None:
    """The older version says so in one line, and touches nothing: neither what is stored nor what runs."""
    alive, stored, roles = processes(engine, ["web"]), schema(engine), [pid_of(engine, role) for role in LEAN]
    assert engine.stop() == 0
    older = tmp_path / "older"
    shutil.copytree(venv, older, symlinks=True)
    (wheel,) = (tmp_path / OLD / "dist").glob("*.whl")
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", "--python", str(older / "bin/python"), "install"]
    subprocess.run([*pip, "--no-deps", "--force-reinstall", "--no-index", str(wheel)], check=True, timeout=110)
    command = [str(older / "bin/python"), "-I", "-c", "from sampan.daemon.main import entry; entry()", *engine.flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd="/")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert f"has schema {stored}, this sampand knows up to" in done.stderr
    assert schema(engine) == stored
    assert [pid_of(engine, role) for role in LEAN] == roles
    assert names
    engine.start()
    assert processes(engine, ["web"]) == alive
    assert engine.stop() == 0
