"""`system check` as a whole, over looks that are made up: what is believed, what counts as repaired."""

import asyncio
from typing import cast

import pytest

from sampan.engine.check import CheckService, LayerCheck, Look
from sampan.errors import SystemFailure
from sampan.findings import Finding
from sampan.spec.docker_api.system import CheckFinding


class Things:
    """A part of the engine in which things are wrong."""

    def __init__(self, *wrong: str) -> None:
        self.wrong = list(wrong)
        self.looks = 0
        self.stubborn: set[str] = set()

    async def look(self) -> list[Finding]:
        self.looks += 1
        return [Finding("file", name, "is wrong", "remove it", lambda name=name: self._mend(name)) for name in self.wrong]

    def _mend(self, name: str) -> None:
        if name in self.stubborn:
            raise OSError(1, "no")
        self.wrong.remove(name)
        if name == "outer":
            self.wrong.append("inner")


def check(*looks: Look, repair: bool = False) -> list[CheckFinding]:
    service = CheckService(looks, cast("LayerCheck", None), again_seconds=0)
    return asyncio.run(service.check(repair=repair, deep=False)).findings


def told(findings: list[CheckFinding]) -> list[tuple[str, bool]]:
    return [(finding.subject, finding.repaired) for finding in findings]


def test_what_is_well_is_looked_at_once() -> None:
    things = Things()
    assert check(things.look) == []
    assert things.looks == 1


def test_what_goes_by_itself_is_not_told() -> None:
    things = Things("stays", "goes")

    async def look() -> list[Finding]:
        found = await things.look()
        things.wrong = ["stays", "new"]
        return found

    assert told(check(look)) == [("stays", False)]


def test_a_repair_is_looked_at_again() -> None:
    things = Things("a", "b")
    things.stubborn = {"b"}
    assert told(check(things.look, repair=True)) == [("a", True), ("b", False)]
    assert things.wrong == ["b"]


def test_what_a_repair_brings_to_light_is_repaired_too() -> None:
    assert told(check(Things("outer").look, repair=True)) == [("outer", True), ("inner", True)]


@pytest.mark.parametrize("error", [SystemFailure("no"), OSError("no")])
def test_a_look_that_fails_hides_no_other(error: Exception) -> None:
    async def broken() -> list[Finding]:
        raise error

    findings = check(broken, Things("a").look, repair=True)
    assert [(finding.kind, finding.problem, finding.repaired) for finding in findings] == [
        ("file", "is wrong", True),
        ("check", "cannot be done: no", False),
    ]
