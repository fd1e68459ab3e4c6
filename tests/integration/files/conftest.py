"""These tests run on an engine of each storage driver."""

import pytest

from tests.support.engine import Engine


@pytest.fixture
def engine(engine_of_each_driver: Engine) -> Engine:
    """Instead of the session's one."""
    return engine_of_each_driver
