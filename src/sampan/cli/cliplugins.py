"""Programs that are commands of the client: `docker-NAME` in the directories for docker's CLI plugins (compose, buildx, ...).

A plugin says what it is when it is called with `docker-cli-plugin-metadata`, and gets the whole command line when it is run. Its hooks are
never called.
"""

from __future__ import annotations

import os

from sampan.cli import fastjson
from sampan.cli.flags import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from sampan.cli.flags import Parsed

_PREFIX = "docker-"
_METADATA = "docker-cli-plugin-metadata"
_ORIGINAL = "DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND"
_SYSTEM = tuple(f"{place}/docker/cli-plugins" for place in ("/usr/local/lib", "/usr/local/libexec", "/usr/lib", "/usr/libexec"))
_TEXTS = ("SchemaVersion", "Vendor", "Version", "ShortDescription", "URL")
_MAX = 1 << 20


class Plugin:
    """A plugin as its metadata describe it; `problem` is why it cannot be used. `shadowed`: files of the same name that come later."""

    def __init__(self, name: str, path: str, shadowed: Sequence[str] = ()) -> None:
        self.name = name
        self.path = path
        self.shadowed = list(shadowed)
        self.texts: dict[str, str] = {}
        self.problem = _name_problem(name) or self._load()

    def _load(self) -> str:
        import subprocess

        try:
            done = subprocess.run([self.path, _METADATA], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False)
        except OSError as error:
            return f"failed to fetch metadata: fork/exec {self.path}: {(error.strerror or '').lower()}"
        if done.returncode:
            status = f"exit status {done.returncode}" if done.returncode > 0 else f"signal {-done.returncode}"
            return f"failed to fetch metadata: {status}"
        raw = done.stdout[:_MAX]
        try:
            found = fastjson.loads(raw)
        except ValueError:
            from sampan.cli.gotext import json_error

            return f"invalid metadata: {json_error(raw)}"
        if isinstance(found, dict):
            self.texts = {key: str(found[key]) for key in _TEXTS if found.get(key)}
        if self.texts.get("SchemaVersion") != "0.1.0":
            return f"plugin SchemaVersion {quote(self.texts.get('SchemaVersion', ''))} is not valid, must be 0.1.0"
        return "" if self.texts.get("Vendor") else "plugin metadata does not define a vendor"

    def as_json(self) -> dict[str, Any]:
        """What `info` knows of it, by docker's names."""
        return {**self.texts, "Name": self.name, "Path": self.path, "Err": self.problem, "ShadowedPaths": self.shadowed}


def _name_problem(name: str) -> str:
    from sampan.cli.main import COMMANDS, GROUPS

    if not _is_valid(name):
        return f'plugin candidate {quote(name)} did not match "^[a-z][a-z0-9]*$"'
    return f"plugin {quote(name)} duplicates builtin command" if name in COMMANDS or name in GROUPS else ""


def _is_valid(name: str) -> bool:
    return name.isascii() and name[:1].isalpha() and name.isalnum() and name.islower()


def _directories(options: Parsed) -> list[str]:
    """Where plugins are looked for; the first one found of a name is the one."""
    from sampan.cli.connect import load_config

    extra = load_config(options).get("cliPluginsExtraDirs")
    return [*(str(one) for one in (extra if isinstance(extra, list) else ())), os.path.join(options.str("config"), "cli-plugins"), *_SYSTEM]


def find(options: Parsed, name: str) -> Plugin | None:
    """The plugin that a command's name stands for, if there is one that can be used."""
    if not _is_valid(name):
        return None
    for directory in _directories(options):
        path = os.path.join(directory, _PREFIX + name)
        if os.path.exists(path):
            plugin = Plugin(name, path)
            return None if plugin.problem else plugin
    return None


def alias_of(options: Parsed, name: str) -> str:
    """The plugin that config.json's `aliases` name for `builder`, the one command that can have one; any other name as it is."""
    from sampan.cli.connect import load_config

    aliases = load_config(options).get("aliases")
    return str(aliases.get(name) or name) if name == "builder" and isinstance(aliases, dict) else name


def listed(options: Parsed) -> list[Plugin]:
    """All plugins, by name, those that cannot be used too."""
    from sampan.units import natural_key

    paths: dict[str, list[str]] = {}
    for directory in _directories(options):
        try:
            entries = list(os.scandir(directory))
        except OSError:
            continue
        for entry in entries:
            if entry.name.startswith(_PREFIX) and (entry.is_symlink() or entry.is_file()):
                paths.setdefault(entry.name.removeprefix(_PREFIX), []).append(entry.path)
    return [Plugin(name, first, rest) for name, (first, *rest) in sorted(paths.items(), key=lambda item: natural_key(item[0]))]


def run(options: Parsed, plugin: Plugin, words: Sequence[str]) -> None:
    """Become the plugin, with the whole command line. Raises OSError."""
    os.execve(plugin.path, [plugin.path, *words], _environment(options))


def _environment(options: Parsed) -> dict[str, str]:
    """What plugins get: docker's libraries in them have another daemon for a default."""
    from sampan.cli.connect import current_context
    from sampan.cli.http import DEFAULT_HOST
    from sampan.cli.main import PROGRAM

    environment = {**os.environ, _ORIGINAL: PROGRAM}
    if current_context(options) == "default" and not options.list("host"):
        environment["DOCKER_HOST"] = os.environ.get("DOCKER_HOST") or DEFAULT_HOST
    return environment


def complete(options: Parsed, plugin: Plugin, words: Sequence[str]) -> tuple[list[str], int] | None:
    """Candidates that a plugin has for the words behind its name, and cobra's directive, which is ours; None if it has none."""
    import subprocess

    environment = _environment(options)
    command = [plugin.path, "__complete", plugin.name, *words]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, errors="replace")
    *found, directive = done.stdout.splitlines() or [""]
    if done.returncode or not directive[1:].isdecimal() or directive[0] != ":":
        return None
    return found, int(directive[1:])
