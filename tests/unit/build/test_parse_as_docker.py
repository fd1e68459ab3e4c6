"""What dockerd 28 says to good and bad Dockerfiles, and what we say: tests/golden/dockerfile/docker28.jsonl, recorded from one."""

import json
from pathlib import Path
from typing import Any

import pytest

from sampan.build.expand import expand
from sampan.build.instructions import Arg, Dockerfile, Env, Expose, Instruction, Label, StageInstruction, User, Volume
from sampan.build.parse import parse
from sampan.build.resolve import resolved
from sampan.errors import InvalidArgument
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


class Evaluator:
    """As much of a builder as the metadata of one stage needs."""

    def __init__(self) -> None:
        self.env: dict[str, str] = {}
        self.args: dict[str, str] = {}
        self.labels: dict[str, str] = {}
        self.user = ""
        self.volumes: set[str] = set()
        self.ports: list[str] = []

    def apply(self, instruction: StageInstruction, escape: str) -> None:
        """One step."""
        done: Instruction = resolved(instruction, self.args | self.env, escape)
        match done:
            case Env():
                self.env.update((pair.name, pair.value) for pair in done.pairs)
            case Label():
                self.labels.update((pair.name, pair.value) for pair in done.pairs)
            case Arg():
                self.args.update((each.name, each.default) for each in done.declarations if each.default is not None)
            case User():
                self.user = done.user
            case Volume():
                self.volumes |= set(done.paths)
            case Expose():
                self.ports += done.ports


@pytest.mark.parametrize(
    "case",
    [
        case
        for case in cases("docker28.jsonl")
        if "config" in case["docker28"] and case["dockerfile"].upper().count("FROM") == 1 and not case["dockerfile"].startswith("ARG")
    ],
    ids=lambda case: case["name"],
)
def test_the_config_comes_out_as_dockers(case: dict[str, Any]) -> None:
    config = case["docker28"]["config"]
    dockerfile = parse(case["dockerfile"].encode("utf-8", "surrogateescape"))
    ours = Evaluator()
    for instruction in dockerfile.stages[0].instructions:
        ours.apply(instruction, dockerfile.directives.escape)
    assert [f"{name}={value}" for name, value in ours.env.items()] == config.get("Env", [])
    assert {name: shown(value) for name, value in ours.labels.items()} == config.get("Labels", {})
    assert ours.user == config.get("User", "")
    assert ours.volumes == set(config.get("Volumes", ()))
    assert bool(ours.ports) == bool(config.get("ExposedPorts"))
