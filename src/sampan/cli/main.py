"""The `sampan` program: finds the command, parses its options, runs it. Nothing is imported before it is needed."""

from __future__ import annotations

import os
import sys

from sampan.cli.commandtable import ABSENT, ALIASES, COMMANDS, GROUPS, PROGRAM
from sampan.cli.flags import Command, Flag, Parsed, UsageError, parse
from sampan.cli.http import MISSHAPEN, CliError, misshapen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TextIO

    from sampan.cli.http import Client, Pending

_CONFIG = os.environ.get("DOCKER_CONFIG") or os.path.join(os.path.expanduser("~"), ".docker")
_CERTS = os.environ.get("DOCKER_CERT_PATH") or _CONFIG

GLOBAL_FLAGS: tuple[Flag, ...] = (
    Flag("config", "", "string", _CONFIG, "Location of client config files"),
    Flag(
        "context",
        "c",
        "string",
        "",
        "Name of the context to use to connect to the daemon (overrides DOCKER_HOST env var and default context set with "
        f'"{PROGRAM} context use")',
        complete="contexts",
    ),
    Flag("debug", "D", "bool", False, "Enable debug mode"),
    Flag("host", "H", "list", (), "Daemon socket to connect to"),
    Flag("log-level", "l", "string", "info", 'Set the logging level ("debug", "info", "warn", "error", "fatal")'),
    Flag("tls", "", "bool", bool(os.environ.get("DOCKER_TLS")), "Use TLS; implied by --tlsverify"),
    Flag("tlscacert", "", "string", os.path.join(_CERTS, "ca.pem"), "Trust certs signed only by this CA"),
    Flag("tlscert", "", "string", os.path.join(_CERTS, "cert.pem"), "Path to TLS certificate file"),
    Flag("tlskey", "", "string", os.path.join(_CERTS, "key.pem"), "Path to TLS key file"),
    Flag("tlsverify", "", "bool", bool(os.environ.get("DOCKER_TLS_VERIFY")), "Use TLS and verify the remote"),
    Flag("version", "v", "bool", False, "Print version information and quit"),
)


class Context:
    """What a command works with: the daemon's client (made at first use), the global options, the streams."""

    def __init__(self, options: Parsed) -> None:
        self.options = options
        self._client: Client | None = None
        self._config: dict[str, object] | None = None

    @property
    def client(self) -> Client:
        """The client of the daemon that -H, DOCKER_HOST or the default says."""
        if self._client is None:
            from sampan.cli.connect import make_client

            self._client = make_client(self.options)
        return self._client

    @property
    def config(self) -> dict[str, object]:
        """The user's config.json (docker's own file: detachKeys, psFormat, proxies, HttpHeaders, ...); {} if there is none."""
        if self._config is None:
            from sampan.cli.connect import load_config

            self._config = load_config(self.options)
        return self._config

    @property
    def was_answered(self) -> bool:
        """Whether a daemon has said anything yet: an answer of another shape than it should have can only be its own."""
        return self._client is not None and self._client.ping is not None

    def close(self) -> None:
        """Close the client's connections."""
        if self._client is not None:
            self._client.close()

    @staticmethod
    def path(name: str) -> str:
        """A name or ID as a segment of a URL's path."""
        from sampan.cli.http import quote

        if not name.strip():
            raise CliError("invalid container name or ID: value is empty")
        return quote(name, safe="$&+,/:;=@")

    @staticmethod
    def print(text: str) -> None:
        """One line on stdout, at once: output of a command that takes time must be seen as it comes."""
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    @staticmethod
    def error(text: str) -> None:
        """One line on stderr."""
        sys.stdout.flush()
        sys.stderr.write(text + "\n")
        sys.stderr.flush()

    def each(self, names: Sequence[str], action: object, *, echo: bool = True) -> int:
        """Do `action(name)` for every name and print the name; errors are printed last, as docker does. Returns the exit code."""
        assert callable(action)
        errors: list[str] = []
        for name in names:
            try:
                action(name)
                if echo:
                    self.print(name)
            except CliError as error:
                errors.append(error.message)
        if errors:
            self.error("\n".join(errors))
            return 1
        return 0

    def each_at_once(self, names: Sequence[str], begin: Callable[[str], Pending], *, missing_is_fine: bool = False) -> int:
        """Like `each`, but with many requests under way: `begin(name)` sends one (client.begin). Answers are shown in the order given.

        missing_is_fine: an object that does not exist is reported at once and does not count as a failure (rm -f).
        """
        from sampan.cli.http import ApiError

        errors: list[str] = []
        at_once = self.client.host.at_once
        for at in range(0, len(names), at_once):
            batch: list[tuple[str, Pending | CliError]] = []
            for name in names[at : at + at_once]:
                try:
                    batch.append((name, begin(name)))
                except CliError as error:
                    batch.append((name, error))
            for name, pending in batch:
                try:
                    if isinstance(pending, CliError):
                        raise pending
                    pending.finish()
                    self.print(name)
                except CliError as error:
                    if missing_is_fine and isinstance(error, ApiError) and error.status == 404:
                        self.error(error.message)
                    else:
                        errors.append(error.message)
        if errors:
            self.error("\n".join(errors))
        return 1 if errors else 0


