"""Which of several endpoints is asked, and for how long one that fails is not."""

import asyncio
from typing import Any, cast

import pytest

from sampan.distribution.endpoints import Endpoint
from sampan.distribution.registry import Refused
from sampan.distribution.transport import Unreachable
from sampan.engine import asking
from sampan.engine.asking import ASIDE_SECONDS, Answers, SetAside, patient, unreachable
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


@pytest.mark.usefixtures("hurried")
def test_while_a_mirror_hangs_on_an_image_those_behind_it_are_pinged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "MIRROR_ANSWER_SECONDS", 0.3)
    places = [Place("mirror", ""), Place("mirror", "silent"), Place("registry", "")]

    async def scenario() -> None:
        async with Answers(cast("Any", places), "docker.io") as answers:
            await answers.of(0)
            with pytest.raises(Unreachable, match=r"Client\.Timeout"):
                await answers.what(0, asyncio.Event().wait())
            assert [place.pings for place in places] == [1, 1, 1]

    asyncio.run(scenario())


@pytest.mark.usefixtures("hurried")
def test_a_mirror_that_answers_is_the_only_one_asked() -> None:
    places = [Place("mirror", ""), Place("registry", "")]

    async def scenario() -> int:
        async with Answers(cast("Any", places), "docker.io") as answers:
            await answers.of(0)
            return await answers.what(0, asyncio.sleep(0, 7))

    assert asyncio.run(scenario()) == 7
    assert places[1].pings == 0


@pytest.mark.parametrize(
    ("refusals", "asked"),
    [
        ([], 1),
        ([(503, 0)], 2),
        ([(503, 1), (502, 0)], 3),
        ([(429, 1)], 2),
        ([(429, 0)], -1),
        ([(429, 60)], -1),
        ([(503, 60)], -1),
        ([(404, 0)], -1),
        ([(500, 0)] * 50, -5),
    ],
)
def test_a_busy_registry_is_asked_again(monkeypatch: pytest.MonkeyPatch, refusals: list[tuple[int, int]], asked: int) -> None:
    """asked: how often; negative: and then its refusal is ours."""
    left, times, slept = list(refusals), 0, 0.0

    async def ask() -> str:
        nonlocal times
        times += 1
        if left:
            status, retry_after = left.pop(0)
            raise Refused(status, "no", "", retry_after)
        return "good"

    async def scenario() -> str:
        loop = asyncio.get_running_loop()
        begin = loop.time()
        monkeypatch.setattr(loop, "time", lambda: begin + slept)

        async def sleep(seconds: float) -> None:
            nonlocal slept
            slept += seconds

        monkeypatch.setattr(asking.asyncio, "sleep", sleep)
        return await patient(ask)

    try:
        assert asyncio.run(scenario()) == "good"
        assert times == asked
    except Refused:
        assert times == -asked
    assert slept <= asking.BUSY_SECONDS


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
