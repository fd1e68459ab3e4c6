"""Our structs hold everything dockerd 28.5 answers: its recorded JSON goes in and comes out the same (order of keys aside)."""

import json
from pathlib import Path

import msgspec
import pytest

from sampan.spec import gojson
from sampan.spec.docker_api.image import ImageHistoryItem, ImageInspect, ImageSummary
from sampan.spec.docker_api.inspect import ContainerInspect, ContainerSummary
from sampan.spec.docker_api.network import NetworkInspect
from sampan.spec.docker_api.system import SystemVersion

RECORDED = Path(__file__).parents[2] / "golden/api"


@pytest.mark.parametrize(
    ("name", "cls"),
    [
        ("container_inspect", ContainerInspect),
        ("container_list", ContainerSummary),
        ("image_inspect", ImageInspect),
        ("image_list", ImageSummary),
        ("image_history", ImageHistoryItem),
        ("network_list", NetworkInspect),
        ("version", SystemVersion),
    ],
)
def test_recorded_answers_survive(name: str, cls: type[msgspec.Struct]) -> None:
    recorded = json.loads((RECORDED / f"{name}.json").read_text())
    for document in recorded if isinstance(recorded, list) else [recorded]:
        assert json.loads(msgspec.json.encode(gojson.convert(document, cls))) == document
