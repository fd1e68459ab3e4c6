"""Where an image runs, and whether that is what somebody asks for."""

from sampan.image.store import Image
from sampan.platforms import machine, parse, text_of
from sampan.spec.oci_layout import REFERENCE_TYPE, Descriptor, Index, Platform


def own() -> Platform:
    """This machine's."""
    architecture, variant = machine()
    return Platform(architecture, "linux", variant)


def wanted(text: str) -> Platform:
    """What `os[/arch[/variant]]` asks for. Raises InvalidArgument in containerd's words."""
    found = parse(text)
    return Platform(found.architecture, found.os, found.variant)


def of(image: Image) -> Platform:
    """What an image runs on."""
    return Platform(image.config.architecture, image.config.os, image.config.variant)


def shown(platform: Platform) -> str:
    """`linux/arm64/v8`."""
    return text_of(platform.os, platform.architecture, platform.variant)


def matches(wanted: Platform, offered: Platform) -> bool:
    """Whether an image for `offered` is one for `wanted`; a variant left out is any, and 32 bit ARM runs what is for older ones."""
    if wanted.os != offered.os or wanted.architecture not in ("", offered.architecture):
        return False
    older = offered.architecture == "arm" and offered.variant < wanted.variant
    return not wanted.variant or not offered.variant or wanted.variant == offered.variant or older


def mismatch(name: str, image: Image, wanted: Platform | None) -> str:
    """Why an image by a name is not the one for a platform, in docker's words; "": it is (moby daemon/images/image.go)."""
    if wanted is None or matches(wanted, of(image)):
        return ""
    return (
        f"image with reference {name} was found but its platform ({shown(of(image))}) does not match "
        f"the specified platform ({shown(wanted)})"
    )


def entry_for(index: Index, platform: Platform) -> Descriptor | None:
    """The first of an index's manifests that is an image's and for that platform, or says nothing of platforms; with its very variant,
    if there is one.
    """
    entries = [entry for entry in index.manifests or () if not (entry.annotations or {}).get(REFERENCE_TYPE)]
    fit = [entry for entry in entries if entry.platform is None or matches(platform, entry.platform)]
    return min(fit, key=lambda entry: entry.platform is not None and entry.platform.variant != platform.variant, default=None)
