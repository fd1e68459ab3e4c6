"""sampan manifest rm."""

from __future__ import annotations

from sampan.cli.flags import Command, Parsed
from sampan.cli.http import CliError
from sampan.cli.manifestlists import ManifestStore, parse_reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.main import Context

SPEC = Command("MANIFEST_LIST [MANIFEST_LIST...]", "Delete one or more manifest lists from local storage", min_args=1)


def run(ctx: Context, args: Parsed) -> int:
    """Forget lists that are being made."""
    store = ManifestStore(ctx.options)

    def remove(name: str) -> None:
        target = parse_reference(name)
        if store.images(target) is None:
            raise CliError(f"No such manifest: {target.canonical}")
        store.remove(target)

    return ctx.each(args.args, remove, echo=False)
