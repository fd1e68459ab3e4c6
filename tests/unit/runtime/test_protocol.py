"""The wire: what is too long for it costs nobody the connection."""

import socket
from collections.abc import Iterator

import pytest

from sampan.runtime import protocol
from sampan.runtime.protocol import MAX_PAYLOAD, Channel

Pair = tuple[Channel, Channel]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ends = tuple(Channel(sock) for sock in socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
    yield ends[0], ends[1]
    for end in ends:
        end.close()


@pytest.mark.parametrize("text", ["\u00e9" * 3_600_000, "lone \udcff", "\0\n\u2028"], ids=["7 MB", "no UTF-8", "control"])
def test_any_text_arrives_as_it_was(pair: Pair, text: str) -> None:
    """Escaped, 7 MB of two-byte characters would be 21 MB."""
    pair[0].send({"op": "x", "text": text, "seq": 1})
    assert pair[1].recv() == ({"op": "x", "text": text, "seq": 1}, [])


def test_too_long_a_message_is_refused_by_the_sender(pair: Pair) -> None:
    with pytest.raises(ValueError, match=f"^{MAX_PAYLOAD + 1} bytes in one message, of at most {MAX_PAYLOAD}$"):
        pair[0].send({"op": "x" * (MAX_PAYLOAD + 1 - len('{"op":""}'))})
    pair[0].send({"op": "next"})
    assert pair[1].recv() == ({"op": "next"}, [])
    assert pair[1].recv() is None


@pytest.mark.parametrize("names", [{}, {"names": []}, {"names": ["pidfd", "layer0"]}])
def test_one_that_comes_all_the_same_is_known_by_its_number(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, names: dict[str, list[str]]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(protocol, "MAX_PAYLOAD", 2 * MAX_PAYLOAD)
        pair[0].send({"op": "x", "text": '"seq":1}' + "y" * MAX_PAYLOAD, "seq": 77, **names})
        pair[0].send({"event": "x", "text": "y" * MAX_PAYLOAD})
    assert pair[1].recv() == ({"op": "of over 16 MiB", "seq": 77}, [])
    assert pair[1].recv() == ({"op": "of over 16 MiB", "seq": None}, [])