def load(path: str) -> tuple[Command, object]:
    """The SPEC and the run function of a command, by its path (`container rm`)."""
    from importlib import import_module

    name = "sampan.cli.commands." + COMMANDS[ALIASES.get(path, path)]
    try:
        module = import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise CliError(f"'{PROGRAM} {path}' is not implemented yet") from None
    return module.SPEC, module.run


def usage_line(path: str, spec: Command) -> str:
    """`sampan rm [OPTIONS] CONTAINER [CONTAINER...]`."""
    return f"{PROGRAM} {ALIASES.get(path, path)} {spec.use}".rstrip()


def main(argv: Sequence[str]) -> int:
    """Run one command line (without the program's name). Returns the exit code; messages of errors go to stderr."""
    try:
        return _main(argv)
    except UsageError as error:
        Context.error(str(error))
        return 125
    except CliError as error:
        if error.message:
            Context.error(error.message)
        return error.code
    except KeyboardInterrupt:
        return 130


def _main(argv: Sequence[str]) -> int:
    try:
        options = parse(GLOBAL_FLAGS, argv, interspersed=False)
    except UsageError as error:
        usage = f"Usage:  {PROGRAM} [OPTIONS] COMMAND [ARG...]"
        raise UsageError(f"{error}\n\n{usage}\n\nRun '{PROGRAM} --help' for more information") from None
    rest = options.args
    if options.help:
        return _help(rest if rest and rest[0] in COMMANDS else [], options.help, options=options)
    if options.bool("version"):
        from sampan.version import VERSION

        Context.print(f"Sampan version {VERSION}")
        return 0
    if not rest:
        return _help([], "", options=options)
    if rest[0] == "help":
        if len(rest) > 1:
            _run_plugin(options, [], [*rest[1:], "--help"])
        from sampan.cli.help import topic

        return _help(topic(rest[1:]), "", options=options)
    level = options.str("log-level")
    if level not in ("panic", "fatal", "error", "warn", "warning", "info", "debug", "trace"):
        raise CliError(f"Unable to parse logging level: {level}")
    _run_plugin(options, argv[: len(argv) - len(rest)], rest)
    path, words = _find(rest, options)
    ctx = Context(options)
    try:
        return _run(ctx, path, rest[words:])
    except MISSHAPEN as error:
        if not ctx.was_answered or options.bool("debug"):
            raise
        raise CliError(f"{misshapen(error)} (--debug shows where)", 125 if COMMANDS[ALIASES.get(path, path)] == "run" else 1) from None
    finally:
        ctx.close()


def _run_plugin(options: Parsed, before: Sequence[str], rest: Sequence[str]) -> None:
    """Become the plugin that a command is: one that is none of ours, or `builder` where config.json says which (as docker allows).

    before: the global options as they are written.
    """
    name = rest[0]
    if name != "builder" and (name in COMMANDS or name in GROUPS or name in ABSENT or name.startswith("-")):
        return
    from sampan.cli import cliplugins

    name = cliplugins.alias_of(options, name)
    plugin = cliplugins.find(options, name)
    if plugin is not None:
        cliplugins.run(options, plugin, [*before, name, *rest[1:]])


