"""What dockerd 28 says to good and bad Dockerfiles, and what we say: tests/golden/dockerfile/docker28.jsonl, recorded from one."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sampan.build import metadata
from sampan.build.arguments import Arguments
from sampan.build.expand import expand
from sampan.build.graph import declare_globals
from sampan.build.instructions import Add, Arg, Cmd, Dockerfile, WorkDir
from sampan.build.parse import parse
from sampan.build.resolve import resolved
from sampan.errors import InvalidArgument
from sampan.spec.oci_image import ContainerConfig
from tests.golden.dockerfile.record import ENVIRONMENT

GOLDEN = Path(__file__).parents[2] / "golden/dockerfile"


def cases(name: str) -> list[dict[str, Any]]:
    """One file's."""
    return [json.loads(line) for line in (GOLDEN / name).read_text().splitlines()]


def shown(text: str) -> str:
    """A text as JSON can have it."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def texts(dockerfile: Dockerfile) -> list[str]:
    """What each step is announced with."""
    steps = [arg.text for arg in dockerfile.args]
    for stage in dockerfile.stages:
        steps += [stage.text, *(instruction.text for instruction in stage.instructions)]
    return [f"Step {number}/{len(steps)} : {shown(text)}" for number, text in enumerate(steps, 1)]


@pytest.mark.parametrize("case", cases("docker28.jsonl"), ids=lambda case: case["name"])
def test_is_refused_or_announced_as_docker_does(case: dict[str, Any]) -> None:
    theirs = case["docker28"]
    expected = case["ours"] if "why" in case else theirs.get("error") if "status" in theirs else None
    data = case["dockerfile"].encode("utf-8", "surrogateescape")
    if expected is not None:
        with pytest.raises(InvalidArgument) as caught:
            parse(data)
        assert caught.value.message == expected
        return
    announced = texts(parse(data))
    if "status" not in theirs:  # all it got to; the first may be lost among warnings, which end in no newline
        assert theirs["steps"] in (announced[: len(theirs["steps"])], announced[-len(theirs["steps"]) :])


@pytest.mark.parametrize("case", cases("expansions28.jsonl"), ids=lambda case: case["word"])
def test_words_are_expanded_as_docker_does(case: dict[str, Any]) -> None:
    try:
        ours = {"value": expand(case["word"].strip(" "), ENVIRONMENT)}
    except InvalidArgument as error:
        ours = {"error": error.message}
    assert ours == case["docker28"]


@pytest.mark.parametrize(
    "case",
    [
        case
        for case in cases("docker28.jsonl")
        if "config" in case["docker28"] and case["dockerfile"].upper().count("FROM") == 1 and "COPY" not in case["dockerfile"].upper()
    ],
    ids=lambda case: case["name"],
)
def test_the_config_comes_out_as_dockers(case: dict[str, Any]) -> None:
    dockerfile = parse(case["dockerfile"].encode("utf-8", "surrogateescape"))
    escape = dockerfile.directives.escape
    arguments = Arguments({}, {})
    assert declare_globals(dockerfile, arguments) is None
    stage = arguments.stage()
    config = ContainerConfig()
    had_cmd = False
    for instruction in dockerfile.stages[0].instructions:
        done = resolved(instruction, stage.environment(config.env or ()), escape)
        if isinstance(done, Arg):
            stage.declare(done)
        if isinstance(done, WorkDir):
            config = msgspec.structs.replace(config, working_dir=metadata.working_dir(config, done.path))
        elif not isinstance(done, Add):
            config = metadata.apply(done, config, had_cmd).config
        had_cmd = had_cmd or isinstance(done, Cmd)
    ours = {key: value for key, value in msgspec.to_builtins(config).items() if value}
    assert json.loads(shown(json.dumps(ours, ensure_ascii=False))) == case["docker28"]["config"]
