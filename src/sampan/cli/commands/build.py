"""sampan build."""

from __future__ import annotations

import os
import sys

from sampan.cli.flags import Command, Flag, Parsed
from sampan.cli.http import ApiError, CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, TextIO

    from sampan.cli.contexts import BuildContext
    from sampan.cli.main import Context

SPEC = Command(
    "[OPTIONS] PATH | URL | -",
    "Build an image from a Dockerfile",
    min_args=1,
    max_args=1,
    aliases=("image build", "build", "builder build"),
    complete="files",
    flags=(
        Flag("add-host", "", "list:extra-host", (), 'Add a custom host-to-IP mapping ("host:ip")'),
        Flag("build-arg", "", "list:env", (), "Set build-time variables"),
        Flag("cache-from", "", "strings", (), "Images to consider as cache sources", complete="images"),
        Flag("cgroup-parent", "", "string", "", 'Set the parent cgroup for the "RUN" instructions during build'),
        Flag("compress", "", "bool", False, "Compress the build context using gzip"),
        Flag("cpu-period", "", "int", 0, "Limit the CPU CFS (Completely Fair Scheduler) period"),
        Flag("cpu-quota", "", "int", 0, "Limit the CPU CFS (Completely Fair Scheduler) quota"),
        Flag("cpu-shares", "c", "int", 0, "CPU shares (relative weight)"),
        Flag("cpuset-cpus", "", "string", "", "CPUs in which to allow execution (0-3, 0,1)"),
        Flag("cpuset-mems", "", "string", "", "MEMs in which to allow execution (0-3, 0,1)"),
        Flag("disable-content-trust", "", "bool", True, "Skip image verification"),
        Flag("file", "f", "string", "", 'Name of the Dockerfile (Default is "PATH/Dockerfile")', complete="files"),
        Flag("force-rm", "", "bool", False, "Always remove intermediate containers"),
        Flag("iidfile", "", "string", "", "Write the image ID to the file", complete="files"),
        Flag("isolation", "", "string", "", "Container isolation technology"),
        Flag("label", "", "list:label", (), "Set metadata for an image"),
        Flag("memory", "m", "bytes", 0, "Memory limit"),
        Flag("memory-swap", "", "swap-bytes", 0, "Swap limit equal to memory plus swap: -1 to enable unlimited swap"),
        Flag("network", "", "string", "default", "Set the networking mode for the RUN instructions during build", complete="networks"),
        Flag("no-cache", "", "bool", False, "Do not use cache when building the image"),
        Flag("output", "o", "list", (), 'Output destination (format: "type=local,dest=path")', complete="files"),
        Flag(
            "platform",
            "",
            "string",
            os.environ.get("DOCKER_DEFAULT_PLATFORM", ""),
            "Set platform if server is multi-platform capable",
            api="1.38",
        ),
        Flag(
            "progress",
            "",
            "string",
            "auto",
            'Set type of progress output ("auto", "plain", "quiet", "rawjson", "tty"). Use plain to show container output',
            complete="words:auto,plain,quiet,rawjson,tty",
        ),
        Flag("pull", "", "bool", False, "Always attempt to pull a newer version of the image"),
        Flag("quiet", "q", "bool", False, "Suppress the build output and print image ID on success"),
        Flag("rm", "", "bool", True, "Remove intermediate containers after a successful build"),
        Flag("secret", "", "list", (), 'Secret to expose to the build (format: "id=mysecret[,src=/local/secret]")'),
        Flag("security-opt", "", "strings", (), "Security options"),
        Flag("shm-size", "", "bytes", 0, 'Size of "/dev/shm"'),
        Flag("squash", "", "bool", False, "Squash newly built layers into a single new layer", api="1.25"),
        Flag("ssh", "", "list", (), 'SSH agent socket or keys to expose to the build (format: "default|<id>[=<socket>|<key>[,<key>]]")'),
        Flag("tag", "t", "list:tag", (), 'Name and optionally a tag in the "name:tag" format'),
        Flag("target", "", "string", "", "Set the target build stage to build."),
        Flag("ulimit", "", "ulimit", {}, "Ulimit options", shown="[]"),
    ),
)
_SHOWN_EVERY_S = 0.1


def run(ctx: Context, args: Parsed) -> int:
    """Build an image; prints what the daemon does, or with -q its ID."""
    from sampan.cli import buildoutput, buildprogress
    from sampan.cli.buildsession import session_of
    from sampan.cli.contexts import prepare

    outputs = buildoutput.parse(args.list("output"))
    query = _query(ctx, args)
    if outputs and not any(output.is_image for output in outputs):
        query |= {"only-output": True, "t": None}
    iidfile = args.str("iidfile")
    if iidfile:
        _remove(iidfile)
    piped = any(output.is_stdout for output in outputs)
    out: TextIO = sys.stderr if piped else sys.stdout
    told = out
    mode = buildprogress.mode_of(args.str("progress"), out, quiet=args.bool("quiet"))
    quiet = mode == "quiet"
    query |= {"q": quiet or None, "steps": mode in ("tty", "rawjson") or None}
    if mode in ("quiet", "rawjson"):
        import io

        told = io.StringIO()
        out = io.StringIO() if quiet else out
    progress = _Progress(told)
    session = session_of(args)
    context = prepare(args.args[0], args.str("file"), progress.counted)
    try:
        if session is not None:
            session.start(ctx.client)
            query["session"] = session.id
        query["dockerfile"] = context.dockerfile or None
        pieces = progress.counted(_packed(context, compress=args.bool("compress")), "Sending build context to Docker daemon", 0)
        image = _build(ctx, query, pieces, lambda lines, aux: buildprogress.show(mode, lines, out, aux, width=progress.width))
    except CliError as error:
        if quiet:
            sys.stderr.write(_held(told) + _held(out))
            sys.stderr.flush()
        raise _explained(error, context) from None
    finally:
        context.close()
        if session is not None:
            session.close()
    if quiet:
        image = _held(out)  # the ID and a newline, which docker writes to the file too
        if not piped:
            sys.stdout.write(image)
            sys.stdout.flush()
    if iidfile:
        _write(iidfile, image)
    buildoutput.write(ctx, outputs, image.strip())
    return 0


