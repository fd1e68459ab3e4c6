"""sampan mirror rm: Sampan's own, takes mirrors of a registry out of daemon.json."""

from __future__ import annotations

from sampan.cli import mirrors
from sampan.cli.flags import Command, Parsed
from sampan.cli.http import CliError
from sampan.mirrors import normalised
from sampan.reference import DEFAULT_DOMAIN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.main import Context

SPEC = Command(
    "[OPTIONS] URL [URL...]",
    "Remove mirrors of a registry",
    min_args=1,
    aliases=("mirror rm", "mirror remove"),
    flags=(mirrors.registry_flag(), mirrors.CONFIG_FLAG),
)


def run(ctx: Context, args: Parsed) -> int:
    """Edit the file, reload sampand."""
    registry = args.str("registry")
    mirrors.check(registry)
    gone = [*dict.fromkeys(map(normalised, args.args))]

    def edit(document: dict[str, Any], path: str) -> str:
        there = [normalised(url) for url in mirrors.listed(document, path).get(registry, [])]
        for url in gone:
            if url not in there:
                raise CliError(f"no such mirror: {url} is none of {registry}")
        own = document.get(mirrors.KEY) or {}
        _remove(own, registry, gone)
        if registry == DEFAULT_DOMAIN:
            _remove(document, mirrors.DOCKERS_KEY, gone)
        if mirrors.KEY in document and not own:
            del document[mirrors.KEY]
        return f"{', '.join(gone)}: removed from the mirrors of {registry}"

    return mirrors.change(ctx, args.str("config-file"), registry, edit)


def _remove(place: dict[str, Any], key: str, gone: list[str]) -> None:
    """Take URLs out of a list, and the list away when nothing is left."""
    if key in place:
        place[key] = [url for url in place[key] or [] if normalised(url) not in gone]
        if not place[key]:
            del place[key]
