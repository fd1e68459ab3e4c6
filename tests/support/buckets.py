"""Buckets of moto's S3, in this process, where obstore and moto are installed."""

import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import pytest

from sampan.registry.s3 import S3


@contextmanager
def s3_server() -> Iterator[str]:
    """Its address."""
    pytest.importorskip("obstore", reason="pip install obstore")
    server = pytest.importorskip("moto.server", reason="pip install 'moto[server]'").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def new_bucket(endpoint: str) -> str:
    """Its name."""
    bucket = f"b{uuid.uuid4().hex}"
    with urllib.request.urlopen(urllib.request.Request(f"{endpoint}/{bucket}", method="PUT"), timeout=20) as answer:
        assert answer.status == 200
    return bucket


def connect(endpoint: str, bucket: str, prefix: str = "below", kind: type[S3] = S3) -> S3:
    """Open the storage in a bucket."""
    settings = {"endpoint": endpoint, "region": "us-east-1", "access_key_id": "k", "secret_access_key": "s"}
    return kind.connect(bucket, prefix=prefix, settings=settings)


def bucket_at(endpoint: str) -> Callable[[], S3]:
    """What opens the storage in a new bucket, again and again."""
    return partial(connect, endpoint, new_bucket(endpoint))
