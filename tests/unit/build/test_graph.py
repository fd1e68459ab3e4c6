"""Stages that are needed, what they read, and what may run side by side."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from sampan.build.arguments import Arguments, platform_arguments
from sampan.build.graph import ImageSource, Plan, StageSource, declare_globals, from_source, plan, target_index
from sampan.build.parse import parse
from sampan.errors import InvalidArgument

GOLDEN = Path(__file__).parents[2] / "golden/dockerfile"
PLATFORM = platform_arguments("linux/arm64/v8", "linux/amd64")
DIAMOND = b"""FROM scratch AS top
LABEL a=b
FROM top AS left
RUN left
FROM top AS right
RUN --mount=from=left,target=/l right
FROM busybox AS unused
FROM scratch
COPY --from=LEFT /a /
COPY --from=2 /b /
COPY --from=tool:1 /c /
COPY --from=left /d /
"""


def planned(data: bytes, target: str = "", **given: str | None) -> Plan:
    """The plan of a Dockerfile."""
    dockerfile = parse(data)
    arguments = Arguments(given, PLATFORM)
    assert declare_globals(dockerfile, arguments) is None
    return plan(dockerfile, arguments, target=target)


@pytest.mark.parametrize("name", ["multistage", "everything"])
@pytest.mark.parametrize("target", ["", "0"])
def test_plans_stay_as_they_were(name: str, target: str, golden: Callable[[Path, str], None]) -> None:
    made = planned((GOLDEN / name / "Dockerfile").read_bytes(), target)
    lines = [
        msgspec.json.encode({"stage": each.stage.index, "base": each.base, "platform": each.platform, "reads": each.reads}).decode()
        for each in made.stages
    ]
    lines.append(msgspec.json.encode({"target": made.target, "needs": [sorted(each.needs) for each in made.stages]}).decode())
    golden(GOLDEN / name / f"plan{target}.jsonl", "\n".join(lines) + "\n")


def test_unused_stages_are_left_out() -> None:
    made = planned(DIAMOND)
    assert [each.stage.index for each in made.stages] == [0, 1, 2, 4]
    assert [each.needs for each in made.stages] == [set(), {0}, {0, 1}, {1, 2}]
    assert made.stages[-1].reads == (StageSource(1), StageSource(2), ImageSource("tool:1"))
    assert made.stages[-1].needs == {1, 2}


def test_targets_are_names_or_numbers() -> None:
    assert planned(DIAMOND, "LEFT").target == 1
    assert [each.stage.index for each in planned(DIAMOND, "left").stages] == [0, 1]
    assert [each.stage.index for each in planned(DIAMOND, "3").stages] == [3]
    for missing in ("nope", "lift", "5", "-1", "²", "9" * 30):
        with pytest.raises(InvalidArgument, match=r'^target stage ".+" could not be found$'):
            target_index(parse(DIAMOND), missing)


@pytest.mark.parametrize(
    ("dockerfile", "problem"),
    [
        (b"FROM $base", "base name ($base) should not be blank"),
        (b"FROM ${base", 'failed to process "${base": unsupported modifier (\ufffd) in substitution'),
        (b"FROM --platform=$P scratch", "empty platform value from expression $P"),
        (b"FROM scratch AS a\nFROM scratch AS a", "a stage name already used"),
    ],
)
def test_what_is_wrong_is_kept_for_the_stages_turn(dockerfile: bytes, problem: str) -> None:
    assert planned(dockerfile).stages[-1].problem == problem


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("1", "invalid from flag value 1: refers to current build stage"),
        ("5", "invalid from flag value 5: index out of bounds"),
        ("-1", "invalid from flag value -1: index out of bounds"),
        ("9" * 5000, "invalid from flag value " + "9" * 5000 + ": index out of bounds"),
        ("left", 'cannot copy from stage "left", it needs to be defined before current stage "left"'),
        ("right", 'cannot copy from stage "right", it needs to be defined before current stage "left"'),
    ],
)
def test_from_names_stages_that_are_over(name: str, message: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        from_source(parse(DIAMOND), name, 1)
    assert caught.value.message == message


def test_a_name_is_a_stage_only_after_it() -> None:
    made = planned(b"FROM node AS node\nFROM NODE AS b\nFROM c\n")
    assert made.stages[0].base == ImageSource("c")
    made = planned(b"FROM node AS node\nFROM Node\n")
    assert [each.base for each in made.stages] == [ImageSource("node"), StageSource(0)]


def test_platforms_and_arguments_of_froms() -> None:
    data = b"ARG V=1\nARG W=$V-x Z\nFROM --platform=$BUILDPLATFORM a:$W$Z AS first\nFROM --platform=$TARGETPLATFORM b:${TARGETARCH}\n"
    assert [(each.platform, each.base) for each in planned(data, "first").stages] == [("linux/amd64", ImageSource("a:1-x"))]
    assert planned(data, V="2", Z="z").stages[0].base == ImageSource("b:arm64")
    assert planned(data, "first", V="2", Z="z").stages[0].base == ImageSource("a:2-xz")


def test_ten_thousand_stages_one_on_the_other() -> None:
    data = b"FROM scratch AS s0\n" + b"".join(b"FROM s%d AS s%d\n" % (number, number + 1) for number in range(10_000))
    assert len(planned(data).stages) == 10_001


def test_arguments_of_a_stage() -> None:
    dockerfile = parse(b"ARG G=global\nARG H\nFROM scratch\nARG G H=own TARGETARCH TARGETVARIANT=mine\nARG E=\nARG U\n")
    arguments = Arguments({"http_proxy": "p", "U": "u", "X": "x", "NONE": None, "HTTPS_PROXY": None}, PLATFORM)
    assert declare_globals(dockerfile, arguments) is None
    stage = arguments.stage()
    assert stage.values() == {"http_proxy": "p"}
    for instruction in dockerfile.stages[0].instructions:
        stage.declare(instruction)  # type: ignore[arg-type]
    expected = {"G": "global", "H": "own", "TARGETARCH": "arm64", "TARGETVARIANT": "mine", "E": "", "U": "u", "http_proxy": "p"}
    assert stage.values() == expected
    assert stage.environment(["G=env"]) == expected | {"G": "env"}
    assert stage.run_environment(["G=env", "H="]) == ["E=", "TARGETARCH=arm64", "TARGETVARIANT=mine", "U=u", "http_proxy=p"]
    assert stage.key_prefix(["G=", "H="]) == ["|4", "E=", "TARGETARCH=arm64", "TARGETVARIANT=mine", "U=u"]
    assert arguments.unused() == ["NONE", "X"]
    assert arguments.stage().key_prefix([]) == ["|0"]
    assert Arguments({}, {}).stage().key_prefix([]) == []


class _Counting(Arguments):
    """Says how often it is asked for a value."""

    asked = 0

    def value(self, name: str, default: str | None) -> str | None:
        self.asked += 1
        return super().value(name, default)


def test_many_global_arguments_take_no_more_than_their_number() -> None:
    lines = "ARG a0=x\n" + "".join(f"ARG a{number}=$a{number - 1}\n" for number in range(1, 3000))
    arguments = _Counting({"a7": "given", "HTTP_PROXY": "p"}, PLATFORM)
    dockerfile = parse(f"{lines}ARG a2999\nARG a5=\nARG TARGETOS\nARG TARGETARCH=mine\nARG HTTP_PROXY\nFROM a\n".encode())
    assert declare_globals(dockerfile, arguments) is None
    assert arguments.asked < 2 * 3000
    values = arguments.globals()
    assert [values.get(name) for name in ("a0", "a6", "a7", "a8", "a2998", "a2999", "a5", "TARGETOS", "TARGETARCH", "HTTP_PROXY")] == [
        "x", "x", "given", "given", "given", None, "", "linux", "mine", "p",
    ]  # fmt: skip


def test_what_global_arguments_come_to_is_bounded() -> None:
    doubled = "ARG a=" + "x" * 60000 + "\nARG b=" + "$a" * 17 + "\n" + "".join(f"ARG c{number}=$b\n" for number in range(100))
    problem = declare_globals(parse(f"{doubled}FROM a\n".encode()), Arguments({}, PLATFORM))
    assert problem is not None
    assert problem[1] == "the ARGs before the first FROM come to more than 4194304 characters"
