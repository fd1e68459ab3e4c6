"""Events: docker's filters, times, and the bounds of what is kept and waits."""

import asyncio

import pytest

from sampan.events import bus
from sampan.events.bus import Event, EventBus, matches

RUN = Event(1, "container", "exec_create: true ", "c" * 64, {"name": "web-1", "image": "docker.io/library/box:1", "tier": "front"})
NETWORK = Event(1, "network", "connect", "n" * 64, {"name": "web-net", "container": "c" * 64, "type": "bridge"})
IMAGE = Event(1, "image", "tag", "sha256:" + "a" * 64, {"name": "box:1"})


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"container": ["web"]}, [RUN, NETWORK]),  # docker asks what ID and name begin with, and not what they are of
        ({"container": ["web"], "type": ["container"]}, [RUN]),
        ({"container": ["ccc"]}, [RUN]),
        ({"network": ["web-net"]}, [NETWORK]),
        ({"container": ["eb-1"]}, []),
        ({"event": ["exec_create"]}, [RUN]),
        ({"event": ["exec"]}, []),
        ({"event": ["connect", "tag"]}, [NETWORK, IMAGE]),
        ({"image": ["box"]}, [IMAGE]),
        ({"image": ["docker.io/library/box"]}, [RUN]),
        ({"label": ["tier=front"]}, [RUN]),
        ({"label": ["tier", "tier=back"]}, []),
        ({"scope": ["local"]}, [RUN, NETWORK, IMAGE]),
        ({"scope": ["swarm"]}, []),
        ({"node": ["x"]}, []),
        ({"type": ["image", "network"]}, [NETWORK, IMAGE]),
    ],
)
def test_filters(filters: dict[str, list[str]], expected: list[Event]) -> None:
    assert [event for event in (RUN, NETWORK, IMAGE) if matches(event, filters)] == expected


class Hand:
    """A clock that stands still."""

    now = 1000

    def now_ns(self) -> int:
        return self.now


async def taken(source: EventBus, since: int | None, until: int | None) -> list[str]:
    return [event.actor_id async for event in source.subscribe({}, since, until)]


def test_times() -> None:
    clock = Hand()
    source = EventBus(clock)
    for number in range(5):
        clock.now = 1000 + number
        source.publish("volume", "create", str(number), {})
    assert asyncio.run(taken(source, 1001, 1003)) == ["1", "2", "3"]
    assert asyncio.run(taken(source, None, 1003)) == []


def test_what_is_kept_has_bounds() -> None:
    clock = Hand()
    source = EventBus(clock)
    for number in range(bus.HISTORY + 10):
        source.publish("volume", "create", str(number), {})
    assert len(asyncio.run(taken(source, 1, 1000))) == bus.HISTORY
    for number in range(20):
        source.publish("volume", "create", f"large{number}", {"label": "x" * (bus.HISTORY_BYTES // 10)})
    assert asyncio.run(taken(source, 1, 1000)) == [f"large{number}" for number in range(11, 20)]


@pytest.mark.parametrize(("size", "most"), [(1, bus.QUEUE_LIMIT), (bus.HISTORY_BYTES // 8, 10)])
def test_who_does_not_take_its_events_is_cut_off(size: int, most: int) -> None:
    async def main() -> int:
        source = EventBus(Hand())
        events = source.subscribe({}, None, None)
        first = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        for number in range(bus.QUEUE_LIMIT + 100):
            source.publish("volume", "create", str(number), {"label": "x" * size})
        assert source.listeners == 0
        await first
        return 1 + len([event async for event in events])

    assert 5 <= asyncio.run(main()) <= most


def test_one_that_takes_them_is_not() -> None:
    async def main() -> None:
        source = EventBus(Hand())
        events = source.subscribe({}, None, None)
        for number in range(3 * bus.QUEUE_LIMIT):
            following = asyncio.ensure_future(anext(events))
            await asyncio.sleep(0)
            source.publish("volume", "create", str(number), {})
            assert (await following).actor_id == str(number)
        await events.aclose()
        assert source.listeners == 0

    asyncio.run(main())
