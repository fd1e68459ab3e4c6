"""sampan pull."""

from __future__ import annotations

import sys

from sampan.cli.creating import parse_reference, pull_image
from sampan.cli.flags import Command, Flag, Parsed
from sampan.cli.http import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.main import Context

SPEC = Command(
    "[OPTIONS] NAME[:TAG|@DIGEST]",
    "Download an image from a registry",
    min_args=1,
    max_args=1,
    aliases=("image pull", "pull"),
    complete="none",
    flags=(
        Flag("all-tags", "a", "bool", False, "Download all tagged images in the repository"),
        Flag("disable-content-trust", "", "bool", True, "Skip image verification"),
        Flag("platform", "", "string", "", "Set platform if server is multi-platform capable", api="1.32"),
        Flag("quiet", "q", "bool", False, "Suppress verbose output"),
        Flag("tls-verify", "", "bool", True, "Refuse a registry whose certificate is not trusted (only sampan)"),
    ),
)


def run(ctx: Context, args: Parsed) -> int:
    """Pull an image, or all tags of a repository; says its whole name at the end."""
    reference = parse_reference(args.args[0])
    if args.bool("all-tags") and (reference.tag or reference.digest):
        raise CliError("tag can't be used with --all-tags/-a")
    if not args.bool("all-tags") and not reference.tag and not reference.digest:
        reference = reference.with_default_tag()
        if not args.bool("quiet"):
            print(f"Using default tag: {reference.tag}", flush=True)
    pull_image(ctx, args, reference, sys.stdout)
    print(reference.canonical)
    return 0
