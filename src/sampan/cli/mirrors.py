"""What the `sampan mirror` commands have in common: the mirrors in daemon.json, and the reload after a change."""

from __future__ import annotations

from sampan.cli import daemonfile
from sampan.cli.flags import Flag
from sampan.cli.http import CliError
from sampan.mirrors import normalised, problem_of_mirror, problem_of_registry
from sampan.reference import DEFAULT_DOMAIN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from sampan.cli.main import Context

KEY, DOCKERS_KEY = "mirrors", "registry-mirrors"
RELOAD_SECONDS = 10.0
CONFIG_FLAG = Flag(
    "config-file", "", "string", "", f"daemon.json to use (default: that of the running engine, or {daemonfile.DEFAULT_PATH})"
)


def registry_flag(default: str = DEFAULT_DOMAIN) -> Flag:
    """--registry; the default "" is: all of them."""
    return Flag("registry", "", "string", default, "Registry that is mirrored" if default else "Only the mirrors of this registry")


def check(registry: str, urls: Sequence[str] = ()) -> None:
    """Raises CliError for what sampand would refuse."""
    problem = problem_of_registry(registry) or next(filter(None, map(problem_of_mirror, urls)), "")
    if problem:
        raise CliError(problem)


def listed(document: dict[str, Any], path: str) -> dict[str, list[str]]:
    """The mirrors of each registry in a daemon.json, in the order they are asked. Raises CliError for values of other types."""
    own, hub = document.get(KEY) or {}, document.get(DOCKERS_KEY) or []
    if not isinstance(own, dict) or not all(_is_list(urls) for urls in (hub, *own.values())):
        raise CliError(f"{path} is left as it is: {KEY} or {DOCKERS_KEY} is not made of lists of URLs: see docs/mirrors.md")
    found = {DEFAULT_DOMAIN: list(hub)}
    for registry, urls in own.items():
        found.setdefault(registry, []).extend(urls)
    return found


def info_of(ctx: Context, daemon: daemonfile.Daemon) -> dict[str, Any]:
    """What a running engine says of itself; else nothing."""
    found: dict[str, Any] = ctx.client.request("GET", "/info").json() if daemon.pid else {}
    return found


def in_use(info: dict[str, Any]) -> dict[str, list[str]]:
    """The mirrors that an engine goes by, of each registry: also those given as flags."""
    return {name: one["Mirrors"] for name, one in _indexes(info).items()}


def insecure(info: dict[str, Any]) -> list[str]:
    """The insecure registries that an engine goes by."""
    networks = (info.get("RegistryConfig") or {}).get("InsecureRegistryCIDRs") or []
    return [*(name for name, one in _indexes(info).items() if not one["Secure"]), *networks]


def all_of(info: dict[str, Any], document: dict[str, Any], path: str) -> dict[str, list[str]]:
    """The mirrors in use, then those that only daemon.json has. Raises as listed does."""
    found = {name: [*map(normalised, urls)] for name, urls in listed(document, path).items()}
    for name, urls in in_use(info).items():
        found[name] = [*urls, *(url for url in found.get(name, []) if url not in urls)]
    return found


def _indexes(info: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return (info.get("RegistryConfig") or {}).get("IndexConfigs") or {}


def _is_list(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def change(ctx: Context, config_file: str, registry: str, edit: Callable[[dict[str, Any], str], str]) -> int:
    """Have daemon.json edited, and sampand read it again. edit: changes the keys; returns what to say, "" for: nothing changed.

    Raises CliError: the file cannot be used; sampand does not take it over.
    """
    daemon = daemonfile.find(ctx, config_file)
    if registry == DEFAULT_DOMAIN and daemon.has_flag("registry-mirror"):
        raise CliError(
            f"sampand was started with --registry-mirror, and takes no mirrors of {DEFAULT_DOMAIN} from {daemon.path} beside that: "
            "change the flag (on most systems in /etc/default/sampan)"
        )
    document, text = daemonfile.read(daemon.path)
    said = edit(document, daemon.path)
    if not said:
        return 0
    daemonfile.write(daemon.path, document, text)
    ctx.print(f"{said} ({daemon.path})")
    if not daemon.pid:
        ctx.print("sampand does not run: it reads this when it starts")
        return 0
    daemon.reload()
    _wait(ctx, registry, [*map(normalised, listed(document, daemon.path).get(registry, []))])
    ctx.print("sampand has read it again")
    return 0


def _wait(ctx: Context, registry: str, wanted: list[str]) -> None:
    """Until sampand goes by these mirrors of a registry. Raises CliError when it does not."""
    import time

    deadline = time.monotonic() + RELOAD_SECONDS
    while True:
        indexes = ctx.client.request("GET", "/info").json()["RegistryConfig"]["IndexConfigs"]
        if indexes.get(registry, {"Mirrors": []})["Mirrors"] == wanted:
            return
        if time.monotonic() > deadline:
            raise CliError("sampand has not taken the change over: its log says why (journalctl -u sampan, or /var/log/sampan.log)")
        time.sleep(0.05)
