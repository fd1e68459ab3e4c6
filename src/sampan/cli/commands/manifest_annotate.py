"""sampan manifest annotate."""

from __future__ import annotations

from sampan.cli.flags import Command, Flag, Parsed
from sampan.cli.http import CliError
from sampan.cli.manifestlists import ManifestStore, is_known, parse_reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.main import Context
    from sampan.reference import Reference

SPEC = Command(
    "[OPTIONS] MANIFEST_LIST MANIFEST",
    "Add additional information to a local image manifest",
    min_args=2,
    max_args=2,
    flags=(
        Flag("arch", "", "string", "", "Set architecture"),
        Flag("os", "", "string", "", "Set operating system"),
        Flag("os-features", "", "strings", (), "Set operating system feature"),
        Flag("os-version", "", "string", "", "Set operating system version"),
        Flag("variant", "", "string", "", "Set architecture variant"),
    ),
)


def run(ctx: Context, args: Parsed) -> int:
    """Say more of the platform that an image of a list is for."""
    target, member = _parsed("manifest list", args.args[0]), _parsed("manifest", args.args[1])
    store = ManifestStore(ctx.options)
    image = store.image(target, member)
    if image is None:
        raise CliError(f"manifest for image {args.args[1]} does not exist in {args.args[0]}")
    for key, option in (("os", "os"), ("architecture", "arch"), ("variant", "variant"), ("os.version", "os-version")):
        if args.str(option):
            image.platform[key] = args.str(option)
    features = dict.fromkeys([*(image.platform.get("os.features") or ()), *args.list("os-features")])
    if features:
        image.platform["os.features"] = list(features)
    if not is_known(image.platform):
        given = f"{args.str('os')}/{args.str('arch')}"
        raise CliError(f"manifest entry for image has unsupported os/arch combination: {given}")
    store.save(target, member, image)
    return 0


def _parsed(what: str, text: str) -> Reference:
    try:
        return parse_reference(text)
    except CliError as error:
        raise CliError(f"annotate: error parsing name for {what} {text}: {error.message}") from None
