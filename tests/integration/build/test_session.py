"""`--secret` and `--ssh` of `sampan build`, with a builder behind them: what a step has, and that nothing has it afterwards."""

import hashlib
import os
import select
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

import pytest

from sampan import sessionframes as frames
from sampan.sessionframes import Frame
from tests.golden.build.record import caller, prepare
from tests.integration.build.conftest import Build
from tests.support.buildsession import Session, in_thread
from tests.support.certificates import Authority
from tests.support.engine import Engine

pytestmark = pytest.mark.root

Client = Callable[..., "subprocess.CompletedProcess[str]"]
CLI = [sys.executable, "-m", "sampan.cli"]


@pytest.fixture
def here(tmp_path: Path, live_engine: Engine) -> Path:
    """An empty context."""
    prepare(caller(live_engine.socket))
    (tmp_path / "context").mkdir()
    return tmp_path / "context"


@pytest.fixture
def sampan(engine: Engine, here: Path) -> Client:
    """A function that builds a Dockerfile: sampan("FROM ...", "--secret", ...)."""

    def run(dockerfile: str, *options: str) -> subprocess.CompletedProcess[str]:
        (here / "Dockerfile").write_text(dockerfile)
        return engine.run_client(CLI, "build", *options, str(here), timeout=60)

    return run


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file of its own content each time."""
    file = tmp_path / "secret"
    file.write_text(f"S3CR3T-{os.urandom(16).hex()}")
    return file


def digest(data: bytes) -> str:
    """As `sha256sum <file` says it: what a step shows of a secret, for its output passes through a file."""
    return f"{hashlib.sha256(data).hexdigest()}  -"


def holders(engine: Engine, data: bytes) -> list[str]:
    """Files of an engine's, its logs among them, that have the bytes in them."""
    found: list[str] = []
    for directory, _, names in os.walk(engine.root):
        for name in names:
            path = Path(directory, name)
            try:
                if stat.S_ISREG(path.lstat().st_mode) and data in path.read_bytes():
                    found.append(str(path))
            except OSError:
                continue
    return found


# secrets


def test_a_secret_is_a_file_as_asked_for(sampan: Client, secret: Path) -> None:
    text = (
        "FROM buildbase\n"
        "RUN --mount=type=secret,id=s"
        " sha256sum </run/secrets/s; stat -c '%a %u %g %F' /run/secrets/s; (echo >/run/secrets/s) 2>&1 || true\n"
        "RUN --mount=type=secret,id=s,target=/etc/other,mode=0640,uid=55,gid=66 stat -c '%a %u %g' /etc/other\n"
    )
    done = sampan(text, "--no-cache", "--secret", f"id=s,src={secret}")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert digest(secret.read_bytes()) in lines
    assert "400 0 0 regular file" in lines
    assert "read-only file system" in done.stdout.lower()
    assert "640 55 66" in lines


def test_no_layer_has_a_trace_of_it(sampan: Client, engine: Engine, secret: Path) -> None:
    text = "FROM buildbase\nRUN --mount=type=secret,id=s --mount=type=secret,id=s,target=/a/b/c echo >/made; rm -f /x\n"
    assert sampan(text, "--no-cache", "-t", "traceless", "--secret", f"id=s,src={secret}").returncode == 0
    seen = engine.cli("run", "--rm", "traceless", "sh", "-c", "ls -d /made /run /a; env")
    assert seen.stdout.splitlines()[0] == "/made"
    assert not [line for line in seen.stdout.splitlines() if line in ("/run", "/a")]


