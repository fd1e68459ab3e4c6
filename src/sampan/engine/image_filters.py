"""Filters of `docker images` and `docker image prune` (moby daemon/images/images.go, image_prune.go)."""

import re
from collections.abc import Sequence

from sampan.clock import Clock
from sampan.errors import InvalidArgument
from sampan.filters import Filters, labels_match, moment_ns
from sampan.image.bodies import created_ns
from sampan.image.store import Image, ImageStore
from sampan.reference import Reference

_LIST_KEYS = frozenset(("dangling", "label", "before", "since", "reference", "until"))
_PRUNE_KEYS = frozenset(("dangling", "label", "label!", "until"))
_TRUE, _FALSE = ("1", "t", "true"), ("0", "f", "false")


def _boolean(name: str, values: Sequence[str]) -> bool | None:
    """docker's GetBoolOrDefault: None when absent."""
    if not values:
        return None
    wanted = {value.lower() for value in values}
    if len(wanted) != 1 or not wanted <= {*_TRUE, *_FALSE}:
        raise InvalidArgument(f"invalid filter '{name}=[{' '.join(values)}]'")
    return wanted.pop() in _TRUE


def _check_keys(filters: Filters, known: frozenset[str]) -> None:
    for key in filters:
        if key not in known:
            raise InvalidArgument(f"invalid filter '{key}'")


def _has_label(image: Image, wanted: str) -> bool:
    return labels_match((image.config.config.labels if image.config.config is not None else None) or {}, [wanted])


def pattern_matches(pattern: str, reference: Reference) -> bool:
    """reference.FamiliarMatch: Go's path.Match on the familiar name, or the familiar name with its tag; `*` stops at a slash."""
    expression = _expression(pattern)
    return expression.fullmatch(reference.familiar) is not None or expression.fullmatch(reference.familiar_name) is not None


def _expression(pattern: str) -> re.Pattern[str]:
    """Go's path.Match as a regular expression. Raises InvalidArgument."""
    parts, position = [""], 0  # parts: what is between the stars
    while position < len(pattern):
        char = pattern[position]
        position += 1
        if char == "*":
            parts.append("")
        elif char == "?":
            parts[-1] += "[^/]"
        elif char == "\\" and position < len(pattern):
            parts[-1] += re.escape(pattern[position])
            position += 1
        elif char == "[":
            end = pattern.find("]", position + 1)
            if end < 0:
                raise InvalidArgument("syntax error in pattern")
            inside = pattern[position:end]
            negated = inside.startswith("^")
            members = re.sub(r"([][^&~|])", r"\\\1", inside.removeprefix("^"))
            parts[-1] += f"[^{members}]" if negated else f"[{members}]"
            position = end + 1
        else:
            parts[-1] += re.escape(char)
    # As path.Match itself: what follows a star is taken where it comes first, for good. So no pattern takes for ever.
    out = parts[0] + "".join(f"(?>[^/]*?{part})" for part in parts[1:-1]) + "".join(f"[^/]*{part}" for part in parts[1:][-1:])
    try:
        return re.compile(out)
    except re.error:
        raise InvalidArgument("syntax error in pattern") from None


class ListFilter:
    """Checked filters of a list."""

    def __init__(self, filters: Filters, store: ImageStore, clock: Clock) -> None:
        _check_keys(filters, _LIST_KEYS)
        self.dangling = _boolean("dangling", filters.get("dangling", ()))
        self.labels = filters.get("label", ())
        self.patterns = filters.get("reference", ())
        before = [created_ns(store.find(name)) for name in filters.get("before", ())]
        before += [moment_ns(text, clock.now_ns()) for text in filters.get("until", ())]
        self.before = min(before, default=None)
        self.since = max((created_ns(store.find(name)) for name in filters.get("since", ())), default=None)
        for pattern in self.patterns:
            _expression(pattern)

    def matching(self, image: Image, references: list[Reference]) -> list[Reference] | None:
        """The names to show, or None when the image is left out."""
        created = created_ns(image)
        if (self.before is not None and created >= self.before) or (self.since is not None and created <= self.since):
            return None
        if not all(_has_label(image, wanted) for wanted in self.labels):
            return None
        if self.dangling is not None and self.dangling == bool(references):
            return None
        if not self.patterns:
            return references
        shown = [name for name in references if any(pattern_matches(pattern, name) for pattern in self.patterns)]
        return shown or None


class PruneFilter:
    """Checked filters of a prune."""

    def __init__(self, filters: Filters, clock: Clock) -> None:
        _check_keys(filters, _PRUNE_KEYS)
        dangling = _boolean("dangling", filters.get("dangling", ()))
        self.only_dangling = dangling if dangling is not None else True
        self.labels, self.not_labels = filters.get("label", ()), filters.get("label!", ())
        until = filters.get("until", ())
        if len(until) > 1:
            raise InvalidArgument("more than one until filter specified")
        self.until = moment_ns(until[0], clock.now_ns()) if until else None

    def applies(self, image: Image, references: list[Reference]) -> bool:
        """Whether the image may go, as far as filters say."""
        if (self.only_dangling and references) or (self.until is not None and created_ns(image) >= self.until):
            return False
        return all(_has_label(image, wanted) for wanted in self.labels) and not any(_has_label(image, label) for label in self.not_labels)


def parse(filters: Filters, store: ImageStore, clock: Clock) -> ListFilter:
    """Check a list's filters. Raises InvalidArgument, NotFound (before, since)."""
    return ListFilter(filters, store, clock)


def parse_prune(filters: Filters, clock: Clock) -> PruneFilter:
    """Check a prune's filters. Raises InvalidArgument."""
    return PruneFilter(filters, clock)
