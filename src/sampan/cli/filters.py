"""--filter on the wire."""

from __future__ import annotations

from sampan.cli import fastjson

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def encode(filters: dict[str, list[str]] | None) -> str | None:
    """The `filters` parameter in the form docker's client sends; None without filters."""
    if not filters:
        return None
    return fastjson.dumps({key: dict.fromkeys(sorted(filters[key]), True) for key in sorted(filters)})


def prune_filters(filters: dict[str, list[str]], config: dict[str, Any]) -> dict[str, list[str]]:
    """Filters of a prune command with those of config.json's pruneFilters; a label the user names the other way round wins."""
    result = {key: list(values) for key, values in filters.items()}
    for text in config.get("pruneFilters") or ():
        key, equals, value = str(text).partition("=")
        other = {"label": "label!", "label!": "label"}.get(key)
        if not equals or (other and value in result.get(other, ())):
            continue
        result.setdefault(key, []).append(value)
    return result