def test_two_at_once_one_a_variable_and_one_both(sampan: Client, secret: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTHER", other := os.urandom(8).hex())
    text = (
        "FROM buildbase\nENV V=overridden\n"
        "RUN --mount=type=secret,id=s,env=V --mount=type=secret,id=OTHER,env=O,target=/o"
        " echo -n $V | sha256sum; echo -n $O | sha256sum; sha256sum </o; ls /run/secrets 2>&1; echo $HOME\n"
    )
    for options in (("--secret", "id=OTHER"), ("--secret", "id=OTHER,env=OTHER"), ("--secret", "type=env,id=OTHER,src=OTHER")):
        done = sampan(text, "--no-cache", "--secret", f"type=file,id=s,source={secret}", *options)
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        assert digest(secret.read_bytes()) in lines
        assert lines.count(digest(other.encode())) == 2
        assert "No such file or directory" in done.stdout


def test_any_bytes_but_nul_are_a_variable(sampan: Client, secret: Path) -> None:
    text = 'FROM buildbase\nRUN --mount=type=secret,id=s,env=V echo -n "$V" | sha256sum\n'
    secret.write_bytes(data := b"\xff\x80=\xc3\xa4\n\xed\xa0\x80'$(x)" + "\U0001f511".encode())
    done = sampan(text, "--no-cache", "--secret", f"id=s,src={secret}")
    assert digest(data) in done.stdout.splitlines(), done.stderr
    secret.write_bytes(b"a\0b")
    done = sampan(text, "--no-cache", "--secret", f"id=s,src={secret}")
    assert (done.returncode, done.stderr) == (1, "secret s: not a value of an environment variable: it has a NUL byte\n")
    secret.write_bytes(b"x" * (200 << 10))  # the kernel takes 128 KiB
    done = sampan(text, "--no-cache", "--secret", f"id=s,src={secret}")
    assert (done.returncode, "argument list too long" in done.stderr) == (1, True), done.stderr


def test_one_that_is_not_there(sampan: Client, docker: Client, here: Path, secret: Path, run_build: Build) -> None:
    optional = 'FROM buildbase\nRUN --mount=type=secret,id=no,env=NO ls /run/secrets/no 2>&1; echo "<${NO-unset}>"\n'
    required = "FROM buildbase\nRUN --mount=type=secret,id=no,required true\n"
    for options in ((), ("--secret", f"id=s,src={secret}")):
        done = sampan(optional, "--no-cache", *options)
        assert done.returncode == 0, done.stderr
        assert "<unset>\n" in done.stdout
        done = sampan(required, "--no-cache", *options)
        assert (done.returncode, done.stderr) == (1, "secret no: not found\n")
    theirs = docker("build", str(here))  # the same file, from a client without a session
    assert (theirs.returncode, theirs.stderr.splitlines()[-1]) == (1, "secret no: not found")
    assert run_build("FROM buildbase\nRUN --mount=type=ssh,required true\n").error == "unset ssh forward key default"


def test_a_secret_has_500_kib_at_most(sampan: Client, tmp_path: Path) -> None:
    big = tmp_path / "big"
    big.write_bytes(os.urandom(500 << 10))
    text = "FROM buildbase\nRUN --mount=type=secret,id=big sha256sum </run/secrets/big\n"
    done = sampan(text, "--no-cache", "--secret", f"id=big,src={big}")
    assert digest(big.read_bytes()) in done.stdout.splitlines(), done.stderr
    with big.open("ab") as file:
        file.write(b"x")
    done = sampan(text, "--no-cache", "--secret", f"id=big,src={big}")
    assert (done.returncode, done.stderr) == (1, "secret big too big. max size 500KiB\n")


def test_what_is_in_it_is_nothing_to_the_cache(sampan: Client, secret: Path) -> None:
    text = "FROM buildbase\nRUN --mount=type=secret,id=s echo >/cached-with-a-secret\n"
    assert sampan(text, "--no-cache", "--secret", f"id=s,src={secret}").returncode == 0
    secret.write_text("another")
    assert "Using cache" in sampan(text, "--secret", f"id=s,src={secret}").stdout
    assert "Using cache" in sampan(text).stdout
    assert "Using cache" not in sampan(text.replace("id=s", "id=s,mode=0444"), "--secret", f"id=s,src={secret}").stdout


def test_a_kept_step_has_no_record_of_it(sampan: Client, engine: Engine, secret: Path) -> None:
    mount = "--mount=type=secret,id=s,env=V --mount=type=secret,id=s"
    text = f'FROM buildbase\nRUN {mount} test -n "$V"; test -s /run/secrets/s\nRUN {mount} test -z "$V"\n'
    done = sampan(text, "--no-cache", "--rm=false", "-t", "kept", "--secret", f"id=s,src={secret}")
    assert done.returncode == 1
    kept = engine.request("GET", "/containers/json?all=1")[1]
    assert len(kept) == 2
    for container in kept:
        path = f"/containers/{container['Id']}"
        told = engine.request("GET", f"{path}/json")[1]
        assert secret.read_text() not in str(told)
        assert not [mounted for mounted in told["Mounts"] if "secrets" in mounted["Destination"]]
        # started again it runs without
        assert engine.request("POST", f"{path}/start")[0] == 204
        code = engine.request("POST", f"{path}/wait")[1]["StatusCode"]
        assert code == (1 if "test -s" in container["Command"] else 0)
    assert holders(engine, secret.read_bytes()) == []
    done = sampan("FROM buildbase\nRUN --mount=type=secret,id=s cp /run/secrets/s /\n", "--no-cache", "--secret", f"id=s,src={secret}")
    assert done.returncode == 0
    assert holders(engine, secret.read_bytes()) != [], "a step that keeps it is not seen"


# the session


def begun(process: "subprocess.Popen[bytes]", output: IO[bytes]) -> None:
    """Wait for the step's word."""
    for line in output:
        if line.startswith(b"begun"):
            return
    raise AssertionError(f"the build ended with {process.wait(10)}")


def test_nothing_is_on_the_disk_when_all_is_killed(make_engine: Callable[..., Engine], tmp_path: Path, secret: Path) -> None:
    engine = make_engine()
    engine.start()
    prepare(caller(engine.socket))
    context = tmp_path / "context"
    context.mkdir()
    mount = "--mount=type=secret,id=s,env=V --mount=type=secret,id=s"
    (context / "Dockerfile").write_text(f'FROM buildbase\nRUN {mount} test -n "$V"\nRUN {mount} echo begun; exec sleep 600\n')
    command = [*CLI, "build", "--secret", f"id=s,src={secret}", str(context)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=engine.environment()) as client:
        assert client.stdout is not None
        try:
            begun(client, client.stdout)
            (running,) = engine.request("GET", "/containers/json")[1]
            pid = engine.request("GET", f"/containers/{running['Id']}/json")[1]["State"]["Pid"]
            assert Path(f"/proc/{pid}/root/run/secrets/s").read_bytes() == secret.read_bytes()
            assert holders(engine, secret.read_bytes()) == []
        finally:
            engine.stop(signal.SIGKILL)
        client.stdout.read()
    assert client.returncode == 1
    assert holders(engine, secret.read_bytes()) == []
    engine.start()
    assert engine.request("GET", "/containers/json?all=1")[1] == []
    assert not os.path.exists(f"/proc/{pid}")
    assert holders(engine, secret.read_bytes()) == []
    assert not [line for line in engine.leftovers()["mounts"] if "lent" in line]


def test_a_session_that_is_not_there(engine: Engine, run_build: Build) -> None:
    built = run_build("FROM buildbase\nRUN true\n", session="gone")
    assert (built.status, built.message) == (404, "no active session for gone")
    assert engine.request("POST", "/session", headers={"Upgrade": "h2c", "Connection": "Upgrade"})[0] == 501
    assert engine.request("POST", "/session", headers={"Upgrade": "sampan-build", "Connection": "Upgrade"})[0] == 400


def test_one_that_ends_in_the_middle(engine: Engine, here: Path, run_build: Build) -> None:
    with Session(engine, "mid") as session:
        asked = in_thread(run_build, "FROM buildbase\nRUN --mount=type=secret,id=s true\n", nocache=1, session="mid")
        assert session.next() == Frame(frames.SECRET, 1, b"s")
        session.send(frames.DATA, 1, b"half of it")
        session.close()
        built = asked()
    assert built.error == "no active session for mid: the client has closed it"
    assert engine.request("GET", "/containers/json?all=1")[1] == []


def test_a_client_that_says_too_much(engine: Engine, run_build: Build) -> None:
    with Session(engine, "much") as session:
        asked = in_thread(run_build, "FROM buildbase\nRUN --mount=type=secret,id=s true\n", nocache=1, session="much")
        session.next()
        for _ in range(9):
            session.send(frames.DATA, 1, bytes(frames.PAYLOAD_MAX))
        assert asked().error == "secret s too big. max size 500KiB"
        assert engine.request("POST", "/session", headers={"Upgrade": "sampan-build", frames.SESSION_HEADER: "much"})[0] == 409
        session.send(99, 1, b"")
        assert session.next() is None


def test_a_session_does_not_hold_up_a_stop(make_engine: Callable[..., Engine]) -> None:
    engine = make_engine()
    engine.start()
    with Session(engine, "open") as session:
        assert engine.stop(timeout=20) == 0
        assert session.next() is None


class TlsRelay:
    """A daemon's TLS port that leads to an engine's socket."""

    def __init__(self, engine: Engine, context: ssl.SSLContext) -> None:
        self._engine, self._context = engine, context
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):  # closed
            while True:
                connection, _ = self._listening.accept()
                threading.Thread(target=self._pass_on, args=(connection,), daemon=True).start()

    def _pass_on(self, connection: socket.socket) -> None:
        with suppress(OSError), self._context.wrap_socket(connection, server_side=True) as here, socket.socket(socket.AF_UNIX) as there:
            there.connect(self._engine.socket)
            while True:
                ready = [here] if here.pending() else select.select([here, there], [], [])[0]
                for one in ready:
                    data = one.recv(65536)
                    if not data:
                        return
                    (there if one is here else here).sendall(data)

    def close(self) -> None:
        """Take no more connections."""
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()


