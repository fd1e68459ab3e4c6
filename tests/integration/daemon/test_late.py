"""The first fifth of a second of an engine, in which what no start needs is not loaded yet."""

import json
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.engine import Engine
from tests.support.faultyregistry import FaultyRegistry
from tests.support.strays import complaints

pytestmark = pytest.mark.root

FIRST = (
    ("GET", "/info", 200), ("GET", "/system/df", 200), ("GET", "/system/check", 200), ("POST", "/build", 500),
    ("POST", "/images/prune", 200),
    ("GET", "/images/none/get", 404), ("POST", "/images/create?fromImage=127.0.0.1:1/none", 500), ("GET", "/containers/none/stats", 404),
)  # fmt: skip


def test_those_who_come_first_have_their_answers(make_engine: Callable[..., Engine]) -> None:
    engine = make_engine("--bridge=none")
    with ThreadPoolExecutor(len(FIRST)) as pool:
        engine.start()
        answers = [pool.submit(engine.request, method, path) for method, path, _ in FIRST]
        assert [answer.result()[0] for answer in answers] == [status for _, _, status in FIRST], [answer.result() for answer in answers]
    assert complaints(engine) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_it_ends_before_all_is_loaded(make_engine: Callable[..., Engine], number: int) -> None:
    engine = make_engine("--bridge=none")
    left = engine.data_root / "bootstrap/tree-left"
    (left / "etc").mkdir(parents=True)
    for _ in range(3):
        engine.start()
        assert engine.stop(number) == (0 if number == signal.SIGTERM else -signal.SIGKILL)
    engine.start()
    deadline = time.monotonic() + 30
    while left.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert complaints(engine) == []


def test_a_reload_holds_for_what_is_loaded_after_it(make_engine: Callable[..., Engine], registry: FaultyRegistry) -> None:
    engine = make_engine("--bridge=none")
    engine.start()
    (engine.root / "daemon.json").write_text(json.dumps({"registry-mirrors": [f"http://{registry.host}"]}))
    engine.process.send_signal(signal.SIGHUP)  # type: ignore[union-attr]
    deadline = time.monotonic() + 30
    while engine.request("GET", "/info")[1]["RegistryConfig"]["Mirrors"] != [f"http://{registry.host}/"]:
        assert time.monotonic() < deadline
    status, said = engine.request("POST", "/images/create?fromImage=none&tag=1")
    assert b"mirror" in (said if isinstance(said, bytes) else json.dumps(said).encode()), (status, said)
    assert registry.requests


@pytest.fixture
def registry() -> Iterator[FaultyRegistry]:
    one = FaultyRegistry()
    yield one
    one.close()
