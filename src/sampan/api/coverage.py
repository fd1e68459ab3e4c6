"""docs/api-coverage.md out of the route table: `python -m sampan.api.coverage > docs/api-coverage.md`. A test keeps it current."""

import sys
from itertools import groupby

from sampan.api.app import ROUTES
from sampan.version import API_VERSION, MIN_API_VERSION

_WORDS = {"served": "yes", "partial": "in part", "refused": "refused in docker's words", "missing": "501"}


def render() -> str:
    """The whole document."""
    lines = [
        "# Engine API coverage",
        "",
        f"Versions {MIN_API_VERSION} to {API_VERSION}. Written by `python -m sampan.api.coverage`; do not edit.",
        "What is not there yet answers 501 with a message that names it.",
    ]
    counts = {word: sum(route.coverage == word for route in ROUTES) for word in _WORDS}
    summary = ", ".join(f"{_WORDS[word]}: {count}" for word, count in counts.items())
    lines += ["", f"{len(ROUTES)} endpoints; {summary}."]
    for tag, routes in groupby(sorted(ROUTES, key=lambda route: route.tag), key=lambda route: route.tag):
        lines += ["", f"## {tag}", "", "| endpoint | served | note |", "|---|---|---|"]
        lines += [f"| {route.method} {route.path.replace(':.*', '')} | {_WORDS[route.coverage]} | {route.note} |" for route in routes]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(render())