def _find(rest: Sequence[str], options: Parsed) -> tuple[str, int]:
    """The command's path and how many words of the line it takes. Raises or prints help for groups and unknown names."""
    name = rest[0]
    for path in (name, " ".join(rest[:2])):
        if path in ABSENT:
            raise CliError(f"'{PROGRAM} {path}' is not available: Sampan has no {ABSENT[path]}")
    if name not in GROUPS:
        if name not in COMMANDS:
            if any(word in ("--help", "-h") for word in rest[1:]):
                raise CliError("", _help([], "", options=options))
            raise CliError(f"{PROGRAM}: unknown command: {PROGRAM} {name}\n\nRun '{PROGRAM} --help' for more information")
        return name, 1
    words = 1
    path = name
    if len(rest) > 1 and not rest[1].startswith("-"):
        path, words = f"{name} {rest[1]}", 2
    if path in COMMANDS or path in ALIASES:
        return path, words
    try:
        parsed = parse((), rest[1:])
    except UsageError as error:
        raise UsageError(f"{error}\n\nUsage:  {PROGRAM} {name}\n\nRun '{PROGRAM} {name} --help' for more information") from None
    if parsed.args and not parsed.help:
        see = f"Usage:  {PROGRAM} {name}\n\nRun '{PROGRAM} {name} --help' for more information"
        raise CliError(f"{PROGRAM}: unknown command: {PROGRAM} {name} {parsed.args[0]}\n\n{see}")
    # what was asked for goes to stdout; the reminder that a command is missing goes to stderr
    raise CliError("", _help([name], parsed.help, sys.stdout if parsed.help else sys.stderr))


def _run(ctx: Context, path: str, argv: Sequence[str]) -> int:
    spec, run = load(path)
    line = usage_line(path, spec)
    if spec.raw:
        args = Parsed({})
        args.args = list(argv)
    else:
        try:
            args = parse(spec.flags, argv, interspersed=spec.interspersed, warn=ctx.print)
        except UsageError as error:
            raise UsageError(f"{error}\n\nUsage:  {line}\n\nRun '{PROGRAM} {path} --help' for more information") from None
    if args.help:
        return _help(path.split(), args.help)
    args.path = path
    _check_count(f"{PROGRAM} {path}", line, spec, len(args.args))
    _check_supported(ctx, spec, args)
    assert callable(run)
    code: int = run(ctx, args)
    return code


def _check_supported(ctx: Context, spec: Command, args: Parsed) -> None:
    """Refuse options that the daemon is too old for, or that only Windows has."""
    errors: list[str] = []
    for flag in spec.flags:
        if not flag.api or flag.name not in args.set:
            continue
        if flag.api == "windows":
            errors.append(
                f'"--{flag.name}" is only supported on a Docker daemon running on windows, but the Docker daemon is running on linux'
            )
        elif flag.api == "experimental":
            ctx.client.negotiate()
            if (ctx.client.ping or {}).get("docker-experimental") != "true":
                errors.append(f'"--{flag.name}" is only supported on a Docker daemon with experimental features enabled')
        elif not ctx.client.at_least(flag.api):
            version = ctx.client.api_version
            errors.append(f'"--{flag.name}" requires API version {flag.api}, but the Docker daemon API version is {version}')
    if errors:
        raise CliError("\n".join(errors))


def _check_count(command: str, line: str, spec: Command, count: int) -> None:
    if count < spec.min_args or (spec.max_args is not None and count > spec.max_args):
        from sampan.cli.help import count_problem

        raise CliError(count_problem(command, line, spec))


def _help(words: Sequence[str], how: str, out: TextIO | None = None, *, options: Parsed | None = None) -> int:
    """options: the global ones, for the program's own page."""
    from sampan.cli import help as texts

    if how == "h":
        old = "Flag shorthand -h has been deprecated, use --help"
        Context.print(old) if words else Context.error(old)
    out = out or sys.stdout
    out.write(texts.text(list(words), options))
    out.flush()
    return 0


def _open_standard_streams() -> None:
    """Give closed descriptors 0 to 2 something to be, else the daemon's socket would become the output. Text is UTF-8 in any locale."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for name, fd in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(fd, "w", encoding="utf-8", errors="surrogateescape", closefd=False))  # noqa: SIM115
        elif stream.encoding != "utf-8" or stream.errors != "surrogateescape":
            stream.reconfigure(encoding="utf-8", errors="surrogateescape")


def entry() -> None:
    """The console script. Ends the process without the interpreter's tear-down, which costs milliseconds."""
    code = 1
    _open_standard_streams()
    try:
        code = main(sys.argv[1:])
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError as error:
        code = _output_failed(error)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    os._exit(code)


def _output_failed(error: OSError) -> int:
    """What is done when stdout cannot be written; what has nothing to do with it is raised again."""
    if isinstance(error, BrokenPipeError):
        # what a Go program does when its stdout is gone: die of SIGPIPE
        import signal

        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGPIPE)
    if error.filename is not None or error.errno is None:
        raise error
    sys.stderr.write(f"write /dev/stdout: {(error.strerror or '').lower()}\n")
    sys.stderr.flush()
    return 1


if __name__ == "__main__":
    entry()
