"""Shared fixtures: a live engine, the real docker client, and what a test run says about itself."""

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests.support import dockercli
from tests.support.engine import Engine, own_number
from tests.support.workers import LentWorkers

# A busy machine is no fault: no deadlines. The CI must not find by luck what belongs to another change; a developer's run draws
# new examples each time.
settings.register_profile("developer", deadline=None)
settings.register_profile("ci", derandomize=True, deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "developer")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write what the tests see into the golden files; review the diff")


def pytest_report_header() -> str:
    return dockercli.describe()


def pytest_unconfigure() -> None:
    LentWorkers.end()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without root the tests that need it are left out, and the summary says so."""
    if os.geteuid() != 0:
        for item in items:
            if item.get_closest_marker("root") or "engine" in getattr(item, "fixturenames", ()):
                item.add_marker(pytest.mark.skip(reason="needs root"))


def _runtimes() -> list[str]:
    """Every engine has runc and crun as `real-runc` and `crun`. SAMPAN_TEST_RUNTIME=crun: all containers are crun's, unless a test says
    what it wants."""
    default = os.environ.get("SAMPAN_TEST_RUNTIME")
    return ["--add-runtime=real-runc=runc", "--add-runtime=crun=crun", *([f"--default-runtime={default}"] if default else [])]


@contextmanager
def _engines() -> Iterator[Callable[..., Engine]]:
    made: list[Engine] = []
    locks = ExitStack()

    def make(*flags: str, place: str = "/var/tmp") -> Engine:
        # short, because a unix socket's path has 108 bytes; not /tmp itself, because other tests count what is there
        root = Path(tempfile.mkdtemp(prefix="sampan-test-", dir=place))
        root.chmod(0o755)
        engine = Engine(root, own_number(locks), [*_runtimes(), *flags])
        made.append(engine)
        return engine

    yield make
    leaks = {}

    def end(engine: Engine) -> None:
        if not engine.root.exists():
            return  # its disk is gone, and it before that
        engine.teardown()
        left = {kind: names for kind, names in engine.leftovers().items() if names}
        if left:
            leaks[str(engine.root)] = left
        else:
            subprocess.run(["rm", "-rf", str(engine.root)], check=True, timeout=60)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(end, made))
    locks.close()
    assert not leaks, f"left on the machine: {leaks}"


@pytest.fixture(scope="module")
def make_engine() -> Iterator[Callable[..., Engine]]:
    """A function that makes engines (not started; any number, extra flags of sampand as arguments); torn down and checked at the end.

    place: the directory for the engine's own one.
    """
    with _engines() as make:
        yield make


@pytest.fixture(scope="module")
def crashing(make_engine: Callable[..., Engine]) -> Engine:
    """An engine to be killed, for all tests here."""
    engine = make_engine()
    engine.start()
    engine.bootstrap()
    return engine


@pytest.fixture(scope="session")
def _session_engines() -> Iterator[Callable[..., Engine]]:
    with _engines() as make:
        yield make


@pytest.fixture(scope="session")
def live_engine(_session_engines: Callable[..., Engine]) -> Iterator[Engine]:
    """The session's engine: started, with the busybox image."""
    yield from _of_the_session(_session_engines())


@pytest.fixture(scope="session")
def overlay_engine(_session_engines: Callable[..., Engine]) -> Iterator[Engine]:
    """As live_engine, with the storage driver that kernels without file-backed EROFS get."""
    yield from _of_the_session(_session_engines("--storage-driver=overlay2"))


def _of_the_session(engine: Engine) -> Iterator[Engine]:
    engine.start()
    engine.bootstrap()
    yield engine
    if engine.process is not None and engine.process.poll() is None:
        assert engine.findings() == [], "what tests did with this engine does not fit together"


def _lent(engine: Engine) -> Iterator[Engine]:
    yield engine
    if engine.process is not None and engine.process.poll() is None:
        engine.remove_containers()


@pytest.fixture
def engine(live_engine: Engine) -> Iterator[Engine]:
    """A live engine with the image `busybox`; the containers a test leaves are removed after it."""
    yield from _lent(live_engine)


@pytest.fixture(params=["live_engine", "overlay_engine"], ids=["own-driver", "overlay2"])
def engine_of_each_driver(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """As engine, one after the other with the driver that the probe chooses and with overlay2: modules override `engine` by it."""
    yield from _lent(request.getfixturevalue(request.param))


@pytest.fixture(scope="session")
def docker_path() -> str:
    """The path of the real docker client."""
    return dockercli.find()


@pytest.fixture
def docker(engine: Engine, docker_path: str) -> Callable[..., subprocess.CompletedProcess[str]]:
    """A function that runs the real docker client against the live engine: docker("run", "--rm", "busybox", "true", stdin=b"")."""

    def run(*args: str, stdin: bytes | None = None, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        return engine.run_client([docker_path], *args, stdin=stdin, timeout=timeout)

    return run


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[Path, str], None]:
    """A function that compares a text with a golden file, or writes it under --update-golden."""

    def compare(path: Path, text: str) -> None:
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        expected: Any = path.read_text() if path.exists() else None
        assert text == expected

    return compare


@pytest.fixture
def ok(docker: Callable[..., subprocess.CompletedProcess[str]]) -> Callable[..., str]:
    """A function that runs the real docker client, which has to succeed, and gives its output without the last newline."""

    def run(*args: str, stdin: bytes | None = None) -> str:
        done = docker(*args, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return done.stdout.rstrip("\n")

    return run
