"""docker login and logout: the same with docker's client and with ours, against real registries; and that pull and push then work."""

import json
import os
import pty
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from tests.support.engine import CLI, Engine
from tests.support.faultyregistry import FaultyRegistry
from tests.support.realregistry import RealRegistry
from tests.support.registries import Docker, load
from tests.support.tars import tar

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("no_images_left")]

HTPASSWD = "user:$2y$05$abcdefghijklmnopqrstuuNF5/gKGv1vSzRBclZtmf77tbZMWqiPK\n"
"""bcrypt of `good`"""
HELPER = """#!/bin/sh
# a credential helper that keeps one file for each server
store=$(dirname "$0")/store; mkdir -p "$store"
text=$(cat); echo "$1 $text" >> "$store/log"
case $1 in
store) echo "$text" > "$store/$(echo "$text" | sed 's/.*"ServerURL":"\\([^"]*\\)".*/\\1/' | tr / _)" ;;
get) cat "$store/$(echo "$text" | tr / _)" 2>/dev/null || { echo "credentials not found in native keychain"; exit 1; } ;;
erase) rm -f "$store/$(echo "$text" | tr / _)" ;;
esac
"""


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRegistry]:
    """A registry that wants Basic authentication: `user`, `good`."""
    directory = tmp_path_factory.mktemp("guarded")
    (directory / "htpasswd").write_text(HTPASSWD)
    registry = RealRegistry(directory, auth={"htpasswd": {"realm": "here", "path": str(directory / "htpasswd")}})
    yield registry
    registry.close()


class Client:
    """docker's client or ours, with a home of its own."""

    def __init__(self, engine: Engine, command: list[str], home: Path) -> None:
        self.command, self.home = command, home
        home.mkdir()
        helper = home / "docker-credential-fake"
        helper.write_text(HELPER)
        helper.chmod(0o755)
        path = f"{home}:{os.environ['PATH']}"
        self.environment = {**engine.environment(), "DOCKER_CONFIG": str(home / "config"), "PATH": path}

    def run(self, *args: str, stdin: str = "") -> tuple[int, str, str]:
        done = subprocess.run(
            [*self.command, *args], input=stdin, capture_output=True, text=True, timeout=60, env=self.environment, check=False
        )
        return done.returncode, done.stdout, done.stderr.replace(str(self.home), "HOME").replace("sampan", "docker")

    def configure(self, text: str) -> None:
        (self.home / "config").mkdir(exist_ok=True)
        (self.home / "config/config.json").write_text(text)

    @property
    def config(self) -> str:
        file = self.home / "config/config.json"
        return file.read_text() if file.exists() else ""

    @property
    def helper_log(self) -> str:
        file = self.home / "store/log"
        return file.read_text() if file.exists() else ""


@pytest.fixture
def clients(engine: Engine, docker_path: str, tmp_path: Path) -> tuple[Client, Client]:
    return Client(engine, [docker_path], tmp_path / "theirs"), Client(engine, CLI, tmp_path / "ours")


def both(clients: tuple[Client, Client], *args: str, stdin: str = "") -> tuple[int, str, str]:
    """Run the same with both; all that can be seen must be the same."""
    theirs, ours = (client.run(*args, stdin=stdin) for client in clients)
    assert ours == theirs
    assert clients[1].config == clients[0].config
    assert clients[1].helper_log == clients[0].helper_log
    return ours


def test_the_whole_life_of_a_login(clients: tuple[Client, Client], guarded: RealRegistry) -> None:
    host = guarded.host
    code, out, err = both(clients, "login", host, "-u", "user", "-p", "good")
    assert (code, out) == (0, "Login Succeeded\n")
    assert "--password via the CLI is insecure" in err
    assert "stored unencrypted in 'HOME/config/config.json'" in err
    file = clients[1].home / "config/config.json"
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert json.loads(file.read_text()) == {"auths": {host: {"auth": "dXNlcjpnb29k"}}}
    assert both(clients, "login", host)[:2] == (0, "Login Succeeded\n")
    assert both(clients, "login", f"https://{host}/x", "-u", "user", "--password-stdin", stdin="good\n")[0] == 0
    assert both(clients, "logout", f"http://{host}/")[:2] == (0, f"Removing login credentials for {host}\n")
    assert both(clients, "logout", host)[0] == 0
    assert both(clients, "logout")[0] == 0


