"""sampan mirror add: Sampan's own, names mirrors of a registry in daemon.json."""

from __future__ import annotations

from sampan.cli import mirrors
from sampan.cli.flags import Command, Flag, Parsed
from sampan.mirrors import normalised
from sampan.reference import DEFAULT_DOMAIN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.main import Context

SPEC = Command(
    "[OPTIONS] URL [URL...]",
    "Add mirrors of a registry, asked in their order",
    min_args=1,
    flags=(
        mirrors.registry_flag(),
        Flag("first", "", "bool", False, "Ask them before those that are there"),
        mirrors.CONFIG_FLAG,
    ),
)


def run(ctx: Context, args: Parsed) -> int:
    """Edit the file, reload sampand."""
    registry = args.str("registry")
    mirrors.check(registry, args.args)

    def edit(document: dict[str, Any], path: str) -> str:
        there = [normalised(url) for url in mirrors.listed(document, path).get(registry, [])]
        fresh = [url for url in dict.fromkeys(map(normalised, args.args)) if url not in there]
        for url in map(normalised, args.args):
            if url in there:
                ctx.print(f"{url} is a mirror of {registry} already")
        if not fresh:
            return ""
        if registry == DEFAULT_DOMAIN:
            place, key = document, mirrors.DOCKERS_KEY
        else:
            place, key = document.setdefault(mirrors.KEY, {}) or {}, registry
            document[mirrors.KEY] = place
        former = place.get(key) or []
        place[key] = [*fresh, *former] if args.bool("first") else [*former, *fresh]
        return f"{', '.join(fresh)}: added as {'mirrors' if len(fresh) > 1 else 'a mirror'} of {registry}"

    return mirrors.change(ctx, args.str("config-file"), registry, edit)
