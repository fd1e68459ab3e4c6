"""Filters of `docker ps` and of container prune. Pure but for the clock given."""

import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from sampan.engine.containerstore import Container
from sampan.engine.mounting import is_used_by
from sampan.errors import InvalidArgument, NotFound
from sampan.filters import Filters, check_keys, labels_match, moment_ns
from sampan.patterns import bounded, compiled

KNOWN = (
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
)
HEALTHS = ("none", "starting", "healthy", "unhealthy")
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
STATUSES = ("created", "running", "paused", "restarting", "removing", "exited", "dead")


def check(filters: Filters, known: Iterable[str] = KNOWN) -> None:
    """Raise InvalidArgument for a key docker does not know, or a bad value."""
    check_keys(filters, known)
    for value in filters.get("status", ()):
        if value not in STATUSES:
            raise InvalidArgument(
                f"invalid filter 'status={value}': invalid value for state ({value}): must be one of {', '.join(STATUSES)}"
            )
    for value in filters.get("exited", ()):
        if not _INTEGER.fullmatch(value):
            raise InvalidArgument(f"invalid filter 'exited={value}': strconv.Atoi: parsing \"{value}\": invalid syntax")
    for value in filters.get("health", ()):
        if value not in HEALTHS:
            raise InvalidArgument(
                f"invalid filter 'health={value}': invalid value for health ({value}): must be one of {', '.join(HEALTHS)}"
            )
    for value in filters.get("is-task", ()):
        if value.lower() not in ("0", "1", "f", "t", "false", "true"):
            raise InvalidArgument(f"invalid filter 'is-task=[{value}]'")
    for key in ("publish", "expose"):
        for value in filters.get(key, ()):
            _port_range(key, value)


def _port_number(text: str) -> int:
    """Raises ValueError in strconv's words."""
    if not text.isascii() or not text.isdecimal():
        raise ValueError(f'strconv.ParseUint: parsing "{text}": invalid syntax')
    if len(text.lstrip("0")) > 5 or int(text) > 65535:
        raise ValueError(f'strconv.ParseUint: parsing "{text}": value out of range')
    return int(text)


def _port_range(key: str, text: str) -> tuple[range, str]:
    """`first[-last][/protocol]` as (numbers, protocol). Raises InvalidArgument (moby daemon/list.go portOp, nat.ParsePortRange)."""
    numbers, _, protocol = text.partition("/")
    try:
        if not numbers:
            raise ValueError("Empty string specified for ports.")
        ends = [_port_number(end) for end in numbers.split("-")[:2]]
        if ends[-1] < ends[0]:
            raise ValueError(f"Invalid range specified for the Port: {numbers}")
    except ValueError as error:
        raise InvalidArgument(f"error while looking up for {key} {text}: {error}") from None
    return range(ends[0], ends[-1] + 1), protocol.lower() or "tcp"


def _contains(part: str, name: str) -> bool:
    return part in name


def _named(containers: Sequence[Container], patterns: Sequence[str]) -> list[Container]:
    """The containers whose name one of the patterns is found in, or, where it is no regular expression, is part of."""

    def search() -> list[Container]:
        tests: list[Callable[[str], object]] = []
        for pattern in patterns:
            try:
                tests.append(compiled(pattern).search)
            except re.error:
                tests.append(partial(_contains, pattern))
        return [item for item in containers if any(test(f"/{item.name}") or test(item.name) for test in tests)]

    return bounded(search)


def _port_matches(key: str, ports: Iterable[str], wanted: Sequence[str]) -> bool:
    have = set(ports)
    for text in wanted:
        numbers, protocol = _port_range(key, text)
        if any(f"{number}/{protocol}" in have for number in numbers):
            return True
    return False


def matches(container: Container, filters: Filters, volumes: str) -> bool:
    """Whether a container passes the filters that need only itself, but for its name. volumes: the directory they are in."""
    state = container.state
    labels = container.config.labels or {}
    simple: dict[str, Callable[[Sequence[str]], bool]] = {
        "id": lambda values: any(container.id.startswith(value) for value in values),
        "label": lambda values: labels_match(labels, values),
        "status": lambda values: ("removing" if container.removing else state.status) in values,
        "exited": lambda values: not container.is_running and bool(state.started_at) and state.exit_code in map(int, values),
        "health": lambda values: (state.health.status if state.health is not None else "none") in values,
        "is-task": lambda values: not any(value in ("1", "true") for value in values),
        "isolation": lambda values: any(value in ("", "default") for value in values),
        "network": lambda values: any(
            value
            in (container.host_config.network_mode, *(name for item in state.endpoints for name in (item.network_name, item.network_id)))
            for value in values
        ),
        "volume": lambda values: any(is_used_by(container.mounts, value, volumes) for value in values),
        "expose": lambda values: _port_matches("expose", container.config.exposed_ports or {}, values),
        "publish": lambda values: _port_matches("publish", (item.port for endpoint in state.endpoints for item in endpoint.ports), values),
    }
    return all(test(filters[key]) for key, test in simple.items() if filters.get(key))


def select(
    containers: Sequence[Container],
    filters: Filters,
    find: Callable[[str], Container],
    ancestors: Callable[[str], set[str]],
    volumes: str,
) -> list[Container]:
    """The containers that pass, in the order given; ancestors: the image IDs a reference stands for; volumes: the directory of all."""
    check(filters)
    chosen = [container for container in containers if matches(container, filters, volumes)]
    if filters.get("name"):
        chosen = _named(chosen, filters["name"])
    for key, later in (("before", False), ("since", True)):
        for ref in filters.get(key, ()):
            try:
                other = find(ref).created
            except NotFound:
                raise NotFound(f"No such container: {ref}") from None
            chosen = [item for item in chosen if (item.created > other if later else item.created < other)]
    if filters.get("ancestor"):
        images = set().union(*(ancestors(ref) for ref in filters["ancestor"]))
        chosen = [item for item in chosen if item.image_id in images]
    return chosen


def until_ns(filters: Filters, now_ns: int) -> int | None:
    """The time bound of a prune: Unix seconds, RFC 3339, or a Go duration before now. Raises InvalidArgument."""
    values = filters.get("until", ())
    if not values:
        return None
    if len(values) > 1:
        raise InvalidArgument("more than one until filter specified")
    return moment_ns(values[0], now_ns)


def boolean(filters: Filters, key: str) -> bool | None:
    """A filter that is true or false; None when it is not given. Raises InvalidArgument."""
    values = set(filters.get(key, ()))
    if not values:
        return None
    if values <= {"1", "true"}:
        return True
    if values <= {"0", "false"}:
        return False
    raise InvalidArgument(f"invalid filter '{key}={sorted(values)}'")
