"""The frames of a build's session."""

import pytest
from hypothesis import given
from hypothesis import strategies as some

from sampan import sessionframes as frames
from sampan.sessionframes import Frame

FRAMES = some.lists(
    some.builds(Frame, some.integers(frames.SECRET, frames.END), some.integers(0, 2**32 - 1), some.binary(max_size=300)), max_size=8
)


@given(FRAMES, some.integers(1, 50))
def test_what_is_sent_arrives_however_it_is_cut(sent: list[Frame], size: int) -> None:
    wire = b"".join(frames.frame(*one) for one in sent)
    reader, found = frames.Reader(), list[Frame]()
    for at in range(0, len(wire), size):
        found += reader.feed(wire[at : at + size])
    assert found == sent


@given(some.binary(max_size=100))
def test_anything_else_is_refused_or_waited_for(wire: bytes) -> None:
    reader = frames.Reader()
    try:
        for found in reader.feed(wire):
            assert frames.SECRET <= found.kind <= frames.END
    except ValueError as error:
        assert str(error) == "not a frame of a build's session"  # noqa: PT017


def test_long_ones_are_refused_before_they_are_there() -> None:
    with pytest.raises(ValueError, match="not a frame"):
        frames.Reader().feed((frames.PAYLOAD_MAX + 1).to_bytes(4, "big") + bytes([frames.DATA, 0, 0, 0, 1]))


def test_bytes_of_any_length_are_cut_into_frames() -> None:
    data = bytes(range(256)) * 600
    found = frames.Reader().feed(b"".join(frames.data_frames(7, data)))
    assert b"".join(one.payload for one in found) == data
    assert {(one.kind, one.channel) for one in found} == {(frames.DATA, 7)}
    assert max(len(one.payload) for one in found) == frames.PAYLOAD_MAX


def test_messages_of_agents_are_known_by_their_length() -> None:
    message = b"\0\0\0\x03abc"
    assert [frames.agent_message(message[:length]) for length in range(8)] == [0] * 7 + [7]
    assert frames.agent_message(message + b"more") == 7
    for wrong in (b"\0\0\0\0\x05", b"\0\x04\0\x01\x05"):
        with pytest.raises(ValueError, match="not a message"):
            frames.agent_message(wrong)