def test_what_goes_wrong(clients: tuple[Client, Client], guarded: RealRegistry) -> None:
    host = guarded.host
    assert "failed with status: 401 Unauthorized" in both(clients, "login", host, "-u", "user", "-p", "bad")[2]
    for words in (
        ["login", host],
        ["login"],
        ["login", host, "-u", "user"],
        ["login", host, "--password-stdin"],
        ["login", host, "-u", "user", "-p", "x", "--password-stdin"],
        ["login", host, "-u", "user", "--password-stdin"],
    ):
        assert both(clients, *words)[0] == 1
    for client in clients:
        client.configure(json.dumps({"auths": {host: {"auth": "dXNlcjpiYWQ="}}, "psFormat": "x"}))
    assert both(clients, "login", host)[0] == 1


def test_a_token_server(clients: tuple[Client, Client], registry: FaultyRegistry) -> None:
    registry.login, host = ("user", "good"), registry.host
    assert both(clients, "login", host, "-u", "user", "-p", "bad")[2].endswith("unauthorized: incorrect username or password\n")
    registry.token_answer = {"refresh_token": "for-later"}
    assert both(clients, "login", host, "-u", "user", "-p", "good")[0] == 0
    assert json.loads(clients[1].config)["auths"][host]["identitytoken"] == "for-later"
    assert any("offline_token=true" in line and "scope" not in line for line in registry.requests)


@pytest.mark.parametrize("setting", [{"credsStore": "fake"}, {"credHelpers": {"HOST": "fake"}}], ids=["credsStore", "credHelpers"])
def test_credential_helpers(
    clients: tuple[Client, Client], guarded: RealRegistry, engine: Engine, setting: dict[str, Any], tmp_path: Path
) -> None:
    host = guarded.host
    for client in clients:
        client.configure(json.dumps(setting).replace("HOST", host))
    assert both(clients, "login", host, "-u", "user", "-p", "good")[0] == 0
    assert "dXNlcjpnb29k" not in clients[1].config
    assert both(clients, "login", host)[0] == 0
    name = f"{host}/helped/{'-'.join(setting).lower()}:1"
    load(engine, name, tar(("f", "a", "b")))
    assert clients[1].run("push", name)[0] == 0
    assert clients[1].run("pull", name)[0] == 0
    assert clients[0].run("pull", name)[0] == 0
    assert clients[1].helper_log.count("get") == clients[0].helper_log.count("get") + 1
    for client in clients:
        (client.home / "store/log").unlink()
    assert both(clients, "logout", host)[0] == 0
    assert clients[1].run("push", name)[2] == "no basic auth credentials\n"
    path = name.removeprefix(f"{host}/").removesuffix(":1")
    assert f'Get "http://{host}/v2/{path}/manifests/1": no basic auth credentials' in clients[1].run("pull", name)[2]


@pytest.mark.parametrize("programs", [["secretservice"], ["secretservice", "pass"], ["pass"], []], ids="+".join)
def test_the_store_that_is_found(clients: tuple[Client, Client], guarded: RealRegistry, programs: list[str]) -> None:
    """A config.json that names nobody: docker takes the store whose program is here, and pass where pass(1) is."""
    for client in clients:
        for program in programs:
            shutil.copy(client.home / "docker-credential-fake", client.home / f"docker-credential-{program}")
        if "pass" in programs:
            shutil.copy("/bin/true", client.home / "pass")
        client.configure("{}")
    both(clients, "login", guarded.host, "-u", "user", "--password-stdin", stdin="good")
    assert ("credsStore" in clients[1].config) == bool(programs)
    both(clients, "login", guarded.host)
    both(clients, "logout", guarded.host)


