"""What tests of pull, push and login have in common."""

import gzip
import os
import subprocess
from collections.abc import Callable

from tests.support.engine import Engine
from tests.support.faultyregistry import digest_of
from tests.support.imagetars import config, docker_files, packed
from tests.support.tars import tar

Docker = Callable[..., subprocess.CompletedProcess[str]]


def zipped(data: bytes) -> bytes:
    """Compressed, the same bytes every time."""
    return gzip.compress(data, mtime=0)


def big(megabytes: int) -> bytes:
    """A layer that does not compress."""
    return tar(("f", "big", os.urandom(megabytes << 19).hex()))


def partials(engine: Engine) -> list[str]:
    return os.listdir(engine.data_root / "content/partial")


def load(engine: Engine, name: str, *layers: bytes) -> str:
    """An image of these layers under a name; its ID."""
    document = config(*layers)
    status, answer = engine.request("POST", "/images/load", packed(docker_files(document, layers, [name])))
    assert status == 200, answer
    return digest_of(document)
