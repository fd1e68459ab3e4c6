"""Keys of the build cache: those that are stored must be met again by the next version."""

from sampan.build.cache import key
from sampan.spec.oci_image import ContainerConfig


def test_a_key_stays_what_it_was() -> None:
    config = ContainerConfig(env=["PATH=/bin", "NAME=ä\udc80"], labels={"b": "2", "a": "1"}, exposed_ports={"80/tcp": {}})
    found = key("sha256:" + "a" * 64, ("/bin/sh", "-c", '#(nop) COPY file:"1" in /x '), config, ("[]", "net\twork"))
    assert found == "2e34270da97d5750ac687919515da8c6d454ba3ddadc997f15b552c95b2d8412"


def test_an_empty_one_too() -> None:
    assert key("linux/amd64/", [], ContainerConfig()) == "1d604b707de94b0a62e765f872ea91c75259afdb054d383b784b26d6782483db"
