"""What is told of steps that run side by side, step by step."""

from collections.abc import Mapping

from sampan.engine.buildstage import Output
from sampan.engine.buildtelling import BuildTelling
from sampan.engine.lines import Lines


class Told(Lines):
    """All that was said."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[Mapping[str, object]] = []

    def say(self, line: Mapping[str, object], *, once: bool = True) -> None:
        del once
        self.lines.append(line)


def step(number: int, state: str, *about: object) -> Mapping[str, object]:
    return {"step": {"id": number, "state": state, **dict(zip(("stage", "place", "of", "text"), about, strict=False))}}


def test_the_steps_of_a_stage_that_a_trigger_asks_for_have_numbers_of_their_own() -> None:
    told = Told()
    build = BuildTelling(told, 2, 4)
    output = build.stage("", 3)
    output.begin(2, 4, "FROM base")
    first, second = output.late("helper", 1, 2), output.late("deep", 3, 1)
    first.begin(1, 3, "FROM scratch")
    first.end("")
    first.begin(2, 3, "COPY a /")
    first.cached()
    first.end("")
    second.begin(3, 3, "FROM scratch")
    second.end("")
    output.end("")
    assert told.lines == [
        {"plan": {"steps": 3}},
        step(2, "started", "", 1, 3, "FROM base"),
        {"plan": {"steps": 5}},
        {"plan": {"steps": 6}},
        step(5, "started", "helper", 1, 2, "FROM scratch"),
        step(5, "done"),
        step(6, "started", "helper", 2, 2, "COPY a /"),
        step(6, "cached"),
        step(7, "started", "deep", 1, 1, "FROM scratch"),
        step(7, "done"),
        step(2, "done"),
    ]


def test_a_failure_there_is_told_of_both() -> None:
    told = Told()
    output = BuildTelling(told, 1, 1).stage("", 1)
    output.begin(1, 1, "FROM base")
    output.late("other", 1, 1)
    late = output.late("helper", 1, 1)
    late.begin(1, 1, "FROM scratch")
    output.fail()
    assert told.lines[-2:] == [step(3, "failed"), step(1, "failed")]


def test_a_base_whose_trigger_is_in_the_cache_is_not() -> None:
    told = Told()
    output = BuildTelling(told, 1, 2).stage("", 2)
    for number, text in ((1, "FROM base"), (2, "RUN x")):
        output.begin(number, 2, text)
        output.cached()
        output.end("")
    assert [told.lines[2], told.lines[4]] == [step(1, "done"), step(2, "cached")]


def test_the_classic_words_of_such_a_stage_are_those_of_the_one_that_asks() -> None:
    output = Output()
    output.late("helper", 1, 1).begin(1, 1, "FROM scratch")
    assert output.taken() == [{"stream": "Step 1/1 : FROM scratch"}, {"stream": "\n"}]
