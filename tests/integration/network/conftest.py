"""Fixtures of tests with networks of users' own."""

from collections.abc import Callable, Iterator

import pytest

from tests.integration.network.support import Docker, ok, remove_networks
from tests.support.engine import Engine


@pytest.fixture
def own_networks(engine: Engine) -> Iterator[None]:
    """Afterwards there are none any more."""
    yield
    remove_networks(engine)


@pytest.fixture
def subnets(engine: Engine) -> Callable[[int], str]:
    """Subnets that no other test run on this machine has: subnets(0), subnets(1), …"""
    number = engine.subnet.split(".")[2]
    return lambda which: f"10.{216 + which}.{number}.0/24"


@pytest.fixture
def front(docker: Docker, subnets: Callable[[int], str]) -> str:
    """A network, on subnets(0)."""
    ok(docker("network", "create", "--subnet", subnets(0), "front"))
    return "front"
