"""Each stage of the front end on the Dockerfiles of tests/golden/dockerfile: statements, parts, instructions."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sampan.build.instructions import Dockerfile
from sampan.build.lex import Lexer
from sampan.build.parse import parse
from sampan.build.split import split

GOLDEN = Path(__file__).parents[2] / "golden/dockerfile"
CASES = sorted(path.parent for path in GOLDEN.glob("*/Dockerfile"))


def readable(values: Any) -> str:
    """JSON, one value a line where they are many."""
    built = msgspec.to_builtins(values)
    if isinstance(built, list):
        return "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in built)
    return json.dumps(built, ensure_ascii=False, indent=1) + "\n"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_stage_gives_what_it_gave(case: Path, golden: Callable[[Path, str], None]) -> None:
    data = (case / "Dockerfile").read_bytes()
    lexer = Lexer(data)
    statements = list(lexer)
    golden(case / "statements.jsonl", readable(statements))
    parts = [msgspec.to_builtins(split(statement, lexer.escape)) for statement in statements]
    for part in parts:
        del part["statement"]  # is in the file before
    golden(case / "parts.jsonl", readable(parts))
    golden(case / "dockerfile.json", readable(parse(data)))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_dockerfile_survives_json(case: Path) -> None:
    dockerfile = parse((case / "Dockerfile").read_bytes())
    assert msgspec.json.decode(msgspec.json.encode(dockerfile), type=Dockerfile) == dockerfile
