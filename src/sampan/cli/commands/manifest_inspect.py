"""sampan manifest inspect."""

from __future__ import annotations

from sampan.cli.flags import Command, Flag, Parsed
from sampan.cli.http import CliError
from sampan.cli.manifestlists import ImageManifest, IsList, ManifestStore, assembled, fetched, fetched_list, parse_reference
from sampan.cli.registryclient import RegistryClient

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.main import Context
    from sampan.reference import Reference

SPEC = Command(
    "[OPTIONS] [MANIFEST_LIST] MANIFEST",
    "Display an image manifest, or manifest list",
    min_args=1,
    max_args=2,
    flags=(
        Flag("insecure", "", "bool", False, "Allow communication with an insecure registry"),
        Flag("verbose", "v", "bool", False, "Output additional info including layers and platform"),
    ),
)


def run(ctx: Context, args: Parsed) -> int:
    """Print a manifest: of a list that is being made, or of the registry."""
    verbose = args.bool("verbose")
    reference = parse_reference(args.args[-1])
    store = ManifestStore(ctx.options)
    if len(args.args) == 2:
        image = store.image(parse_reference(args.args[0]), reference)
        if image is None:
            raise CliError(f"No such manifest: {reference.canonical}")
        ctx.print(_one(image, verbose))
        return 0
    images = store.images(reference)
    if images is None:
        client = RegistryClient(ctx, reference.domain, insecure=args.bool("insecure"))
        try:
            ctx.print(_one(fetched(client, reference), verbose))
            return 0
        except IsList:
            images = fetched_list(client, reference)
    ctx.print(_list(reference, images, verbose))
    return 0


def _one(image: ImageManifest, verbose: bool) -> str:
    from sampan.cli.format import gojson

    return gojson.indent(image.text() if verbose else image.raw.decode("utf-8", "replace"), "\t")


def _list(reference: Reference, images: list[ImageManifest], verbose: bool) -> str:
    if verbose:
        from sampan.cli.format import gojson

        return gojson.indent("[" + ",".join(image.text() for image in images) + "]", "\t")
    try:
        return assembled(reference, images)[1].decode()
    except CliError as error:
        raise CliError(f"failed to assemble ManifestDescriptor: {error.message}") from None
