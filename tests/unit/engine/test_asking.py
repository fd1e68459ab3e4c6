"""Which of several endpoints is asked, and for how long one that fails is not."""

import asyncio
from typing import Any, cast

import pytest

from sampan.distribution.endpoints import Endpoint
from sampan.distribution.transport import Unreachable
from sampan.engine import asking
from sampan.engine.asking import ASIDE_SECONDS, Answers, SetAside, unreachable
from sampan.errors import SystemFailure
from sampan.reference import parse

MIRROR = "https://m.example"


class Clock:
    """A clock that stands still."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def now_ns(self) -> int:
        return 0


def test_a_mirror_comes_back_after_a_while() -> None:
    clock = Clock()
    aside = SetAside(clock)
    assert (aside.reason(MIRROR), aside.seconds(MIRROR)) == ("", 0)
    aside.put(MIRROR, "why")
    clock.now += ASIDE_SECONDS - 0.5
    assert (aside.reason(MIRROR), aside.seconds(MIRROR)) == ("why", 1)
    clock.now += 0.5
    assert (aside.reason(MIRROR), aside.seconds(MIRROR)) == ("", 0)
    aside.put(MIRROR, "why")
    aside.forget(MIRROR)
    assert aside.reason(MIRROR) == ""


class Place:
    """Stands for a Repository: answers a ping at once, never, or with an error."""

    def __init__(self, kind: str, how: str) -> None:
        self.endpoint = Endpoint(f"https://{kind}.example", mirror=kind == "mirror")
        self.how, self.pings = how, 0

    async def ping(self) -> None:
        self.pings += 1
        if self.how == "silent":
            await asyncio.Event().wait()
        if self.how == "fails":
            raise Unreachable("refused")


def ask(*places: Place, domain: str = "docker.io") -> list[str]:
    """What each says, in order, up to the first that answers."""

    async def scenario() -> list[str]:
        said = []
        async with Answers(cast("Any", places), domain) as answers:
            for at in range(len(places)):
                try:
                    await answers.of(at)
                    await asyncio.sleep(0.05)  # what would be asked of it
                    return [*said, "good"]
                except SystemFailure as error:
                    said.append("silent" if "Client.Timeout" in str(error) else str(error))
        return said

    return asyncio.run(scenario())


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MIRROR_SECONDS", "HEAD_START_SECONDS"):
        monkeypatch.setattr(asking, name, getattr(asking, name) / 40)
    monkeypatch.setattr(asking, "ALL_SECONDS", 1.2)


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize(
    ("ways", "said", "pings"),
    [
        (["", "", ""], ["good"], [1, 0, 0]),
        (["fails", "", ""], ["refused", "good"], [1, 1, 0]),
        (["silent", "", ""], ["silent", "good"], [1, 1, 0]),
        (["silent", "silent", "fails"], ["silent", "silent", "refused"], [1, 1, 1]),
        (["fails", "fails", "silent"], ["refused", "refused", "silent"], [1, 1, 1]),
    ],
)
def test_who_is_asked(ways: list[str], said: list[str], pings: list[int]) -> None:
    places = [Place("mirror" if at < 2 else "registry", how) for at, how in enumerate(ways)]
    assert ask(*places) == said
    assert [place.pings for place in places] == pings


def test_a_registrys_address_in_the_clear_waits_for_the_other_one() -> None:
    async def scenario() -> int:
        places = [Place("registry", "silent"), Place("registry", "")]
        async with Answers(cast("Any", places), "localhost:5000"):
            await asyncio.sleep(asking.HEAD_START_SECONDS * 2)
        return places[1].pings

    assert asyncio.run(scenario()) == 0


def test_the_error_of_a_registry_without_mirrors_is_its_own() -> None:
    failure = Unreachable("refused")
    assert unreachable(parse("r.example/app:1"), [(Endpoint("https://r.example"), failure)]) is failure
