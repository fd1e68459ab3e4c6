"""sampan manifest push."""

from __future__ import annotations

from sampan.cli.flags import Command, Flag, Parsed
from sampan.cli.http import CliError
from sampan.cli.manifestlists import ImageManifest, ManifestStore, assembled, parse_reference
from sampan.cli.registryclient import RegistryClient, digest_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.main import Context
    from sampan.reference import Reference

SPEC = Command(
    "[OPTIONS] MANIFEST_LIST",
    "Push a manifest list to a repository",
    min_args=1,
    max_args=1,
    flags=(
        Flag("insecure", "", "bool", False, "Allow push to an insecure registry"),
        Flag("purge", "p", "bool", False, "Remove the local manifest list after push"),
    ),
)


def run(ctx: Context, args: Parsed) -> int:
    """Bring a list to its registry, and the images of other repositories to the list's."""
    target = parse_reference(args.args[0])
    store = ManifestStore(ctx.options)
    images = store.images(target)
    if images is None:
        raise CliError(f"No such manifest: {target.canonical}")
    if not images:
        raise CliError(f"{target.canonical} not found")
    for image in images:
        if not (image.platform.get("architecture") and image.platform.get("os")):
            raise CliError(f"manifest {image.reference} must have an OS and Architecture to be pushed to a registry")
    media_type, content = assembled(target, images)
    client = RegistryClient(ctx, target.domain, insecure=args.bool("insecure"))
    others = [image for image in images if parse_reference(image.reference).path != target.path]
    for image in others:
        _mount(client, image, target)
    for image in others:
        digest = client.put(target.path, digest_of(image.raw), image.media_type, image.raw)
        ctx.print(f"Pushed ref {target.name}@{digest_of(image.raw)} with digest: {digest}")
    ctx.print(client.put(target.path, target.digest or str(target.tag), media_type, content))
    if args.bool("purge"):
        store.remove(target)
    return 0


def _mount(client: RegistryClient, image: ImageManifest, target: Reference) -> None:
    """Raises CliError for a blob that is not of the registry; those of Windows are often elsewhere."""
    source = parse_reference(image.reference).path
    for digest in image.blobs:
        if not client.mount(target.path, digest, source) and image.platform.get("os") != "windows":
            raise CliError(f"error mounting {source}@{digest} to {target.canonical}")