def test_a_remote_daemon_is_lent_the_same(
    sampan: Client, engine: Engine, secret: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path / "ca")
    authority.issue("client", "localhost")[0].rename(tmp_path / "ca/cert.pem")
    (tmp_path / "ca/client.key").rename(tmp_path / "ca/key.pem")
    relay = TlsRelay(engine, authority.server("127.0.0.1"))
    secret.write_bytes(os.urandom(300 << 10))
    text = "FROM buildbase\nRUN --mount=type=secret,id=s,required sha256sum </run/secrets/s\n"
    options = ("--no-cache", "--secret", f"id=s,src={secret}")
    for name, value in (("DOCKER_TLS_VERIFY", "1"), ("DOCKER_CERT_PATH", str(tmp_path / "ca"))):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(engine, "url", f"tcp://127.0.0.1:{relay.port}")
    try:
        done = sampan(text, *options)
    finally:
        relay.close()
    assert done.returncode == 0, done.stderr
    assert digest(secret.read_bytes()) in done.stdout.splitlines()


# agents


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """An SSH key in a file."""
    if not shutil.which("ssh-agent"):
        pytest.skip("there is no OpenSSH here")
    file = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "the-test-key", "-f", str(file)], check=True, timeout=30)
    return file


@pytest.fixture
def agent(key: Path, tmp_path: Path) -> Iterator[str]:
    """The socket of an agent with the key."""
    path = str(tmp_path / "agent")
    with subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 10
            while not os.path.exists(path) and time.monotonic() < deadline:
                time.sleep(0.01)
            subprocess.run(["ssh-add", "-q", str(key)], env={**os.environ, "SSH_AUTH_SOCK": path}, check=True, timeout=30)
            yield path
        finally:
            process.terminate()


