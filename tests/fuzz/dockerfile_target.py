"""The fuzzed program: bytes as a Dockerfile, parsed, its variables replaced, its stages planned; as a .dockerignore too.

python tests/fuzz/dockerfile_target.py [libFuzzer options] CORPUS...
"""

import contextlib
import sys

import atheris  # type: ignore[import-untyped, unused-ignore]

with atheris.instrument_imports(include=["sampan.build", "sampan.dockerignore"]):
    from sampan import dockerignore
    from sampan.build.arguments import Arguments, platform_arguments
    from sampan.build.commands import command_of
    from sampan.build.graph import declare_globals, plan
    from sampan.build.instructions import Arg, Cmd, Entrypoint, Env, OnBuild, Run
    from sampan.build.mounts import mounts_of
    from sampan.build.parse import parse, parse_trigger
    from sampan.build.resolve import resolved
    from sampan.errors import InvalidArgument

PLATFORM = platform_arguments("linux/amd64", "linux/amd64")


def one(data: bytes) -> None:
    """libFuzzer's TestOneInput: InvalidArgument is the only error that may come."""
    with contextlib.suppress(InvalidArgument):
        build(data)
    with contextlib.suppress(dockerignore.BadPattern):
        matcher = dockerignore.Matcher(dockerignore.read(data))
        for path in ("Dockerfile", "a/b/c", ".x", "ä/→"):
            matcher.excludes(path)
            matcher.may_include_below(path)


def build(data: bytes) -> None:
    """Everything that happens before a build begins."""
    dockerfile = parse(data)
    arguments = Arguments({"a": "given", "http_proxy": "proxy", "none": None}, PLATFORM)
    declare_globals(dockerfile, arguments)
    made = plan(dockerfile, arguments)
    assert made.stages[-1].stage.index == made.target
    numbers = [each.stage.index for each in made.stages]
    assert numbers == sorted(set(numbers))
    assert all(each.needs <= set(numbers[:place]) for place, each in enumerate(made.stages))
    for each in made.stages:
        stage = arguments.stage()
        env: list[str] = []
        for instruction in each.stage.instructions:
            assert 1 <= instruction.lines.first <= instruction.lines.last
            environment = stage.environment(env)
            done = resolved(instruction, environment, dockerfile.directives.escape)
            match done:
                case Arg():
                    stage.declare(done)
                case Env():
                    env += [f"{pair.name}={pair.value}" for pair in done.pairs]
                case Run():
                    mounts_of(done, environment, "/w", dockerfile.directives.escape)
                    command_of(done.command)
                case Cmd() | Entrypoint():
                    command_of(done.command, ("sh",))
                case OnBuild():
                    with contextlib.suppress(InvalidArgument):
                        parse_trigger(done.trigger)


def main() -> None:
    """Entry point."""
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
