"""The generated coverage document is current, and complete against the endpoint list of the API's specification."""

from pathlib import Path

import pytest

from sampan.api.app import ROUTES
from sampan.api.coverage import render

DOCUMENT = Path(__file__).parents[3] / "docs/api-coverage.md"


def test_document_is_current() -> None:
    assert DOCUMENT.read_text() == render(), "run: python -m sampan.api.coverage > docs/api-coverage.md"


def test_no_route_is_listed_twice() -> None:
    keys = [(route.method, route.path) for route in ROUTES]
    assert sorted(keys) == sorted(set(keys))


@pytest.mark.parametrize(
    "tag",
    [
        "System",
        "Container",
        "Exec",
        "Image",
        "Network",
        "Volume",
        "Distribution",
        "Session",
        "Plugin",
        "Swarm",
        "Node",
        "Service",
        "Task",
        "Secret",
        "Config",
    ],
)
def test_every_tag_of_the_specification_is_there(tag: str) -> None:
    assert any(route.tag == tag for route in ROUTES)