@pytest.fixture
def ssh(sampan: Client, here: Path, key: Path) -> Client:
    """A function that builds a Dockerfile after `FROM buildbase` with the host's ssh-add in it."""
    program = shutil.which("ssh-add")
    assert program is not None
    told = subprocess.run(["ldd", program], capture_output=True, text=True, check=True, timeout=30).stdout
    libraries = [word for word in told.split() if word.startswith("/")]
    for path in [program, *libraries]:
        place = here / "ssh" / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    return lambda dockerfile, *options: sampan(f"FROM buildbase\nCOPY ssh /\n{dockerfile}", *options)


def test_an_agent_is_asked_from_within(ssh: Client, agent: str, key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        "RUN --mount=type=ssh --mount=type=ssh,target=/b,mode=0666,uid=55,gid=66"
        " ssh-add -l; echo $SSH_AUTH_SOCK; stat -c '%a %u %g %F' $SSH_AUTH_SOCK /b; ssh-add -D && exit 3; SSH_AUTH_SOCK=/b ssh-add -l\n"
        "RUN ls -d /run $SSH_AUTH_SOCK /b 2>&1; true\n"
    )
    monkeypatch.setenv("SSH_AUTH_SOCK", agent)
    done = ssh(text, "--no-cache", "--ssh", "default")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert len([line for line in lines if "the-test-key (ED25519)" in line]) == 2
    assert "/run/buildkit/ssh_agent.0" in lines
    assert [line for line in lines if line.endswith(" socket")] == ["600 0 0 socket", "666 55 66 socket"]
    assert "/run" not in lines
    assert "/b" not in lines
    kept = subprocess.run(["ssh-add", "-l"], capture_output=True, text=True, check=True, timeout=30)
    assert "the-test-key" in kept.stdout


