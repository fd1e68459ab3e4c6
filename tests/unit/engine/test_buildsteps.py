"""What the steps of a build leave is bounded: their documents stay in memory."""

from typing import TYPE_CHECKING, Any, cast

import pytest

from sampan.clock import SystemClock
from sampan.engine import buildsteps
from sampan.engine.buildsteps import BuildSteps, Made
from sampan.errors import InvalidArgument
from sampan.image.store import Image, image_of
from sampan.spec.oci_image import ContainerConfig, ImageConfig, encode_config

if TYPE_CHECKING:
    from sampan.engine.images import ImageService
    from sampan.state.buildcache import BuildCacheRepository


class _Images:
    def add_step(self, parent: Image | None, config: ImageConfig, layer: Any) -> Image:
        del parent, layer
        return image_of(encode_config(config))


class _Cached:
    def put(self, *entry: object) -> None:
        del entry


def test_documents_of_all_steps_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buildsteps, "DOCUMENTS_MAX", 1 << 20)
    images, cached = cast("ImageService", _Images()), cast("BuildCacheRepository", _Cached())
    steps = BuildSteps(images, cached, SystemClock(), use_cache=False, epoch=None, platform=None)
    config = ContainerConfig(env=["A=" + "x" * 100_000])
    image: Image | None = None
    for _ in range(6):  # each has the config twice
        image = steps.add("", image, config, Made(["true"]), "", None)
    with pytest.raises(InvalidArgument, match="more than 1048576 bytes of metadata and history"):
        steps.add("", image, config, Made(["true"]), "", None)
