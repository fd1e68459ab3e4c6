"""/info says what confines containers, and what does not."""

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sampan.api.encode import system_info
from sampan.engine.limits import limits_of
from sampan.engine.registries import RegistrySettings
from sampan.engine.system import SystemFacts, SystemService
from sampan.runtime.cgroups import Layout
from sampan.spec.docker_api.system import SystemInfo


class Meta(dict[str, str]):
    def put(self, key: str, value: str) -> None:
        self[key] = value


def info(sysfs: Path, facts: SystemFacts | None = None) -> SystemInfo:
    parts: list[Any] = [
        [],
        SimpleNamespace(count=0),
        SimpleNamespace(driver="overlay2", status=[], mount_options=[]),
        SimpleNamespace(listeners=0),
        Meta(),
    ]
    return asyncio.run(SystemService(*parts, facts or SystemFacts(data_root="/x"), lambda: ["WARNING: another"], str(sysfs)).info())


@pytest.mark.parametrize("enabled", ["Y\n", "N\n", None])
def test_apparmor_that_is_not_applied_is_a_warning_and_no_security_option(enabled: str | None, tmp_path: Path) -> None:
    if enabled is not None:
        file = tmp_path / "module/apparmor/parameters/enabled"
        file.parent.mkdir(parents=True)
        file.write_text(enabled)
    found = info(tmp_path)
    warnings = found.warnings or []
    assert warnings[0] == "WARNING: another"
    assert [text for text in warnings if "AppArmor is enabled, but no profile is applied" in text] == (
        warnings[1:] if enabled == "Y\n" else []
    )
    assert len(warnings) == (2 if enabled == "Y\n" else 1)
    assert not any("apparmor" in option for option in found.security_options)


@pytest.mark.parametrize("version", [(1, 50), (1, 40)])
def test_registries_are_those_that_a_pull_goes_by(tmp_path: Path, version: tuple[int, int]) -> None:
    listed = ("127.0.0.0/8", "10.1.2.3/16", "http://reg.example:5000", "10.0.0.7:5000")
    registries = RegistrySettings(mirrors=("https://m.example", "http://n.example/p/"), insecure_registries=listed)
    facts = SystemFacts(data_root="/x", registries=registries)
    shown = json.loads(system_info(info(tmp_path, facts), version))["RegistryConfig"]
    assert shown["Mirrors"] == ["https://m.example/", "http://n.example/p/"]
    assert shown["InsecureRegistryCIDRs"] == ["::1/128", "127.0.0.0/8", "10.1.0.0/16"]
    assert shown["IndexConfigs"] == {
        "docker.io": {"Name": "docker.io", "Mirrors": shown["Mirrors"], "Secure": True, "Official": True},
        "reg.example:5000": {"Name": "reg.example:5000", "Mirrors": [], "Secure": False, "Official": False},
        "10.0.0.7:5000": {"Name": "10.0.0.7:5000", "Mirrors": [], "Secure": False, "Official": False},
    }


def test_mirrors_of_any_registry_are_shown(tmp_path: Path) -> None:
    registries = RegistrySettings(
        mirrors=("https://m.example",), mirrors_by_registry={"ghcr.io": ("https://g.example/ghcr",), "docker.io": ("https://all.example",)}
    )
    shown = json.loads(system_info(info(tmp_path, SystemFacts(data_root="/x", registries=registries)), (1, 50)))["RegistryConfig"]
    assert shown["Mirrors"] == ["https://m.example/", "https://all.example/"]
    assert shown["IndexConfigs"]["ghcr.io"] == {
        "Name": "ghcr.io",
        "Mirrors": ["https://g.example/ghcr/"],
        "Secure": True,
        "Official": False,
    }


def test_without_any_setting_registries_are_dockers(tmp_path: Path) -> None:
    golden = json.loads(Path("tests/golden/cli/api.json").read_text())
    [dockers] = [value["RegistryConfig"] for value in found_in(golden, "RegistryConfig")]
    assert json.loads(system_info(info(tmp_path), (1, 50)))["RegistryConfig"] == dockers


def found_in(value: Any, key: str) -> list[Any]:
    """All objects in a document that have this key."""
    items = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return [value] * (isinstance(value, dict) and key in value) + [hit for item in items for hit in found_in(item, key)]


@pytest.mark.parametrize("swap", [True, False])
def test_limits_are_found_where_the_hierarchy_is_mounted(tmp_path: Path, swap: bool) -> None:
    (tmp_path / "memory.oom_control").touch()
    if swap:
        (tmp_path / "memory.memsw.limit_in_bytes").touch()
    found = limits_of(Layout(version=1, v1=(("memory", str(tmp_path)),)))
    assert (found.swap, found.oom_kill_disable, found.swappiness) == (swap, True, False)