def test_agents_and_keys_by_their_ids(ssh: Client, agent: str, key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    text = "RUN --mount=type=ssh,id=%s,required ssh-add -l\n"
    for option in (f"one={agent}", f"one={key}"):
        done = ssh(text % "one", "--no-cache", "--ssh", option)
        assert "the-test-key (ED25519)" in done.stdout, done.stderr
        done = ssh(text % "two", "--no-cache", "--ssh", option)
        assert (done.returncode, done.stderr) == (1, "unset ssh forward key two\n")
    assert os.listdir(tmp_path / "tmp") == []


def test_keys_that_cannot_be_used(sampan: Client, key: Path, tmp_path: Path) -> None:
    text = "FROM buildbase\nRUN --mount=type=ssh test -S $SSH_AUTH_SOCK\n"
    key.chmod(0o644)  # as BuildKit, which reads it itself
    assert sampan(text, "--no-cache", "--ssh", f"default={key}").returncode == 0
    (tmp_path / "none").write_text("no key\n")
    locked = tmp_path / "locked"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "a phrase", "-f", str(locked)], check=True, timeout=30)
    for name, problem in (("none", "ssh: no key found"), ("locked", "ssh: this private key is passphrase protected")):
        done = sampan(text, "--ssh", f"default={tmp_path}/{name}")
        assert (done.returncode, done.stderr) == (1, f"failed to parse {tmp_path}/{name}: {problem}\n")


def test_a_step_ends_with_its_connections(engine: Engine, run_build: Build) -> None:
    """An agent that never answers holds nobody up who does not wait for it."""
    text = "FROM buildbase\nRUN --mount=type=ssh test -S /run/buildkit/ssh_agent.0\n"
    with Session(engine, "silent") as session:
        asked = in_thread(run_build, text, nocache=1, session="silent")
        assert session.next() == Frame(frames.AGENT, 1, b"default")
        session.send(frames.ACCEPT, 1)
        assert asked().code is None
