"""`--log-opt compress=true` by the docker client: the files are gzip's, and `docker logs` is whole, whatever becomes of sampand."""

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.engine import Engine
from tests.support.kills import kill

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

OPTIONS = {"compress": "true", "max-size": "20k", "max-file": "4"}
WRITER = "i=0; while [ $i -lt %d ]; do echo line $i; i=$((i+1)); done"
SLOW = "i=0; while :; do echo line $i; i=$((i+1)); [ $((i % 50)) -eq 0 ] && sleep 0.02; done"

Docker = Callable[..., subprocess.CompletedProcess[str]]


def files(directory: Path, container: str) -> list[str]:
    """The endings of the log's files."""
    prefix = f"{container}-json.log"
    return sorted(path.name.removeprefix(prefix) for path in directory.iterdir() if path.name.startswith(prefix))


def wait_for(engine: Engine, container: str, kept: int = 4) -> Path:
    """Until all rotated files are compressed. Returns the container's directory."""
    directory = engine.data_root / "containers" / container
    deadline = time.monotonic() + 60
    while (found := files(directory, container)) != ["", *(f".{number}.gz" for number in range(1, kept))]:
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    return directory


def ok(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode == 0, result.stderr
    return result.stdout


def numbers(text: str) -> list[int]:
    assert all(line.startswith("line ") for line in text.splitlines()), text[-500:]
    return [int(line.split()[1]) for line in text.splitlines()]


def options() -> list[str]:
    return [word for name, value in OPTIONS.items() for word in ("--log-opt", f"{name}={value}")]


def test_files_are_compressed_and_read(engine: Engine, docker: Docker) -> None:
    container = ok(docker("run", "-d", "--log-driver", "json-file", *options(), "busybox", "sh", "-c", WRITER % 3000)).strip()
    assert ok(docker("wait", container)).strip() == "0"
    directory = wait_for(engine, container)
    subprocess.run(["gzip", "-t", *map(str, directory.glob("*.gz"))], check=True)
    unpacked = (
        b"".join(
            subprocess.run(["gzip", "-dc", f"{directory}/{container}-json.log.{number}.gz"], check=True, capture_output=True).stdout
            for number in (3, 2, 1)
        )
        + (directory / f"{container}-json.log").read_bytes()
    )
    there = [int(json.loads(line)["log"].split()[1]) for line in unpacked.splitlines()]
    assert there == list(range(there[0], 3000))
    assert len(there) > 700
    assert numbers(ok(docker("logs", container))) == there
    assert numbers(ok(docker("logs", "-f", container))) == there
    for tail in (10, len(there) // 2, len(there) - 1, len(there) + 5):
        assert numbers(ok(docker("logs", "--tail", str(tail), container))) == there[-tail:]
    stamp = ok(docker("logs", "-t", "--tail", "500", container)).split()[0]
    assert set(there[-499:]) <= set(numbers(ok(docker("logs", "--since", stamp, container)))) <= set(there)
    found = json.loads(ok(docker("inspect", container)))[0]
    assert found["HostConfig"]["LogConfig"] == {"Type": "json-file", "Config": OPTIONS}
    assert found["LogPath"] == f"{directory}/{container}-json.log"
    ok(docker("start", container))  # it goes on from there
    assert ok(docker("wait", container)).strip() == "0"
    wait_for(engine, container)
    again = numbers(ok(docker("logs", container)))
    assert again[-700:] == list(range(2300, 3000))
    ok(docker("rm", container))
    assert not directory.exists()


def test_a_follower_gets_every_line_once(engine: Engine, docker: Docker, docker_path: str) -> None:
    container = ok(docker("run", "-d", "--log-driver", "json-file", *options(), "busybox", "sh", "-c", f"sleep 1; {SLOW}")).strip()
    client = subprocess.Popen([docker_path, "logs", "-f", container], env=engine.environment(), stdout=subprocess.PIPE, text=True)
    time.sleep(4)
    ok(docker("kill", container))
    told = numbers(client.communicate(timeout=60)[0])
    assert len(told) > 2000
    assert told == list(range(len(told)))
    wait_for(engine, container)
    there = numbers(ok(docker("logs", container)))
    assert there == told[-len(there) :]


def test_removed_while_it_rotates(engine: Engine, docker: Docker) -> None:
    container = ok(docker("run", "-d", "--log-driver", "json-file", *options(), "busybox", "sh", "-c", "while :; do echo x; done")).strip()
    directory = engine.data_root / "containers" / container
    deadline = time.monotonic() + 60
    while not any(name.endswith(".gz") for name in files(directory, container)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    ok(docker("rm", "-f", container))
    assert not directory.exists()


@pytest.mark.parametrize("words", [("compress=true",), ("compress=true", "max-size=1m"), ("compress=maybe",)])
def test_dockers_rules(docker: Docker, words: tuple[str, ...]) -> None:
    given = [word for option in words for word in ("--log-opt", option)]
    result = docker("run", "--rm", "--log-driver", "json-file", *given, "busybox", "true")
    assert result.returncode == 125
    assert "compress cannot be true" in result.stderr or "strconv.ParseBool" in result.stderr


@pytest.fixture
def own_engine(make_engine: Callable[..., Engine]) -> Iterator[Engine]:
    """One whose daemon.json has the options, and names no driver."""
    engine = make_engine()
    (engine.root / "daemon.json").write_text(json.dumps({"log-opts": OPTIONS}))
    engine.start()
    engine.bootstrap()
    yield engine
    if engine.process is not None and engine.process.poll() is None:
        engine.remove_containers()


def test_daemon_json_and_kills(own_engine: Engine, docker_path: str) -> None:
    engine = own_engine

    def docker(*words: str) -> str:
        return ok(engine.run_client([docker_path], *words))

    ended = docker("run", "-d", "busybox", "sh", "-c", f"sleep 2; {WRITER % 1200}").strip()
    running = docker("run", "-d", "busybox", "sh", "-c", SLOW).strip()
    found = json.loads(docker("inspect", ended))[0]
    assert found["HostConfig"]["LogConfig"] == {"Type": "json-file", "Config": OPTIONS}
    assert found["LogPath"].endswith(f"{ended}-json.log")
    # One ends while there is no sampand: nobody was told of its files.
    engine.stop(signal.SIGKILL)
    directory = engine.data_root / "containers" / ended
    deadline = time.monotonic() + 60
    while len(files(directory, ended)) < 4 or b"line 1199" not in (directory / f"{ended}-json.log").read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (directory / f"{ended}-json.log.0123abcd.copy").write_bytes(b"what a kill has left")
    engine.start()
    wait_for(engine, ended)
    assert not list(directory.glob("*.copy"))
    there = numbers(docker("logs", ended))
    assert there == list(range(there[0], 1200))
    for roles in (("keeper",), ("sampand",), ("keeper", "sampand"), ("keeper", "supervisor")):
        kill(engine, *roles)
        time.sleep(0.3)
    docker("kill", running)
    wait_for(engine, running)
    there = numbers(docker("logs", running))
    assert len(there) > 700
    assert there == list(range(there[0], there[0] + len(there)))
    assert engine.findings() == []
