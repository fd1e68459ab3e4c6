"""Who may do what where: a list of rules, each of which grants; what none grants is refused. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import msgspec

ACTIONS = frozenset(("pull", "push", "delete", "catalogue"))
ANONYMOUS = "anonymous"
"""In a rule: everybody, also who has not logged in."""
ANY_USER = "*"
USER = "{user}"
"""In a rule's repositories: the name of whoever asks."""


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """repositories: patterns in which `*` is any text, slashes too. users: names, `*`: who has logged in, `anonymous`: everybody."""

    repositories: tuple[str, ...] = ("*",)
    users: tuple[str, ...] = (ANY_USER,)
    actions: tuple[str, ...] = ("pull",)

    def problem(self) -> str:
        """Why this is no rule, or ""."""
        unknown = [action for action in self.actions if action not in ACTIONS]
        if unknown:
            return f"unknown action {unknown[0]!r}: there are {', '.join(sorted(ACTIONS))}"
        return "" if self.repositories and self.users and self.actions else "repositories, users and actions must not be empty"


class Rules:
    """All rules of a registry."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = rules

    @property
    def anonymous(self) -> bool:
        """Whether who has not logged in may do anything."""
        return any(ANONYMOUS in rule.users for rule in self._rules)

    def allows(self, user: str, action: str, repository: str = "") -> bool:
        """user: "" is nobody. For the catalogue there is no repository: what it shows is filtered by `pull`."""
        for rule in self._rules:
            if not (ANONYMOUS in rule.users or (user and (user in rule.users or ANY_USER in rule.users))):
                continue
            if action == "catalogue":
                if "catalogue" in rule.actions or "pull" in rule.actions:
                    return True
            elif action in rule.actions and any(self._matches(pattern, user, repository) for pattern in rule.repositories):
                return True
        return False

    @staticmethod
    def _matches(pattern: str, user: str, repository: str) -> bool:
        if USER in pattern:
            if not user:
                return False
            pattern = pattern.replace(USER, "".join(f"[{letter}]" if letter in "*?[" else letter for letter in user))
        return fnmatchcase(repository, pattern)


NO_RULES = Rules(())


@dataclass(frozen=True)
class User:
    """Whom a request comes from. name: "": nobody has logged in. granted: (repository, action) of a token, in place of the rules."""

    name: str = ""
    rules: Rules = NO_RULES
    granted: frozenset[tuple[str, str]] | None = None

    def may(self, action: str, repository: str) -> bool:
        """What the rules have taken back since a token was made is gone with the next one."""
        if self.granted is None or action == "catalogue":
            return self.rules.allows(self.name, action, repository)
        return (repository, action) in self.granted

    def sees(self, repository: str) -> bool:
        """Whether it is in lists: by the rules, as a token for a list names no repository."""
        return self.rules.allows(self.name, "pull", repository)
