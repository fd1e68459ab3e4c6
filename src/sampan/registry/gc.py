"""The collector: what nothing refers to any more goes, while others push.

It looks at one repository after the other, without stopping anybody (a dry run does nothing else), and takes away in small steps, alone
behind the gate, each of which looks again at what may have changed:

    tags        by the retention policies; not one that was pushed anew meanwhile
    manifests   untagged for long enough; not one that a tag or an index has come to mean, or that a client was told of within the grace
    links       of blobs that no manifest of the repository names; not one that a client was told of within the grace
    content     that no repository has a link to; not what was touched since the plan began to look

Why that is safe: whoever adds a link writes or touches the content before, inside the gate (store.py). The plan notes which content is old,
and its times, then waits until everybody who was inside the gate has come out, and looks at the links only then. So content that gets a
link from somebody who was inside has it by the look; and who comes in later gives it another time than the plan knows, because that one was
older than any clock's tick.

A manifest that cannot be read may name all that its repository had when that was noticed, itself too, and nothing that came later: this is
noted, and kept until the manifest is deleted, goes by a policy, or is pushed again.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

import msgspec

from sampan.digest import Digest
from sampan.registry import documents, paths
from sampan.registry.documents import References
from sampan.registry.errors import RegistryError
from sampan.registry.gate import Gate, steps
from sampan.registry.names import parts_of
from sampan.registry.retention import DAY, Policy, policy_of, tags_to_go
from sampan.registry.storage import Missing, Stat, Storage
from sampan.registry.store import Manifests, bodies_of, digest_of

log = logging.getLogger("sampan.registry")
LEAST_GRACE = 1.0
"""Seconds; clocks of file systems tick slowly."""


class RepositoryReport(msgspec.Struct, omit_defaults=True):
    """What goes, or went, of one repository."""

    tags: list[str] = []
    manifests: list[str] = []
    blobs: list[str] = []
    uploads: list[str] = []
    """Those that docker-registry has left unfinished: it keeps them in the repository."""
    removed: bool = False


class Report(msgspec.Struct):
    """bytes: of content."""

    dry_run: bool
    repositories: dict[str, RepositoryReport] = {}
    content: int = 0
    bytes: int = 0
    uploads: int = 0
    repaired_referrers: int = 0
    damaged: list[str] = []
    """Manifests that cannot be read."""
    seconds: float = 0.0

    def lines(self) -> list[str]:
        """For people."""
        found = []
        for name, entry in sorted(self.repositories.items()):
            found += [f"{name}: tag {tag}" for tag in entry.tags]
            found += [f"{name}: manifest {digest}" for digest in entry.manifests]
            found += [f"{name}: blob {digest}" for digest in entry.blobs]
            found += [f"{name}: upload {id}" for id in entry.uploads]
            found += [f"{name}: repository"] if entry.removed else []
        found += [f"{name} is damaged: what it may name is kept until it is deleted" for name in self.damaged]
        done = "Would remove" if self.dry_run else "Removed"
        return [*found, f"{done} {self.content} blobs, {self.bytes} bytes"]


class _RepositoryPlan:
    def __init__(self, name: str) -> None:
        self.name = name
        self.there: dict[str, Digest] = {}
        """Blobs and manifests when it was looked at."""
        self.references: dict[str, References] = {}
        """Of the manifests, to what was there: they may name ever so much that was not."""
        self.tags: dict[str, float] = {}
        """Those to go, and when they were pushed."""
        self.manifests: dict[str, float] = {}
        """Those to go, and their links' times."""
        self.links: dict[str, float] = {}
        """Those to go, and their times."""
        self.referrers: list[tuple[Digest, str]] = []
        """(subject, digest) whose links are missing."""
        self.uploads: list[str] = []
        self.damaged: list[str] = []
        self.possible = References((), (), None)
        """Of those that are damaged: all that they may name."""

    def of_these(self, named: Iterable[str]) -> tuple[Digest, ...]:
        """Those that were there."""
        return tuple(self.there[digest] for digest in named if digest in self.there)


