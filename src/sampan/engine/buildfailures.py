"""Why builds fail, as docker counts it (moby builder/dockerfile/metrics.go)."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from sampan.build.errors import DockerfileError

FAILURES: Final = (
    "dockerfile_syntax_error",
    "dockerfile_empty_error",
    "command_not_supported_error",
    "error_processing_commands_error",
    "build_target_not_reachable_error",
    "missing_onbuild_arguments_error",
    "unknown_instruction_error",
    "build_canceled",
)


def reason_of(error: BaseException) -> str:
    """The kind of failure that ended a build. What is neither the file's fault nor the client's is an error of its commands."""
    message = str(error)
    if not isinstance(error, Exception):
        return "build_canceled"
    if "unknown instruction: " in message and isinstance(error, DockerfileError):
        return "unknown_instruction_error"
    if message.startswith("target stage ") and message.endswith(" could not be found"):
        return "build_target_not_reachable_error"
    if isinstance(error, DockerfileError):
        return "dockerfile_empty_error" if message.endswith(" cannot be empty") else "dockerfile_syntax_error"
    return "error_processing_commands_error"


@asynccontextmanager
async def counted(failed: Counter[str]) -> AsyncIterator[None]:
    """Count a build that fails."""
    try:
        yield
    except BaseException as error:
        failed[reason_of(error)] += 1
        raise
