"""docker-py against the engine."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.engine import Engine

docker = pytest.importorskip("docker")

# docker-py leaves sockets of streams to the garbage collector
pytestmark = [
    pytest.mark.root,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def client(engine: Engine) -> Iterator[Any]:
    made = docker.DockerClient(base_url=engine.url, timeout=60)
    yield made
    made.close()


def test_run(client: Any) -> None:
    assert client.containers.run("busybox", "echo hi") == b"hi\n"
    assert client.containers.run("busybox", ["echo", "hello"], remove=True, log_config={"Type": "json-file", "Config": {}}) == b"hello\n"
    for container in client.containers.list(all=True):
        container.remove()
    assert client.containers.list(all=True) == []


def test_run_that_fails(client: Any) -> None:
    with pytest.raises(docker.errors.ContainerError) as caught:
        client.containers.run("busybox", ["sh", "-c", "echo bad >&2; exit 3"], remove=True)
    assert caught.value.exit_status == 3
    assert caught.value.stderr == b"bad\n"


def test_missing_container(client: Any) -> None:
    with pytest.raises(docker.errors.NotFound):
        client.containers.get("missing")


def test_logs(client: Any) -> None:
    container = client.containers.run("busybox", ["sh", "-c", "echo one; echo two >&2"], detach=True)
    container.wait()
    assert container.logs(stderr=False) == b"one\n"
    assert container.logs(stdout=False) == b"two\n"
    assert b"".join(container.logs(stream=True, follow=True, stderr=False)) == b"one\n"


def test_logs_come_line_by_line(client: Any) -> None:
    """As docker-py's own tests and many programs expect of a stream."""
    container = client.containers.run("busybox", ["sh", "-c", "printf 'one\\ntwo\\nend'"], detach=True)
    container.wait()
    for options in ({"follow": True}, {"tail": 3}, {"timestamps": False}):
        assert list(container.logs(stream=True, **options)) == [b"one\n", b"two\n", b"end"]
    assert [line[-4:] for line in container.logs(stream=True, timestamps=True)] == [b"one\n", b"two\n", b" end"]


def test_exec_run(client: Any) -> None:
    # the sleep: docker-py drops output that arrives in one read with the head of the answer
    container = client.containers.run("busybox", ["sleep", "1000"], detach=True)
    assert container.exec_run(["sh", "-c", "sleep 0.3; echo $X; exit 6"], environment={"X": "y"}) == (6, b"y\n")
    assert container.exec_run(["sh", "-c", "sleep 0.3; echo a; echo b >&2"], demux=True) == (0, (b"a\n", b"b\n"))


@pytest.mark.parametrize(("own", "asked"), [(True, True), (True, False), (False, True), (False, False)])
def test_an_exec_is_framed_as_its_start_says(client: Any, own: bool, asked: bool) -> None:
    """Whatever terminal it has; without frames there is no place for stderr (as in dockerd)."""
    container = client.containers.run("busybox", ["sleep", "1000"], detach=True)
    made = client.api.exec_create(container.id, ["sh", "-c", "sleep 0.3; echo hi; echo no >&2"], tty=own)
    output = client.api.exec_start(made["Id"], tty=asked, demux=not asked)
    end = b"\r\n" if own else b"\n"
    both = b"hi" + end + b"no" + end
    if own:
        assert output == (both if asked else (both, None))
    else:
        assert output == (b"hi\n" if asked else (b"hi\n", b"no\n"))


def test_attach(client: Any) -> None:
    container = client.containers.create("busybox", ["sh", "-c", "echo first; echo second"])
    stream = container.attach(stream=True, stdout=True, stderr=True)
    container.start()
    assert b"".join(stream) == b"first\nsecond\n"


def test_wait(client: Any) -> None:
    container = client.containers.run("busybox", ["sh", "-c", "exit 7"], detach=True)
    assert container.wait()["StatusCode"] == 7


def test_events_filter(client: Any) -> None:
    since = int(time.time())
    wanted = client.containers.run("busybox", ["true"], detach=True, name="wanted")
    other = client.containers.run("busybox", ["true"], detach=True, name="other")
    wanted.wait()
    other.wait()
    filters = {"container": ["wanted"], "event": ["create", "start", "die"]}
    events = client.events(since=since, until=int(time.time()) + 1, decode=True, filters=filters)
    assert [(event["Action"], event["Actor"]["ID"]) for event in events] == [(action, wanted.id) for action in ("create", "start", "die")]


def test_archives(client: Any) -> None:
    import io
    import tarfile

    container = client.containers.create("busybox", "true")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo("dir/file")
        info.size, info.mtime = 4, 1_000_000_000
        tar.addfile(info, io.BytesIO(b"text"))
    assert container.put_archive("/tmp", buffer.getvalue())
    pieces, stat = container.get_archive("/tmp/dir/file")
    assert (stat["name"], stat["size"], stat["mode"], stat["linkTarget"]) == ("file", 4, 0o644, "")
    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as tar:
        assert tar.getnames() == ["file"]
    assert {item["Path"]: item["Kind"] for item in container.diff()} == {"/tmp": 0, "/tmp/dir": 1, "/tmp/dir/file": 1}
    with tarfile.open(fileobj=io.BytesIO(b"".join(container.export()))) as tar:
        assert "tmp/dir/file" in tar.getnames()
    with pytest.raises(docker.errors.NotFound):
        container.get_archive("/none")


def test_commit(client: Any) -> None:
    container = client.containers.run("busybox", ["sh", "-c", "echo made > /made"], detach=True)
    container.wait()
    image = container.commit("committed", "1", message="why", author="me", changes="CMD cat /made", conf={"Env": ["X=y"]})
    try:
        assert image.tags == ["committed:1"]
        assert "X=y" in image.attrs["Config"]["Env"]
        assert client.containers.run("committed:1", remove=True) == b"made\n"
    finally:
        container.remove()
        client.images.remove(image.id, force=True)
