"""Filters of `docker images` and `docker image prune` (moby daemon/images/images.go, image_prune.go)."""

import re

from sampan.clock import Clock
from sampan.errors import InvalidArgument
from sampan.filters import Filters, boolean, check_keys, labels_match, moment_ns
from sampan.image.bodies import created_ns
from sampan.image.store import Image, ImageStore
from sampan.reference import Reference

_LIST_KEYS = frozenset(("dangling", "label", "before", "since", "reference", "until"))
_PRUNE_KEYS = frozenset(("dangling", "label", "label!", "until"))


def _has_label(image: Image, wanted: str) -> bool:
    return labels_match((image.config.config.labels if image.config.config is not None else None) or {}, [wanted])


def has_tag(references: list[Reference]) -> bool:
    """Whether an image of these names does not dangle: a digest that a registry knows it by does not count."""
    return any(reference.digest is None for reference in references)


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
        """Raises InvalidArgument; NotFound for the images of `before` and `since`."""
        check_keys(filters, _LIST_KEYS)
        self.dangling = boolean(filters, "dangling", default=None)
        self.labels = filters.get("label", ())
        self.patterns = filters.get("reference", ())
        before = [created_ns(store.find(name)) for name in filters.get("before", ())]
        before += [moment_ns(text, clock.now_ns()) for text in filters.get("until", ())]
        self.before = min(before, default=None)
        self.since = max((created_ns(store.find(name)) for name in filters.get("since", ())), default=None)
        for pattern in self.patterns:
            _expression(pattern)

    def matching(self, image: Image, references: list[Reference]) -> list[Reference] | None:
        """The names to show, or None when the image is left out. One with digests only has names, and dangles all the same."""
        created = created_ns(image)
        if (self.before is not None and created >= self.before) or (self.since is not None and created <= self.since):
            return None
        if not all(_has_label(image, wanted) for wanted in self.labels):
            return None
        shown = references
        if self.patterns:
            shown = [name for name in references if any(pattern_matches(pattern, name) for pattern in self.patterns)]
        if not shown:
            return None if self.patterns or self.dangling is False else shown
        return None if self.dangling and has_tag(shown) else shown


class PruneFilter:
    """Checked filters of a prune."""

    def __init__(self, filters: Filters, clock: Clock) -> None:
        """Raises InvalidArgument."""
        check_keys(filters, _PRUNE_KEYS)
        self.only_dangling = boolean(filters, "dangling", default=True)
        self.labels, self.not_labels = filters.get("label", ()), filters.get("label!", ())
        until = filters.get("until", ())
        if len(until) > 1:
            raise InvalidArgument("more than one until filter specified")
        self.until = moment_ns(until[0], clock.now_ns()) if until else None

    def applies(self, image: Image, references: list[Reference]) -> bool:
        """Whether the image may go, as far as filters say."""
        if (self.only_dangling and has_tag(references)) or (self.until is not None and created_ns(image) >= self.until):
            return False
        return all(_has_label(image, wanted) for wanted in self.labels) and not any(_has_label(image, label) for label in self.not_labels)
