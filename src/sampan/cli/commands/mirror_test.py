"""sampan mirror test: Sampan's own, how fast mirrors answer, and whether they have an image."""

from __future__ import annotations

import sys

from sampan.cli import daemonfile, mirrors
from sampan.cli.flags import Command, Flag, Parsed
from sampan.cli.format.table import tabulate
from sampan.cli.http import CliError
from sampan.mirrors import normalised
from sampan.reference import DEFAULT_DOMAIN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.main import Context
    from sampan.cli.mirrorprobe import Probe
    from sampan.reference import Reference

WAIT_SECONDS = 20.0
"""Names that no server resolves take longer than any other answer."""
SPEC = Command(
    "[OPTIONS] [URL...]",
    "Time how fast mirrors answer: those in use, or the URLs given",
    flags=(
        mirrors.registry_flag(""),
        Flag("image", "", "string", "", "Image whose manifest is asked for (default for docker.io: busybox)"),
        mirrors.CONFIG_FLAG,
    ),
)


def run(ctx: Context, args: Parsed) -> int:
    """A table, the registry itself last. Fails if no mirror works."""
    from threading import Thread

    from sampan.cli.mirrorprobe import Probe
    from sampan.registryhosts import HUB

    daemon = daemonfile.find(ctx, args.str("config-file"))
    keys, _ = daemonfile.read(daemon.path)
    info = mirrors.info_of(ctx, daemon)
    image = _image(args.str("image"))
    only = args.str("registry") or (image.domain if image else "")
    if args.args:
        mirrors.check(only or DEFAULT_DOMAIN, args.args)
        wanted = {only or DEFAULT_DOMAIN: [*args.args]}
    else:
        wanted = {name: urls for name, urls in mirrors.all_of(info, keys, daemon.path).items() if only in ("", name)}
    if not any(wanted.values()):
        raise CliError(
            f"there is no mirror{' of ' + only if only else ''} in {daemon.path}: sampan mirror add URL, or sampan mirror test URL"
        )
    keys["insecure-registries"] = [*dict.fromkeys([*(keys.get("insecure-registries") or ()), *mirrors.insecure(info)])]
    probes: list[Probe] = []
    for name, urls in wanted.items():
        probes += [Probe(name, normalised(url), keys) for url in urls]
        probes += [Probe(name, f"https://{HUB if name == DEFAULT_DOMAIN else name}/", keys, mirror=False)] if urls else []
    threads = []
    for probe in probes:
        asked = image if image and image.domain == probe.registry else _image("busybox") if probe.registry == DEFAULT_DOMAIN else None
        words = (asked.path, asked.digest or asked.tag or "latest") if asked else ("", "")
        threads.append(Thread(target=probe.run, args=words, daemon=True))
        threads[-1].start()
    for thread in threads:
        thread.join(WAIT_SECONDS)
    rows = ["REGISTRY\tURL\tPING\tMANIFEST"]
    for probe in probes:
        url = probe.url if probe.mirror else f"{probe.url} (the registry)"
        rows.append(f"{probe.registry}\t{url}\t{_shown(probe.ping, 'no answer')}\t{_shown(probe.manifest, '-')}")
    sys.stdout.write(tabulate("\n".join(rows)) + "\n")
    return 0 if any(probe.works for probe in probes if probe.mirror) else 1


def _shown(result: float | str, nothing: str) -> str:
    return f"{result * 1000:.0f} ms" if isinstance(result, float) else result or nothing


def _image(name: str) -> Reference | None:
    """Raises CliError for what is no name."""
    from sampan.errors import EngineError
    from sampan.reference import parse

    try:
        return parse(name) if name else None
    except EngineError as error:
        raise CliError(error.message) from None
