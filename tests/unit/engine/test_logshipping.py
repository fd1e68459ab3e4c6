"""How a log is cut for its server."""

from sampan.engine.logshipping import SLICE_BYTES, SLICE_LINES, _slices
from sampan.logs.outgoing import Line, LineSplitter


def test_slices_are_small_and_hold_everything() -> None:
    lines = [Line(number, False, b"x" * (number % 20000), False) for number in range(3000)]
    cut = list(_slices(lines))
    assert [line for one in cut for line in one] == lines
    assert max(map(len, cut)) <= SLICE_LINES
    assert max(sum(len(line.data) for line in one) for one in cut) < SLICE_BYTES + 20000
    assert list(_slices([])) == []


def test_lines_are_made_as_they_are_taken() -> None:
    frames = iter([(1, 1, b"\n" * SLICE_LINES)] * 100)
    slices = _slices(LineSplitter().feed(frames))
    assert len(next(slices)) == SLICE_LINES
    assert len(list(frames)) == 99
