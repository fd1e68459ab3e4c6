"""sampan manifest create."""

from __future__ import annotations

from sampan.cli.flags import Command, Flag, Parsed
from sampan.cli.http import CliError
from sampan.cli.manifestlists import ManifestStore, fetched, parse_reference
from sampan.cli.registryclient import RegistryClient

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.main import Context

SPEC = Command(
    "MANIFEST_LIST MANIFEST [MANIFEST...]",
    "Create a local manifest list for annotating and pushing to a registry",
    min_args=2,
    flags=(
        Flag("amend", "a", "bool", False, "Amend an existing manifest list"),
        Flag("insecure", "", "bool", False, "Allow communication with an insecure registry"),
    ),
)


def run(ctx: Context, args: Parsed) -> int:
    """Begin a list of images of a registry, or add some to it."""
    name, *members = args.args
    try:
        target = parse_reference(name)
    except CliError as error:
        raise CliError(f"error parsing name for manifest list {name}: {error.message}") from None
    store = ManifestStore(ctx.options)
    if store.images(target) is not None and not args.bool("amend"):
        raise CliError("refusing to amend an existing manifest list with no --amend flag")
    for member in map(parse_reference, members):
        image = store.image(target, member) or fetched(RegistryClient(ctx, member.domain, insecure=args.bool("insecure")), member)
        store.save(target, member, image)
    ctx.print(f"Created manifest list {target.canonical}")
    return 0
