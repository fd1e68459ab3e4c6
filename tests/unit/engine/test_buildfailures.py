"""Why builds fail, by docker's reasons."""

import asyncio
from collections import Counter

import pytest

from sampan.build.errors import DockerfileError
from sampan.build.parse import parse
from sampan.engine.buildfailures import FAILURES, counted, reason_of
from sampan.errors import EngineError, InvalidArgument, SystemFailure


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "dockerfile_empty_error"),
        (b"FROM a\nNOTHING\n", "unknown_instruction_error"),
        (b"FROM a\nENV\n", "dockerfile_syntax_error"),
        (b"# escape=x\n", "dockerfile_syntax_error"),
    ],
)
def test_a_file_that_is_wrong(text: bytes, reason: str) -> None:
    with pytest.raises(DockerfileError) as raised:
        parse(text)
    assert reason_of(raised.value) == reason
    assert reason in FAILURES


def test_other_reasons() -> None:
    assert reason_of(InvalidArgument('target stage "x" could not be found')) == "build_target_not_reachable_error"
    assert reason_of(SystemFailure("unknown instruction: of a step's own")) == "error_processing_commands_error"
    assert reason_of(asyncio.CancelledError()) == reason_of(GeneratorExit()) == "build_canceled"


def test_failures_are_counted_and_passed_on() -> None:
    failed: Counter[str] = Counter()

    async def build(error: BaseException | None) -> None:
        async with counted(failed):
            if error is not None:
                raise error

    asyncio.run(build(None))
    with pytest.raises(EngineError):
        asyncio.run(build(EngineError("x")))
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(build(asyncio.CancelledError()))
    assert failed == {"error_processing_commands_error": 1, "build_canceled": 1}
