"""The name servers of daemon.json in containers."""

from collections.abc import Callable

import pytest

from tests.support.engine import Engine

pytestmark = pytest.mark.root


def settings(text: str) -> list[str]:
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_dns_of_the_daemon_is_for_containers_without_their_own(make_engine: Callable[..., Engine], docker_path: str) -> None:
    engine = make_engine("--dns=192.0.2.7", "--dns-search=corp.example", "--dns-opt=timeout:3")
    engine.start()
    engine.bootstrap()

    def inside(*flags: str) -> list[str]:
        done = engine.run_client([docker_path], "run", "--rm", *flags, "busybox", "cat", "/etc/resolv.conf", timeout=60)
        assert done.returncode == 0, done.stderr
        return settings(done.stdout)

    expected = ["nameserver 192.0.2.7", "search corp.example", "options timeout:3"]
    assert inside() == expected
    assert inside("--network=host") == expected
    assert inside("--dns=192.0.2.8") == ["nameserver 192.0.2.8", *expected[1:]]
    assert inside("--dns-search=.")[:1] == expected[:1]
    assert "search corp.example" not in inside("--dns-search=.")
