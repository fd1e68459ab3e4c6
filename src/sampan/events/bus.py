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


def _matches_object(event: Event, kind: str, wanted: Sequence[str]) -> bool:
    """docker's container=, image=... filters: by ID, ID prefix or name (moby daemon/events/filter.go)."""
    if event.type != kind and not (kind == "image" and event.type == "container"):
        return False
    name = event.attributes.get("image" if kind == "image" and event.type == "container" else "name", "")
    identity = "" if kind == "image" and event.type == "container" else event.actor_id
    for value in wanted:
        bare = name.rpartition(":")[0] if kind == "image" and ":" in name.rpartition("/")[2] else name
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
        elif key in ("container", "image", "network", "volume", "daemon", "plugin"):
            passed = _matches_object(event, key, wanted)
        else:
            passed = False
        if not passed:
            return False
    return True


def _weight(event: Event) -> int:
    return sum(len(key) + len(value) for key, value in event.attributes.items()) + 500


class EventBus:
    """Publish to everyone who listens. One loop, no threads."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._history: deque[Event] = deque()
        self._kept_bytes = 0
        self.published = 0
        """How many events there have been."""
        self._subscribers: set[asyncio.Queue[Event | None]] = set()

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
        for queue in tuple(self._subscribers):
            if queue.qsize() >= QUEUE_LIMIT:
                self._subscribers.discard(queue)
                queue.put_nowait(None)
            else:
                queue.put_nowait(event)
        return event

    async def subscribe(self, filters: Filters, since_ns: int | None, until_ns: int | None) -> AsyncIterator[Event]:
        """Yield events that pass: first the kept ones from since_ns on, then live ones until until_ns (None: for ever)."""
        queue: asyncio.Queue[Event | None] = asyncio.Queue()
        past = [event for event in self._history if since_ns is not None and event.time_ns >= since_ns]
        self._subscribers.add(queue)
        try:
            for event in past:
                if (until_ns is None or event.time_ns <= until_ns) and matches(event, filters):
                    yield event
            while True:
                timeout = None if until_ns is None else (until_ns - self._clock.now_ns()) / 1e9
                if timeout is not None and timeout <= 0 and queue.empty():
                    return
                try:
                    received = await asyncio.wait_for(queue.get(), timeout)
                except TimeoutError:
                    return
                if received is None or (until_ns is not None and received.time_ns > until_ns):
                    return
                if matches(received, filters):
                    yield received
        finally:
            self._subscribers.discard(queue)
