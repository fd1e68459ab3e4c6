"""sampan push."""

from __future__ import annotations

import os
import sys

from sampan.cli.creating import parse_reference, registry_auth
from sampan.cli.flags import Command, Flag, Parsed
from sampan.cli.http import CliError
from sampan.cli.stream import terminal_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.main import Context

SPEC = Command(
    "[OPTIONS] NAME[:TAG]",
    "Upload an image to a registry",
    min_args=1,
    max_args=1,
    aliases=("image push", "push"),
    complete="images",
    flags=(
        Flag("all-tags", "a", "bool", False, "Push all tags of an image to the repository"),
        Flag("disable-content-trust", "", "bool", True, "Skip image signing"),
        Flag(
            "platform",
            "",
            "string",
            "",
            "Push a platform-specific manifest as a single-platform image to the registry.\n"
            "Image index won't be pushed, meaning that other manifests, including attestations won't be preserved.\n"
            "'os[/arch[/variant]]': Explicit platform (eg. linux/amd64)",
            api="1.46",
        ),
        Flag("quiet", "q", "bool", False, "Suppress verbose output"),
        Flag("tls-verify", "", "bool", True, "Refuse a registry whose certificate is not trusted (only sampan)"),
    ),
)
_NOTE = """
 Info -> Using --platform pushes only the specified platform manifest of a multi-platform image index.
         Other components, like attestations, will not be included.
         To push the complete multi-platform image, remove the --platform flag.
         """


def run(ctx: Context, args: Parsed) -> int:
    """Push an image, or all tags of a repository."""
    from sampan.cli.progress import display

    platform = None
    if args.str("platform"):
        from sampan.cli.platforms import as_json

        platform = as_json(args.str("platform"), f"Invalid platform {args.str('platform')}")
        print(_NOTE, flush=True)
    reference = parse_reference(args.args[0])
    quiet = args.bool("quiet")
    if args.bool("all-tags") and (reference.tag or reference.digest):
        raise CliError("tag can't be used with --all-tags/-a")
    if not args.bool("all-tags") and not reference.tag and not reference.digest:
        reference = reference.with_default_tag()
        if not quiet:
            print(f"Using default tag: {reference.tag}", flush=True)
    if reference.digest:
        raise CliError("cannot push a digest reference")
    query = {"tag": reference.tag, "platform": platform}
    if not args.bool("tls-verify"):
        query["tlsVerify"] = "0"
    headers = {"X-Registry-Auth": registry_auth(ctx, reference.domain)}
    response = ctx.client.request("POST", f"/images/{reference.familiar_name}/push", query, headers=headers)
    if quiet:
        with open(os.devnull, "w", encoding="utf-8") as null:
            display(response.lines(), null, aux=lambda _: None)
        print(reference.canonical)
    else:
        display(response.lines(), sys.stdout, width=terminal_size(1)[1] if sys.stdout.isatty() else 0, aux=lambda _: None)
    return 0
