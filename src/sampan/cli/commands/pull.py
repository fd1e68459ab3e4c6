"""sampan pull."""

from __future__ import annotations

import os
import sys

from sampan.cli.creating import pull_image
from sampan.cli.flags import Command, Flag, Parsed
from sampan.cli.http import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.main import Context
    from sampan.reference import Reference

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
    ),
)


def _parse(text: str) -> Reference:
    from sampan.reference import InvalidReference, parse

    try:
        return parse(text)
    except InvalidReference as error:
        raise CliError(error.message) from None


def run(ctx: Context, args: Parsed) -> int:
    """Pull an image, or all tags of a repository; says its whole name at the end."""
    reference = _parse(args.args[0])
    if args.bool("all-tags") and (reference.tag or reference.digest):
        raise CliError("tag can't be used with --all-tags/-a")
    if not args.bool("all-tags") and not reference.tag and not reference.digest:
        reference = reference.with_default_tag()
        if not args.bool("quiet"):
            print(f"Using default tag: {reference.tag}", flush=True)
    if args.bool("quiet"):
        with open(os.devnull, "w", encoding="utf-8") as null:
            pull_image(ctx, args, reference, null)
    else:
        pull_image(ctx, args, reference, sys.stdout)
    print(reference.canonical)
    return 0
