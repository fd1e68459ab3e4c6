"""Fixtures of tests with networks of users' own."""

from collections.abc import Callable

import pytest

from tests.support.engine import Engine


@pytest.fixture
def subnets(engine: Engine) -> Callable[[int], str]:
    """Subnets that no other test run on this machine has: subnets(0), subnets(1), …"""
    number = engine.subnet.split(".")[2]
    return lambda which: f"10.{216 + which}.{number}.0/24"
