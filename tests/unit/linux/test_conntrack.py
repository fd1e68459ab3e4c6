"""Flows of UDP in what the kernel says of its connections."""

import socket
from collections.abc import Iterator

import pytest

from sampan.linux import conntrack
from sampan.linux.netlink import attribute

NESTED = 0x8000


def flow(asked: tuple[str, int], answers: tuple[str, int], protocol: int = socket.IPPROTO_UDP) -> bytes:
    """One, as in ctnetlink's answer: the client is 192.0.2.9:4000."""

    def addresses(source: str, destination: str, source_port: int, port: int) -> bytes:
        ip = attribute(1, socket.inet_aton(source)) + attribute(2, socket.inet_aton(destination))
        there = attribute(1, bytes([protocol])) + attribute(2, source_port.to_bytes(2)) + attribute(3, port.to_bytes(2))
        return attribute(1 | NESTED, ip) + attribute(2 | NESTED, there)

    original = addresses("192.0.2.9", asked[0], 4000, asked[1])
    reply = addresses(answers[0], "192.0.2.9", answers[1], 4000)
    return attribute(1 | NESTED, original) + attribute(2 | NESTED, reply) + attribute(12, b"id__")


def test_only_flows_to_the_ports_asked_for_are_taken_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """One container can have made very many others."""
    others = [flow(("192.0.2.1", port), ("10.0.0.2", 53)) for port in range(10000, 12000)]
    wanted = [flow(("192.0.2.1", 53), ("10.0.0.2", 5353)), flow(("192.0.2.1", 53), ("10.0.0.3", 53))]
    apart = 0
    real = conntrack.attributes

    def counted(data: bytes) -> dict[int, bytes]:
        nonlocal apart
        apart += 1
        return real(data)

    def answers(_asked: socket.socket, sequence: int) -> Iterator[bytes]:
        yield from [*others, *wanted, flow(("192.0.2.1", 53), ("10.0.0.2", 53), socket.IPPROTO_TCP)] if sequence == 1 else []

    monkeypatch.setattr(conntrack, "_answers", answers)
    monkeypatch.setattr(conntrack, "_send", lambda *_args: None)
    monkeypatch.setattr(conntrack, "attributes", counted)
    seen: list[conntrack.Flow] = []

    def matches(found: conntrack.Flow) -> bool:
        seen.append(found)
        return found.answers == "10.0.0.3"

    assert conntrack.forget_udp(socket.AF_INET, {53}, matches) == 1
    assert [(found.asked, found.asked_port, found.answers, found.answers_port) for found in seen] == [
        ("192.0.2.1", 53, "10.0.0.2", 5353), ("192.0.2.1", 53, "10.0.0.3", 53)
    ]  # fmt: skip
    assert apart < 50
