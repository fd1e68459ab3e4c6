"""Patterns of clients end in time, whatever they are."""

import re
import signal

import pytest

from sampan.errors import InvalidArgument
from sampan.patterns import bounded, compiled


@pytest.mark.timeout(30)
@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|a)*b", ".*.*.*.*.*.*.*.*.*.*.*.*x"])
def test_a_pattern_that_takes_for_ever_is_refused(pattern: str) -> None:
    before = signal.getsignal(signal.SIGVTALRM)
    with pytest.raises(InvalidArgument, match="too long"):
        bounded(lambda: compiled(pattern).search("a" * 100 + "!"))
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0, 0)
    assert signal.getsignal(signal.SIGVTALRM) == before


def test_a_result_and_an_error_come_through() -> None:
    assert bounded(lambda: 3) == 3
    with pytest.raises(re.error):
        bounded(lambda: compiled("("))
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0, 0)


@pytest.mark.parametrize("pattern", ["(" * 5000 + ")" * 5000, "a{99999999999}"])
def test_what_is_too_deep_or_too_large_is_no_expression(pattern: str) -> None:
    with pytest.raises(re.error):
        compiled(pattern)
