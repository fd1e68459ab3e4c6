"""Whom the user is at a registry: config.json's `auths`, or a credential helper (docker/docker-credential-helpers)."""

from __future__ import annotations

import os
import sys

from sampan.cli import configfile
from sampan.cli.flags import quote
from sampan.cli.http import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.main import Context

INDEX_SERVER = "https://index.docker.io/v1/"
TOKEN_USER = "<token>"
"""What a helper has as user name where the secret is an identity token."""
_FAILED = "Error saving credentials: "
_UNENCRYPTED = """
WARNING! Your credentials are stored unencrypted in '{}'.
Configure a credential helper to remove this warning. See
https://docs.docker.com/go/credential-store/

"""


def server_of(domain: str) -> str:
    """The key of a registry in config.json."""
    return INDEX_SERVER if domain == "docker.io" else domain


def hostname(address: str) -> str:
    """`https://host:5000/path` as `host:5000`."""
    return address.removeprefix("https://").removeprefix("http://").partition("/")[0]


def load(ctx: Context, server: str) -> dict[str, str]:
    """The credentials for a server (an AuthConfig of the API); empty if there are none, or the helper does not give them."""
    helper = _helper(ctx, server)
    if helper:
        return _from_helper(helper, server)
    auths = ctx.config.get("auths")
    if not isinstance(auths, dict):
        return {}
    entry = auths.get(server)
    if entry is None:
        entry = next((auths[key] for key in sorted(auths) if hostname(key) == server), None)
    return _from_entry(entry, server) if isinstance(entry, dict) else {}


def registry_config(ctx: Context) -> str:
    """The X-Registry-Config header: all credentials there are, by server."""
    import base64
    import json

    servers: dict[str, None] = {}
    for key in ("auths", "credHelpers"):
        section = ctx.config.get(key)
        servers.update(dict.fromkeys(section if isinstance(section, dict) else ()))
    if ctx.config.get("credsStore"):
        servers.update(dict.fromkeys(_listed(str(ctx.config["credsStore"]))))
    known = {server: auth for server in sorted(servers) if len(auth := load(ctx, server)) > 1}
    return base64.urlsafe_b64encode(json.dumps(known, separators=(",", ":")).encode()).decode()


def _listed(helper: str) -> list[str]:
    """The servers that a helper keeps something for."""
    import json

    output, problem = _ask(helper, "list", "")
    try:
        found = {} if problem else json.loads(output)
    except ValueError:
        return []
    return list(found) if isinstance(found, dict) else []


def store(ctx: Context, auth: dict[str, str]) -> None:
    """Keep credentials for their `serveraddress`. Raises CliError."""
    server = auth["serveraddress"]
    helper = _helper(ctx, server)
    entry: dict[str, str] = {}
    if helper:
        token = auth.get("identitytoken", "")
        secret = {"ServerURL": server, "Username": TOKEN_USER if token else auth["username"], "Secret": token or auth["password"]}
        output, problem = _ask(helper, "store", _json(secret))
        if problem:
            raise CliError(f"Error saving credentials: error storing credentials - err: {problem}, out: `{output}`")
    else:
        entry = _to_entry(auth)
    if _change(ctx, server, entry, _detected(ctx)) and not helper and auth.get("password"):
        sys.stderr.write(_UNENCRYPTED.format(configfile.path_of(ctx.options)))


def erase(ctx: Context, server: str) -> None:
    """Forget credentials."""
    helper = _helper(ctx, server)
    if helper:
        _ask(helper, "erase", server)
    _change(ctx, server, None)


# helpers


def _helper(ctx: Context, server: str) -> str:
    helpers = ctx.config.get("credHelpers")
    if isinstance(helpers, dict) and server in helpers:
        return str(helpers[server])
    return str(ctx.config.get("credsStore") or "") or _detected(ctx)


def _detected(ctx: Context) -> str:
    """The store that docker uses where config.json names nobody and no helper: pass, or the desktop's, if its program is here.

    docker/cli cli/config/config.go LoadDefaultConfigFile, credentials/default_store.go
    """
    if any(ctx.config.get(key) for key in ("auths", "credHelpers", "credsStore")):
        return ""
    store = "pass" if _is_here("pass") else "secretservice"
    return store if _is_here(f"docker-credential-{store}") else ""


def _is_here(program: str) -> bool:
    return any(os.access(os.path.join(place, program), os.X_OK) for place in os.get_exec_path())


def _from_helper(helper: str, server: str) -> dict[str, str]:
    import json

    output, problem = _ask(helper, "get", server)
    try:
        answer = {} if problem else json.loads(output)
        user, secret = str(answer["Username"]), str(answer["Secret"])
    except (ValueError, KeyError, TypeError):
        return {}
    if user == TOKEN_USER:
        return {"identitytoken": secret, "serveraddress": server}
    return {"username": user, "password": secret, "serveraddress": server}


def _ask(helper: str, action: str, text: str) -> tuple[str, str]:
    """What the helper writes, and what is wrong, in Go's words."""
    import subprocess

    program = f"docker-credential-{helper}"
    try:
        done = subprocess.run([program, action], input=text.encode(), stdout=subprocess.PIPE, check=False)
    except (FileNotFoundError, ValueError):  # a NUL in it
        return "", f"exec: {quote(program)}: executable file not found in $PATH"
    except OSError as error:
        return "", f"fork/exec {program}: {(error.strerror or '').lower()}"
    return done.stdout.decode("utf-8", "replace").strip(), f"exit status {done.returncode}" if done.returncode else ""


def _json(value: object) -> str:
    import json

    return json.dumps(value, separators=(",", ":"))


# config.json


def _from_entry(entry: dict[str, Any], server: str) -> dict[str, str]:
    import base64

    auth = {"serveraddress": server}
    if isinstance(entry.get("auth"), str) and entry["auth"]:
        try:
            user, _, secret = base64.b64decode(entry["auth"]).decode("utf-8", "replace").rstrip("\x00").partition(":")
        except ValueError:
            return {}
        auth |= {"username": user, "password": secret}
    for name in ("identitytoken", "registrytoken"):
        if isinstance(entry.get(name), str):
            auth[name] = entry[name]
    return auth


def _to_entry(auth: dict[str, str]) -> dict[str, str]:
    import base64

    entry = {"auth": base64.b64encode(f"{auth['username']}:{auth.get('password', '')}".encode()).decode()}
    if auth.get("identitytoken"):
        entry["identitytoken"] = auth["identitytoken"]
    return entry


def _change(ctx: Context, server: str, entry: dict[str, str] | None, detected: str = "") -> bool:
    """Set a server's entry in config.json, or take it out (None); name the store that was detected. Returns whether the entry was another.

    Raises CliError.
    """
    path = configfile.path_of(ctx.options)
    config = configfile.read(path, _FAILED)
    auths = config.pop("auths", None)
    auths = dict(auths) if isinstance(auths, dict) else {}
    if auths.get(server) == entry:
        return False
    if entry is None:
        del auths[server]
    else:
        auths[server] = entry
    store = {"credsStore": detected} if detected else {}
    configfile.write(path, {"auths": {key: auths[key] for key in sorted(auths)}, **config, **store}, _FAILED)
    return True
