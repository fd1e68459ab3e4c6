"""/info says what confines containers, and what does not."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sampan.engine.system import SystemFacts, SystemService
from sampan.spec.docker_api.system import SystemInfo


class Meta(dict[str, str]):
    def put(self, key: str, value: str) -> None:
        self[key] = value


def info(sysfs: Path) -> SystemInfo:
    parts: list[Any] = [
        [],
        SimpleNamespace(count=0),
        SimpleNamespace(driver="overlay2", status=[], mount_options=[]),
        SimpleNamespace(listeners=0),
        Meta(),
    ]
    return asyncio.run(SystemService(*parts, SystemFacts(data_root="/x"), lambda: ["WARNING: another"], str(sysfs)).info())


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
