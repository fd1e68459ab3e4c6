"""Retention policies, as tables."""

import pytest

from sampan.registry.retention import DAY, Policy, policy_of, tags_to_go

NOW = 100 * DAY
TAGS = {"latest": NOW - 90 * DAY, "v1": NOW - 80 * DAY, "a": NOW - 10 * DAY, "b": NOW - 5 * DAY, "c": NOW - 1 * DAY}


@pytest.mark.parametrize(
    ("policy", "gone"),
    [
        (Policy(keep_last=2), ["latest", "v1", "a"]),
        (Policy(keep_last=0), ["latest", "v1", "a", "b", "c"]),
        (Policy(keep_last=2, keep=("latest", "v*")), ["a"]),
        (Policy(max_age_days=7), ["latest", "v1", "a"]),
        (Policy(keep_last=1, max_age_days=7), ["latest", "v1", "a"]),
        (Policy(keep_last=4, max_age_days=7), ["latest"]),
        (Policy(untagged_days=1), []),
    ],
)
def test_tags(policy: Policy, gone: list[str]) -> None:
    assert tags_to_go(policy, TAGS, NOW) == gone


def test_the_first_policy_that_fits() -> None:
    policies = [Policy(("ci/*",), keep_last=1), Policy(("*",), keep_last=2)]
    assert [policy_of(policies, name) for name in ("ci/a/b", "other")] == policies
    assert policy_of(policies[:1], "other") is None


def test_policies_that_are_none() -> None:
    assert Policy(untagged_days=0).problem() == ""
    assert Policy().problem() == "a policy has keep-last, max-age-days or untagged-days"
    assert "not negative" in Policy(keep_last=-1).problem()
