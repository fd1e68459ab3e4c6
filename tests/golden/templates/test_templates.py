"""Go templates against what the docker 28.2 client made of them (`docker version --format`, recorded by record.py)."""

import json
from pathlib import Path
from typing import Any

import pytest

from sampan.cli.format import schema
from sampan.cli.format.execute import Template, TemplateError
from sampan.cli.format.functions import Function
from sampan.cli.format.table import tabulate
from sampan.cli.format.values import GoList

GOLDEN = json.loads(Path(__file__).with_name("version.json").read_text())
ORDER = Function(lambda component: GoList("[]string", sorted(component.fields["Details"])), "types.ComponentVersion")


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: case["template"][:50])
def test_same_as_docker(case: dict[str, Any]) -> None:
    """Output, error text and exit code are docker's."""
    assert (case["exit"], case["stdout"], case["stderr"]) == result(case["template"])


def result(text: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `version --format TEXT`."""
    try:
        template = Template(text, "version", {"getDetailsOrder": ORDER})
    except TemplateError as error:
        return 64, "", f"template parsing error: {error}\n"
    try:
        out, message, code = template.execute(schema.decode("system.versionInfo", GOLDEN["data"])), "", 0
    except TemplateError as error:
        out, message, code = getattr(error, "partial", ""), f"{error}\n", 1
    return code, tabulate(out + "\n", minimum=20, padding=1), message