@pytest.mark.parametrize("helper", ["missing", "a\\u0000b"])
def test_a_helper_that_is_missing(clients: tuple[Client, Client], guarded: RealRegistry, helper: str) -> None:
    for client in clients:
        client.configure(f'{{"credsStore": "{helper}"}}')
    assert both(clients, "login", guarded.host, "-u", "user", "-p", "good")[0] == 1
    both(clients, "logout", guarded.host)


def test_a_broken_file_is_not_lost(clients: tuple[Client, Client], guarded: RealRegistry) -> None:
    _, client = clients
    client.configure('{"psFormat": "precious",')
    code, _, err = client.run("login", guarded.host, "-u", "user", "-p", "good")
    assert (code, "is left as it is" in err, client.config) == (1, True, '{"psFormat": "precious",')


def test_a_link_stays_one(clients: tuple[Client, Client], guarded: RealRegistry, tmp_path: Path) -> None:
    for number, client in enumerate(clients):
        (tmp_path / f"{number}.json").write_text('{"psFormat": "x"}')
        (tmp_path / f"{number}.json").chmod(0o640)
        (client.home / "config").mkdir()
        (client.home / "config/config.json").symlink_to(tmp_path / f"{number}.json")
    assert both(clients, "login", guarded.host, "-u", "user", "-p", "good")[0] == 0
    file = clients[1].home / "config/config.json"
    assert (file.is_symlink(), file.stat().st_mode & 0o777) == (True, 0o640)


def test_asked_at_a_terminal(engine: Engine, clients: tuple[Client, Client], guarded: RealRegistry) -> None:
    _, client = clients
    main, side = pty.openpty()
    process = subprocess.Popen([*client.command, "login", guarded.host], stdin=side, stdout=side, stderr=side, env=client.environment)
    os.close(side)
    shown = b""

    def wait(text: bytes) -> None:
        nonlocal shown
        deadline = time.monotonic() + 20
        while text not in shown:
            assert time.monotonic() < deadline, shown
            shown += os.read(main, 1000)

    wait(b"Username: ")
    os.write(main, b"user\n")
    wait(b"Password: ")
    os.write(main, b"good\n")
    wait(b"Login Succeeded")
    assert process.wait(20) == 0
    os.close(main)
    assert b"good" not in shown


def test_docker_py_logs_in(engine: Engine, guarded: RealRegistry, make_engine: Callable[..., Engine]) -> None:
    body = {"username": "user", "password": "good", "serveraddress": guarded.host}
    assert engine.request("POST", "/auth", body) == (200, {"IdentityToken": "", "Status": "Login Succeeded"})
    assert engine.request("POST", "/auth", {**body, "serveraddress": "http://[::1"})[0] == 400
    status, answer = engine.request("POST", "/auth", {**body, "serveraddress": "127.0.0.1:1"})
    assert (status, "connection refused" in answer["message"]) == (500, True)


def test_push_and_pull_with_a_token(engine: Engine, docker: Docker, registry: FaultyRegistry) -> None:
    registry.login = ("user", "good")
    directory = Path(engine.environment()["DOCKER_CONFIG"])
    try:
        assert docker("login", registry.host, "-u", "user", "--password-stdin", stdin=b"good").returncode == 0
        name = f"{registry.host}/mine/app:1"
        load(engine, name, tar(("f", "a", "mine")))
        assert docker("push", name).returncode == 0
        assert docker("tag", name, f"{registry.host}/mine/other:1").returncode == 0
        assert "Mounted from mine/app" in docker("push", f"{registry.host}/mine/other:1").stdout
        assert docker("rmi", name).returncode == 0
        assert docker("pull", name).returncode == 0
        scopes = [unquote(line) for line in registry.requests if "/token" in line]
        assert any("mine/other:pull,push&scope=repository:mine/app:pull" in line for line in scopes)
    finally:
        (directory / "config.json").unlink()
