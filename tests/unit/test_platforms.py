"""Platforms as people write them, and which image is for which."""

import pytest

from sampan.errors import InvalidArgument
from sampan.image import platforms as images
from sampan.platforms import machine, parse
from sampan.spec.oci_layout import Descriptor, Index, Platform


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("linux/amd64", "linux/amd64"),
        ("Linux/x86_64", "linux/amd64"),
        ("linux/amd64/v1", "linux/amd64"),
        ("linux/amd64/v3", "linux/amd64/v3"),
        ("arm64", "linux/arm64"),
        ("linux/arm64/8", "linux/arm64/v8"),
        ("arm", "linux/arm"),
        ("linux/arm/7", "linux/arm/v7"),
        ("armel", "linux/arm/v6"),
        ("linux/armhf", "linux/arm"),
        ("macos/arm64", "darwin/arm64"),
        ("windows(10.0.17763)/amd64", "windows/amd64"),
        ("what/ever", "what/ever"),
    ],
)
def test_as_containerd_reads_them(text: str, shown: str) -> None:
    assert str(parse(text)) == shown


def test_what_is_left_out_is_this_machines() -> None:
    assert str(parse("linux")) == f"linux/{machine()[0]}"
    assert parse("windows(10.0)").os_version == "10.0"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a/b/c/d", '"a/b/c/d": cannot parse platform specifier'),
        ("foo", '"foo": unknown operating system or architecture'),
        (
            "x y",
            '"x y" is an invalid OS component of "x y": OSAndVersion specifier component must match '
            r'"^([A-Za-z0-9_-]+)(?:\\(([A-Za-z0-9_.-]*)\\))?$"',
        ),
        ("linux/b c", '"b c" is an invalid component of "linux/b c": platform specifier component must match "^[A-Za-z0-9_.-]+$"'),
    ],
)
def test_what_is_none(text: str, message: str) -> None:
    """Words of docker 28.5."""
    with pytest.raises(InvalidArgument) as refused:
        parse(text)
    assert refused.value.message == f"{message}: invalid argument"


def test_an_index_gives_the_very_variant_or_an_older_arm() -> None:
    entries = [Descriptor(digest=variant, platform=Platform("arm", "linux", variant)) for variant in ("v5", "v6", "v7")]
    found = [images.entry_for(Index(manifests=entries), images.wanted(f"linux/arm/{variant}")) for variant in ("v6", "v7")]
    assert found == entries[1:]
    assert images.entry_for(Index(manifests=entries[:1]), images.wanted("linux/arm/v7")) == entries[0]
    assert images.entry_for(Index(manifests=entries[2:]), images.wanted("linux/arm/v6")) is None
    assert images.entry_for(Index(manifests=entries), images.wanted("linux/amd64")) is None
