"""The event bus: publishes, keeps docker's last 256 for `since`, filters for each subscriber."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import NamedTuple

from sampan.clock import Clock
from sampan.filters import Filters, labels_match

HISTORY = 256
HISTORY_BYTES = 4 * 1024 * 1024
"""What the kept events' texts may take up: labels come from clients, and may be long."""
QUEUE_LIMIT = 4096
"""Events a subscriber may be behind before it is cut off, so that a stalled client cannot grow the daemon."""


class Event(NamedTuple):
    """One thing that happened. `type` and `action` are docker's words."""

    time_ns: int
    type: str
    action: str
    actor_id: str
    attributes: Mapping[str, str]


def _begins_so(event: Event, wanted: Sequence[str]) -> bool:
    """docker's container=, network=...: by what an ID or name begins with, whatever the event is of (moby daemon/events/filter.go)."""
    return event.actor_id.startswith(tuple(wanted)) or event.attributes.get("name", "").startswith(tuple(wanted))


def _is_of_image(event: Event, wanted: Sequence[str]) -> bool:
    """docker's image= filter: of images, and of what was made of them; by ID, ID prefix or name, with a tag or without."""
    name = event.attributes.get("name" if event.type == "image" else "image", "")
    identity = event.actor_id if event.type == "image" else ""
    for value in wanted:
        bare = name.rpartition(":")[0] if ":" in name.rpartition("/")[2] else name
        if value in (name, bare, identity) or (identity and len(value) >= 3 and identity.removeprefix("sha256:").startswith(value)):
            return True
    return False


def matches(event: Event, filters: Filters) -> bool:
    """Whether an event passes: values of one key OR together, keys AND together."""
    for key, wanted in filters.items():
        if not wanted:
            continue
        if key == "event":
            base = event.action.partition(":")[0]
            passed = event.action in wanted or base in wanted
        elif key == "type":
            passed = event.type in wanted
        elif key == "label":
            passed = labels_match(event.attributes, wanted)
        elif key == "scope":
            passed = "local" in wanted
        elif key == "image":
            passed = _is_of_image(event, wanted)
        elif key in ("container", "network", "volume", "daemon", "plugin"):
            passed = _begins_so(event, wanted)
        else:
            passed = False
        if not passed:
            return False
    return True


def _weight(event: Event) -> int:
    return sum(len(key) + len(value) for key, value in event.attributes.items()) + 500


class _Subscriber:
    """What somebody has not taken yet. Beyond the bounds nothing is added, and what is there is the end."""

    def __init__(self) -> None:
        self._waiting: deque[Event] = deque()
        self._bytes = 0
        self._cut_off = False
        self._more = asyncio.Event()

    def put(self, event: Event) -> bool:
        """False: too much, and no more is wanted."""
        self._more.set()
        if len(self._waiting) >= QUEUE_LIMIT or self._bytes >= HISTORY_BYTES:
            self._cut_off = True
            return False
        self._waiting.append(event)
        self._bytes += _weight(event)
        return True

    async def take(self, seconds: float | None) -> Event | None:
        """The next one; None: none came in time, or there will be no more."""
        while not self._waiting:
            if self._cut_off or (seconds is not None and seconds <= 0):
                return None
            self._more.clear()
            try:
                async with asyncio.timeout(seconds):
                    await self._more.wait()
            except TimeoutError:
                return None
        event = self._waiting.popleft()
        self._bytes -= _weight(event)
        return event


class EventBus:
    """Publish to everyone who listens. One loop, no threads."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._history: deque[Event] = deque()
        self._kept_bytes = 0
        self.published = 0
        """How many events there have been."""
        self._subscribers: set[_Subscriber] = set()

    @property
    def listeners(self) -> int:
        """How many subscribers there are (docker info's EventsListeners)."""
        return len(self._subscribers)

    def publish(self, kind: str, action: str, actor_id: str, attributes: Mapping[str, str]) -> Event:
        """Record and deliver one event; time is now."""
        event = Event(self._clock.now_ns(), kind, action, actor_id, dict(attributes))
        self.published += 1
        self._history.append(event)
        self._kept_bytes += _weight(event)
        while len(self._history) > HISTORY or self._kept_bytes > HISTORY_BYTES:
            self._kept_bytes -= _weight(self._history.popleft())
        for subscriber in tuple(self._subscribers):
            if not subscriber.put(event):
                self._subscribers.discard(subscriber)
        return event

    async def subscribe(self, filters: Filters, since_ns: int | None, until_ns: int | None) -> AsyncIterator[Event]:
        """Yield events that pass: first the kept ones from since_ns on, then live ones until until_ns (None: for ever)."""
        subscriber = _Subscriber()
        past = [event for event in self._history if since_ns is not None and event.time_ns >= since_ns]
        self._subscribers.add(subscriber)
        try:
            for event in past:
                if (until_ns is None or event.time_ns <= until_ns) and matches(event, filters):
                    yield event
            while True:
                timeout = None if until_ns is None else (until_ns - self._clock.now_ns()) / 1e9
                received = await subscriber.take(timeout)
                if received is None or (until_ns is not None and received.time_ns > until_ns):
                    return
                if matches(received, filters):
                    yield received
        finally:
            self._subscribers.discard(subscriber)
