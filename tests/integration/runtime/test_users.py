"""Users of a container by its own files, through the real client."""

import base64

import pytest

from tests.support.engine import Engine

pytestmark = pytest.mark.root

WRITE = "echo {0} | base64 -d > /etc/passwd"
PASSWD = base64.b64encode(b"root:x:0:0:root:/root:/bin/sh\n12:x:5:6::/odd:\ntoor:x:0:0::/toor:\nshort:x:10\n").decode()


def test_a_user_that_is_a_number_is_never_a_name(engine: Engine, docker_path: str) -> None:
    """As dockerd 28, asked by hand: 12 is the number although a user has that name; the home is that of the number's first user."""
    for words in (
        ["run", "-d", "--network=none", "--name", "users", "busybox", "sleep", "1000"],
        ["exec", "users", "sh", "-c", WRITE.format(PASSWD)],
    ):
        done = engine.run_client([docker_path], *words)
        assert done.returncode == 0, done.stderr
    for user, said in (("12", "12 0 /"), ("toor", "0 0 /root"), ("short", "10 0 ")):
        done = engine.run_client([docker_path], "exec", "-u", user, "users", "sh", "-c", "echo $(id -u) $(id -g) $HOME.")
        assert done.stdout == f"{said}.\n", (user, done.stderr)


def test_a_huge_table_is_one_clear_error(engine: Engine, docker_path: str) -> None:
    for words in (
        ["run", "-d", "--network=none", "--name", "users", "busybox", "sleep", "1000"],
        ["exec", "users", "sh", "-c", "dd if=/dev/zero bs=1M count=9 2>/dev/null | tr '\\0' '\\n' > /etc/passwd"],
    ):
        done = engine.run_client([docker_path], *words)
        assert done.returncode == 0, done.stderr
    done = engine.run_client([docker_path], "exec", "-u", "app", "users", "true")
    assert done.returncode == 1
    assert "unable to find user app: the file has more than 8388608 bytes" in done.stderr
