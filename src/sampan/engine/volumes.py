"""VolumeService: docker's calls on volumes."""

import logging
import re
from collections.abc import Callable, Mapping, Sequence

from sampan.clock import rfc3339nano
from sampan.engine.background import Background
from sampan.errors import Conflict, EngineError, InvalidArgument, NotFound
from sampan.events.bus import EventBus
from sampan.filters import Filters, labels_match
from sampan.patterns import bounded, compiled
from sampan.spec.docker_api.volume import UsageData, Volume, VolumeListResponse, VolumesPruneReport
from sampan.state.volumes import VolumeRow
from sampan.units import FALSE, TRUE
from sampan.volume.options import ANONYMOUS_LABEL
from sampan.volume.store import VolumeStore

log = logging.getLogger(__name__)

_LISTED = ("dangling", "driver", "label", "label!", "name")
_PRUNED = ("all", "label", "label!")
LABELS_MAX = 1 << 20
"""Bytes of one volume's labels and options."""


def _check(filters: Filters, known: Sequence[str]) -> None:
    for key in filters:
        if key not in known:
            raise InvalidArgument(f"invalid filter '{key}'")


def _names(pattern: str) -> Callable[[str], object]:
    try:
        return compiled(pattern).search
    except re.error:
        return lambda name: pattern == name


def _has_labels(row: VolumeRow, filters: Filters) -> bool:
    labels = row.labels or {}
    if not labels_match(labels, filters.get("label", ())):
        return False
    return not any(labels_match(labels, [text]) for text in filters.get("label!", ()))


class VolumeService:
    """See api/services.py for the contract of each method."""

    def __init__(self, store: VolumeStore, events: EventBus, background: Background) -> None:
        self._store = store
        self._events = events
        self._background = background
        self._pruning = False

    def _shown(self, row: VolumeRow, usage: UsageData | None = None) -> Volume:
        return Volume(
            created_at=rfc3339nano(row.created // 1_000_000_000 * 1_000_000_000),
            driver=row.driver,
            labels=row.labels,
            mountpoint=self._store.local.path(row.name),
            name=row.name,
            options=row.options,
            usage_data=usage,
        )

    async def create(self, name: str, *, driver: str, options: Mapping[str, str] | None, labels: Mapping[str, str] | None) -> Volume:
        """Make a volume, or find the one of this name."""
        for texts in (options or {}, labels or {}):
            if sum(len(key) + len(value) for key, value in texts.items()) > LABELS_MAX:
                raise InvalidArgument(f"create {name}: labels and options have at most {LABELS_MAX} bytes")
        row, is_new = self._store.create(name, driver=driver, options=options, labels=labels)
        if is_new:
            self._events.publish("volume", "create", row.name, {"driver": row.driver})
        return self._shown(row)

    async def list(self, filters: Filters) -> VolumeListResponse:
        """Volumes by name."""
        return VolumeListResponse(volumes=[self._shown(row) for row in self._select(filters)])

    def _select(self, filters: Filters) -> Sequence[VolumeRow]:
        _check(filters, _LISTED)
        found = [row for row in self._store if _has_labels(row, filters)]
        if filters.get("driver"):
            found = [row for row in found if row.driver in filters["driver"]]
        if filters.get("name"):
            tests = [_names(pattern) for pattern in filters["name"]]
            found = bounded(lambda: [row for row in found if row.name in filters["name"] or any(test(row.name) for test in tests)])
        if values := filters.get("dangling"):
            if len(values) != 1 or values[0] not in TRUE + FALSE:
                raise InvalidArgument(f"invalid filter 'dangling=[{' '.join(values)}]'")
            found = [row for row in found if bool(self._store.users(row.name)) != (values[0] in TRUE)]
        return found

    def inspect(self, name: str) -> Volume:
        """One volume. Raises NotFound."""
        return self._shown(self._store.find(name))

    async def remove(self, name: str, *, force: bool) -> None:
        """Delete one. Raises NotFound (not with force), Conflict when it is in use."""
        try:
            self._remove(name)
        except NotFound:
            if not force:
                raise

    def _remove(self, name: str) -> None:
        row = self._store.remove(name)
        self._events.publish("volume", "destroy", row.name, {"driver": row.driver})
        self._background.spawn(self._store.local.empty_trash())

    async def prune(self, filters: Filters) -> VolumesPruneReport:
        """Delete what no container uses: anonymous volumes, with the filter all=true named ones too; never those with options."""
        _check(filters, _PRUNED)
        if self._pruning:
            raise Conflict("a prune operation is already running")
        everything = _asks_for_all(filters)
        self._pruning = True
        deleted: list[str] = []
        freed = 0
        try:
            for row in list(self._store):
                if row.options or not _has_labels(row, filters) or not (everything or ANONYMOUS_LABEL in (row.labels or {})):
                    continue
                if self._store.users(row.name):
                    continue
                size = await self._store.local.size(row.name)
                try:
                    self._remove(row.name)
                except EngineError as error:  # used or removed since, or something is mounted in there
                    log.info("volume %s is not pruned: %s", row.name, error.message)
                    continue
                deleted.append(row.name)
                freed += max(size, 0)
        finally:
            self._pruning = False
        self._events.publish("volume", "prune", "", {"reclaimed": str(freed)})
        return VolumesPruneReport(volumes_deleted=deleted, space_reclaimed=freed)

    async def usage(self) -> Sequence[Volume]:
        """All volumes without options, with what they take and how many containers they are of."""
        found = []
        for row in list(self._store):
            if not row.options:
                size = await self._store.local.size(row.name)
                if self._store.get(row.name) is not None:
                    found.append(self._shown(row, UsageData(size=size, ref_count=len(self._store.users(row.name)))))
        return found

    def strays(self) -> Sequence[str]:
        """Names of directories in `volumes` that are no volume's: see volume/local.py."""
        return self._store.local.strays({row.name for row in self._store})


def _asks_for_all(filters: Filters) -> bool:
    values = filters.get("all", ())
    if len(values) > 1:
        raise InvalidArgument(f"invalid filter 'all=[{' '.join(values)}]': only one value is expected")
    if values and values[0] not in TRUE + FALSE:
        raise InvalidArgument(f"invalid filter 'all': strconv.ParseBool: parsing \"{values[0]}\": invalid syntax")
    return bool(values) and values[0] in TRUE