def _held(out: TextIO) -> str:
    """What was written to the buffer that takes stdout's place."""
    return str(out.getvalue())  # type: ignore[attr-defined]


def _query(ctx: Context, args: Parsed) -> dict[str, object]:
    from sampan.cli import fastjson
    from sampan.cli.creating import build_arguments

    def strings(name: str) -> str | None:
        return fastjson.dumps(args.list(name)) if args.list(name) else None

    def number(name: str) -> int | None:
        return args.int(name) or None

    def truth(name: str) -> bool | None:
        return args.bool(name) or None

    arguments = build_arguments(ctx, args.list("build-arg"))
    labels = dict(text.partition("=")[::2] for text in args.list("label"))
    ulimits = args.get("ulimit") or {}
    network = args.str("network")
    return {
        "buildargs": fastjson.dumps({name: arguments[name] for name in sorted(arguments)}) if arguments else None,
        "cachefrom": strings("cache-from"),
        "cgroupparent": args.str("cgroup-parent") or None,
        "cpuperiod": number("cpu-period"),
        "cpuquota": number("cpu-quota"),
        "cpusetcpus": args.str("cpuset-cpus") or None,
        "cpusetmems": args.str("cpuset-mems") or None,
        "cpushares": number("cpu-shares"),
        "extrahosts": args.list("add-host") or None,
        "forcerm": truth("force-rm"),
        "isolation": args.str("isolation") if args.str("isolation") not in ("", "default") else None,
        "labels": fastjson.dumps({name: labels[name] for name in sorted(labels)}) if labels else None,
        "memory": number("memory"),
        "memswap": number("memory-swap"),
        "networkmode": network if network not in ("", "default") else None,
        "nocache": truth("no-cache"),
        "platform": args.str("platform") or None,
        "pull": truth("pull"),
        "rm": None if args.bool("rm") else False,
        "securityopt": args.list("security-opt") or None,
        "shmsize": number("shm-size"),
        "squash": truth("squash"),
        "t": args.list("tag") or None,
        "target": args.str("target") or None,
        "ulimits": fastjson.dumps([ulimits[name] for name in sorted(ulimits)]) if ulimits else None,
        "version": "1",
    }


def _packed(context: BuildContext, *, compress: bool) -> Iterator[bytes]:
    if not compress:
        return context.pieces
    from sampan.cli.contexttar import gzipped

    return gzipped(context.pieces)


def _build(
    ctx: Context, query: dict[str, object], pieces: Iterator[bytes], show: Callable[[Iterator[bytes], Callable[[Any], None]], None]
) -> str:
    """The image's ID, as far as the daemon has told it. show: tells of the daemon's messages, and passes on what is not for the user."""
    from sampan.cli.credentials import registry_config

    headers = {"Content-Type": "application/x-tar", "X-Registry-Config": registry_config(ctx)}
    response = ctx.client.request("POST", "/build", query, data=pieces, headers=headers)
    images: list[str] = []

    def aux(value: Any) -> None:
        if isinstance(value, dict) and isinstance(value.get("ID"), str):
            images.append(value["ID"])

    show(response.lines(), aux)
    return images[-1] if images else ""


class _Progress:
    """Counts what is sent or fetched, and tells of it: on a terminal meanwhile, else at the end."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self.width = 0
        if out is sys.stdout and sys.stdout.isatty():
            self.width = os.get_terminal_size(1).columns

    def counted(self, pieces: Iterator[bytes], what: str, total: int) -> Iterator[bytes]:
        """The same pieces; of `total` bytes, if that is known."""
        import time

        from sampan.cli.progress import bar

        size = 0
        shown = time.monotonic()
        for piece in pieces:
            size += len(piece)
            if self.width and time.monotonic() - shown >= _SHOWN_EVERY_S:
                self._out.write(f"{what}{bar(size, total, self.width)}\r")
                self._out.flush()
                shown = time.monotonic()
            yield piece
        self._out.write(f"{what}{bar(size, total, self.width)}\r\r\n")
        self._out.flush()


def _explained(error: CliError, context: BuildContext) -> CliError:
    """The error, and below it the place in the Dockerfile, if it is about one."""
    from sampan.cli.excerpt import excerpt, lines_of

    if context.text is None or not isinstance(error, ApiError):
        return error
    lines = lines_of(error.reason) or error.lines
    drawn = excerpt(context.text, context.shown, lines, error.reason) if lines else ""
    return CliError(f"{error.message}\n{drawn}", error.code) if drawn else error


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise CliError(f"Removing image ID file: remove {path}: {(error.strerror or '').lower()}") from None


def _write(path: str, image: str) -> None:
    if not image:
        raise CliError(f"Server did not provide an image ID. Cannot write {path}")
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(image)
    except OSError as error:
        raise CliError(f"open {path}: {(error.strerror or '').lower()}") from None