class Collector:
    """Of one store. grace: seconds for which what nothing refers to yet is taken for a push under way."""

    def __init__(
        self,
        storage: Storage,
        gate: Gate,
        manifests: Manifests,
        *,
        policies: Sequence[Policy] = (),
        grace: float = DAY,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._storage = storage
        self._gate = gate
        self._manifests = manifests
        self._policies = policies
        self._grace = max(grace, LEAST_GRACE)
        self._now = now
        self._one = asyncio.Lock()
        self.runs = self.freed_bytes = 0

    async def collect(self, *, dry_run: bool = False) -> Report:
        """Raises OSError."""
        async with self._one:
            began = time.monotonic()
            report = Report(dry_run)
            old = {digest: stat for digest, stat in await self._storage.blobs() if self._is_old(stat.modified)}
            async with self._gate.exclusive():
                pass  # links of what was written before the list are there now
            linked: set[str] = set()
            spared: set[str] = set()
            for name in await self._storage.repositories():
                plan = await self._look(name, linked)
                entry = await self._plan_report(plan) if dry_run else await self._take_away(plan, spared)
                report.damaged += [f"{name}@{digest}" for digest in plan.damaged]
                report.repaired_referrers += len(plan.referrers)
                if entry != RepositoryReport():
                    report.repositories[name] = entry
            unlinked = [(digest, stat) for digest, stat in old.items() if digest not in linked]
            if dry_run:
                report.content, report.bytes = len(unlinked), sum(stat.size for _, stat in unlinked)
            else:
                await self._take_away_content(unlinked, spared, report)
            report.seconds = round(time.monotonic() - began, 3)
            if not dry_run:
                self.runs += 1
                self.freed_bytes += report.bytes
            return report

    async def ended(self) -> None:
        """Wait for a collection that is under way, or is being cancelled."""
        async with self._one:
            pass

    def _is_old(self, modified: float) -> bool:
        return self._now() - modified > self._grace

    # looking

    async def _read(self, plan: _RepositoryPlan, digests: Sequence[str]) -> None:
        """What manifests name."""
        unread = [digest for digest in digests if digest not in plan.references]
        damaged = []
        async for digest, body in bodies_of(self._storage, unread):
            try:
                found = documents.references(_undamaged(digest, body))
            except RegistryError:
                damaged.append(digest)
            else:
                plan.references[digest] = References(plan.of_these(found.blobs), plan.of_these(found.manifests), found.subject)
        if damaged:
            plan.damaged += damaged
            plan.possible = await self._possible(plan.name, plan.damaged)
            plan.references.update(dict.fromkeys(plan.damaged, plan.possible))

    async def _possible(self, name: str, damaged: Sequence[str]) -> References:
        """All that manifests that cannot be read may name: what the repository had when that was noticed."""
        noted = await self._noted(name)
        if not noted.issuperset(damaged):
            noted.update(map(Digest, [*await self._storage.links(paths.layers(name)), *await self._manifests.revisions(name)]))
        return References(tuple(noted), tuple(noted), None)

    async def _noted(self, name: str) -> set[Digest]:
        with suppress(Missing):
            return set(paths.digests_in(await self._storage.read(paths.damaged(name))))
        return set()

    async def _look(self, name: str, linked: set[str]) -> _RepositoryPlan:
        """Plan for one repository; what stays is added to linked."""
        plan = _RepositoryPlan(name)
        policy = policy_of(self._policies, name)
        tags = await self._manifests.tags_with_digests(name)
        if policy is not None:
            pushed = {tag: stat.modified for tag in tags if (stat := await self._stat(paths.tag(name, tag)))}
            plan.tags = {tag: pushed[tag] for tag in tags_to_go(policy, pushed, self._now())}
        layers, revisions = await self._storage.links(paths.layers(name)), await self._manifests.revisions(name)
        plan.there = {digest: Digest(digest) for digest in (*layers, *revisions)}
        await self._read(plan, revisions)
        if policy is not None and policy.untagged_days is not None:
            roots: set[str] = {digest for tag, digest in tags.items() if tag not in plan.tags and digest is not None}
            kept = self._reachable(plan, roots)
            for digest in revisions:
                stat = await self._stat(paths.revision(name, digest))
                if digest not in kept and stat is not None and self._now() - stat.modified > max(policy.untagged_days * DAY, self._grace):
                    plan.manifests[digest] = stat.modified
        staying = [digest for digest in revisions if digest not in plan.manifests]
        live = self._named(plan, staying)
        for digest in layers:
            stat = await self._stat(paths.layer(name, digest))
            if stat is not None and digest not in live and self._is_old(stat.modified):
                plan.links[digest] = stat.modified
            else:
                linked.add(digest)
        linked.update(staying)
        for digest in staying:
            subject = plan.references[digest].subject
            if subject is not None and await self._stat(paths.referrer(name, subject, digest)) is None:
                plan.referrers.append((subject, digest))  # docker-registry has none
        plan.uploads = [id for id in await self._storage.names(paths.left_uploads(name)) if await self._is_left(name, id)]
        return plan

    async def _is_left(self, name: str, id: str) -> bool:
        """Whether nobody has gone on with an upload of docker-registry's for long enough."""
        stats = [await self._stat(f"{paths.left_uploads(name)}/{id}/{file}") for file in ("data", "startedat")]
        return all(stat is None or self._is_old(stat.modified) for stat in stats)

    async def _stat(self, key: str) -> Stat | None:
        with suppress(Missing):
            return await self._storage.stat(key)
        return None

    @staticmethod
    def _reachable(plan: _RepositoryPlan, roots: set[str]) -> set[str]:
        """Roots, what their indexes name, and what refers to any of these."""
        referring: dict[str, list[str]] = {}
        for digest, references in plan.references.items():
            if references.subject is not None:
                referring.setdefault(references.subject, []).append(digest)
        found: set[str] = set()
        waiting = list(roots)
        expanded: set[int] = set()
        while waiting:
            digest = waiting.pop()
            if digest in found:
                continue
            found.add(digest)
            waiting += referring.get(digest, [])
            named = plan.references.get(digest)
            if named is not None and id(named) not in expanded:  # those that are damaged have the same, and it is long
                expanded.add(id(named))
                waiting += named.manifests
        return found

    @staticmethod
    def _named(plan: _RepositoryPlan, digests: Sequence[str]) -> set[str]:
        """The blobs that manifests name."""
        distinct = {id(references): references for references in map(plan.references.__getitem__, digests)}
        return {blob for references in distinct.values() for blob in references.blobs}

    async def _plan_report(self, plan: _RepositoryPlan) -> RepositoryReport:
        entry = RepositoryReport(list(plan.tags), list(plan.manifests), list(plan.links), plan.uploads)
        staying = set(await self._manifests.revisions(plan.name)) - set(plan.manifests)
        entry.removed = not staying and not set(await self._storage.links(paths.layers(plan.name))) - set(plan.links)
        return entry

    # taking away

    async def _take_away(self, plan: _RepositoryPlan, spared: set[str]) -> RepositoryReport:
        """spared: gets what stays after all."""
        entry = RepositoryReport()
        for tags in steps(list(plan.tags.items())):
            await self._gate.remove(self._take_tags(plan, tags, entry))
        for digests in steps(list(plan.manifests)):
            await self._gate.remove(self._take_manifests(plan, digests, entry))
        for links in steps(list(plan.links.items())):
            await self._gate.remove(self._take_links(plan, links, spared, entry))
        spared.update(set(plan.manifests) - set(entry.manifests))
        await self._gate.remove(self._finish(plan, entry))
        return entry

    async def _take_tags(self, plan: _RepositoryPlan, tags: Sequence[tuple[str, float]], entry: RepositoryReport) -> None:
        """Those that were not pushed anew."""
        for tag, pushed in tags:
            stat = await self._stat(paths.tag(plan.name, tag))
            if stat is not None and stat.modified == pushed:
                await self._storage.remove_all(paths.tag_directory(plan.name, tag))
                entry.tags.append(tag)

    async def _take_links(
        self, plan: _RepositoryPlan, links: Sequence[tuple[str, float]], spared: set[str], entry: RepositoryReport
    ) -> None:
        """Those that still no manifest names, and that nobody was told of since the look."""
        now_there = await self._manifests.revisions(plan.name)
        await self._read(plan, now_there)
        live = self._named(plan, now_there)
        for digest, modified in links:
            stat = await self._stat(paths.layer(plan.name, digest))
            if digest in live or (stat is not None and stat.modified != modified):
                spared.add(digest)
            elif stat is not None:
                await self._storage.remove(paths.layer(plan.name, digest))
                entry.blobs.append(digest)

    async def _finish(self, plan: _RepositoryPlan, entry: RepositoryReport) -> None:
        """Make what docker-registry has not, take away what it has left, note what is damaged; a repository without anything goes."""
        for subject, digest in plan.referrers:
            if await self._stat(paths.revision(plan.name, digest)) is not None:
                await self._storage.write(paths.referrer(plan.name, subject, digest), paths.link_of(digest))
        await self._note_damage(plan)
        for id in plan.uploads:
            await self._storage.remove_all(f"{paths.left_uploads(plan.name)}/{id}")
        entry.uploads = plan.uploads
        if not await self._manifests.exists(plan.name):
            for mark in paths.MARKS:
                await self._storage.remove_all(f"{paths.repository(plan.name)}/{mark}")
            entry.removed = True

    async def _note_damage(self, plan: _RepositoryPlan) -> None:
        """What came after a manifest was found damaged is not among what it may name the next time."""
        noted = await self._noted(plan.name)
        if any([await self._stat(paths.revision(plan.name, digest)) is not None for digest in plan.damaged]):
            if noted != set(plan.possible.blobs):
                await self._storage.write(paths.damaged(plan.name), paths.link_of(*plan.possible.blobs))
        elif noted:
            await self._storage.remove(paths.damaged(plan.name))

    async def _take_manifests(self, plan: _RepositoryPlan, digests: Sequence[str], entry: RepositoryReport) -> None:
        """Those that are still untagged, that nobody was told of since the look, and that nothing new refers to."""
        now_there = await self._manifests.revisions(plan.name)
        await self._read(plan, now_there)
        tags = await self._manifests.tags_with_digests(plan.name)
        new = {digest for digest in now_there if not await self._is_as_planned(plan, digest)}
        kept = self._reachable(plan, {digest for digest in tags.values() if digest is not None} | new)
        for digest in digests:
            if digest in kept or digest not in now_there:
                continue
            subject = plan.references[digest].subject
            if subject is not None:
                await self._storage.remove(paths.referrer(plan.name, subject, digest))
            await self._storage.remove(paths.revision(plan.name, digest))
            entry.manifests.append(digest)

    async def _is_as_planned(self, plan: _RepositoryPlan, digest: str) -> bool:
        """Whether a manifest is one to go that nobody has touched."""
        planned = plan.manifests.get(digest)
        if planned is None:
            return False
        stat = await self._stat(paths.revision(plan.name, digest))
        return stat is not None and stat.modified == planned

    async def _take_away_content(self, unlinked: Sequence[tuple[str, Stat]], spared: set[str], report: Report) -> None:
        for step in steps(unlinked):
            await self._gate.remove(self._take_blobs(step, spared, report))

    async def _take_blobs(self, blobs: Sequence[tuple[str, Stat]], spared: set[str], report: Report) -> None:
        for digest, stat in blobs:
            now_there = await self._stat(paths.blob(digest))
            if digest not in spared and now_there is not None and now_there.modified == stat.modified:
                await self._storage.remove(paths.blob(digest))
                report.content += 1
                report.bytes += stat.size


def _undamaged(digest: str, body: bytes | None) -> bytes:
    """A manifest's bytes. Raises RegistryError: they are not these."""
    if body is None or digest_of(body, parts_of(digest).algorithm) != digest:
        raise RegistryError("MANIFEST_INVALID", "its content is missing, or another")
    return body
