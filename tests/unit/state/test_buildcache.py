"""Which image a step came to, as far as it is kept in memory."""

from pathlib import Path

from sampan.digest import ImageId
from sampan.state.buildcache import BuildCacheRepository
from sampan.state.database import Database
from sampan.state.images import ImageRepository, ImageRow

ONE, OTHER = ImageId("sha256:" + "1" * 64), ImageId("sha256:" + "2" * 64)


def cache(path: Path) -> tuple[BuildCacheRepository, ImageRepository]:
    """With two images, one of which a step has come to and was found by."""
    database = Database(path / "state.db")
    images, cached = ImageRepository(database), BuildCacheRepository(database)
    for image in (ONE, OTHER):
        images.insert(ImageRow(image, b"{}", "", 1, 0))
    cached.put("step", ONE, "RUN x", 1)
    assert cached.find("step") == ONE
    return cached, images


def test_a_step_that_is_built_again_has_its_new_image(tmp_path: Path) -> None:
    cached, _ = cache(tmp_path)
    cached.put("step", OTHER, "RUN x", 2)
    assert cached.find("step") == OTHER


def test_a_step_that_was_forgotten_is_not_found(tmp_path: Path) -> None:
    cached, _ = cache(tmp_path)
    cached.delete(iter(["step"]))
    assert cached.find("step") is None
    assert cached.all() == []


def test_a_step_goes_with_its_image_even_if_that_comes_back(tmp_path: Path) -> None:
    cached, images = cache(tmp_path)
    images.delete(ONE)
    images.insert(ImageRow(ONE, b"{}", "", 1, 0))
    assert cached.find("step") is None


def test_more_steps_than_are_kept_in_memory_are_found(tmp_path: Path) -> None:
    cached, _ = cache(tmp_path)
    for number in range(1100):
        cached.put(f"step {number}", OTHER, "RUN y", 1)
    assert {cached.find(f"step {number}") for number in range(1100)} == {OTHER}
    assert cached.find("step") == ONE
