"""Which tags and manifests of a repository have had their time. Pure."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import msgspec

DAY = 86400.0


class Policy(msgspec.Struct, frozen=True, rename="kebab", forbid_unknown_fields=True):
    """The first one whose patterns fit a repository is its policy; without one, everything stays.

    A tag goes when it is none of the keep_last newest, or older than max_age_days; where both are given, when both are so.
    """

    repositories: tuple[str, ...] = ("*",)
    keep: tuple[str, ...] = ()
    """Patterns of tags that always stay."""
    keep_last: int | None = None
    max_age_days: float | None = None
    untagged_days: float | None = None
    """How long a manifest stays that no tag means, no index names and that is no referrer of what stays; unset: for ever."""

    def problem(self) -> str:
        """Why this is no policy, or ""."""
        numbers = (self.keep_last, self.max_age_days, self.untagged_days)
        if all(number is None for number in numbers):
            return "a policy has keep-last, max-age-days or untagged-days"
        return "keep-last, max-age-days and untagged-days are not negative" if any(n is not None and n < 0 for n in numbers) else ""


def policy_of(policies: Sequence[Policy], repository: str) -> Policy | None:
    """The first that fits."""
    for policy in policies:
        if any(fnmatchcase(repository, pattern) for pattern in policy.repositories):
            return policy
    return None


def tags_to_go(policy: Policy, tags: Mapping[str, float], now: float) -> list[str]:
    """tags: when each was pushed, in seconds since 1970. In their order."""
    if policy.keep_last is None and policy.max_age_days is None:
        return []
    free = [tag for tag in tags if not any(fnmatchcase(tag, pattern) for pattern in policy.keep)]
    newest_first = sorted(free, key=lambda tag: (-tags[tag], tag))
    gone = set(newest_first if policy.keep_last is None else newest_first[policy.keep_last :])
    if policy.max_age_days is not None:
        gone = {tag for tag in gone if now - tags[tag] > policy.max_age_days * DAY}
    return [tag for tag in tags if tag in gone]
