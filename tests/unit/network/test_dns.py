"""The embedded DNS server: its answers, and the server itself between real sockets."""

import asyncio
import contextlib
import ipaddress
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import dnslib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.network import dns, dnsserver
from sampan.network.names import NetworkNames, View

A = ipaddress.IPv4Address
WEB, DB, OTHER, SIX = A("172.18.0.2"), A("172.18.0.3"), A("172.19.0.2"), ipaddress.IPv6Address("fd00::2")


@pytest.fixture
def view() -> View:
    """front: web (172.18.0.2 and fd00::2) and db, both `shared`; back: db's namesake."""
    front, back = NetworkNames("front"), NetworkNames("back")
    front.add("web-id", ["web", "shared", "0123456789ab"], [WEB, SIX])
    front.add("db-id", ["db", "Shared"], [DB])
    back.add("other-id", ["db"], [OTHER])
    return View([(front, {"Database": "db"}), (back, {})])


def ask(view: View, name: str, kind: str = "A", *, stream: bool = False, edns: int = 0) -> dnslib.DNSRecord | None:
    query = dnslib.DNSRecord.question(name, kind)
    if edns:
        query.add_ar(dnslib.EDNS0(udp_len=edns))
    packet = dns.answer(query.pack(), view, stream=stream)
    if packet is None:
        return None
    reply = dnslib.DNSRecord.parse(packet)
    assert reply.header.id == query.header.id
    return reply


def data(reply: dnslib.DNSRecord | None) -> list[str]:
    assert reply is not None
    return sorted(str(record.rdata) for record in reply.rr)


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("web", "A", ["172.18.0.2"]),
        ("WEB.", "A", ["172.18.0.2"]),
        ("web", "AAAA", ["fd00::2"]),
        ("db", "AAAA", []),
        ("web.front", "A", ["172.18.0.2"]),
        ("0123456789ab", "A", ["172.18.0.2"]),
        ("shared", "A", ["172.18.0.2", "172.18.0.3"]),
        ("db", "A", ["172.18.0.3"]),
        ("db.back", "A", ["172.19.0.2"]),
        ("database", "A", ["172.18.0.3"]),
        ("database.front", "A", ["172.18.0.3"]),
        ("web", "MX", []),
        ("2.0.18.172.in-addr.arpa", "PTR", ["web.front."]),
        ("2.0.19.172.in-addr.arpa", "PTR", ["db.back."]),
        (SIX.reverse_pointer, "PTR", ["web.front."]),
    ],
)
def test_what_is_ours(view: View, name: str, kind: str, expected: list[str]) -> None:
    reply = ask(view, name, kind)
    assert data(reply) == expected
    assert reply is not None
    assert (reply.header.ra, reply.header.rcode) == (1, 0)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("example.com", "A"), ("web.back", "A"), ("example.com", "MX"), ("database.back", "A"), ("9.0.18.172.in-addr.arpa", "PTR"),
        ("in-addr.arpa", "PTR"), ("x.0.18.172.in-addr.arpa", "PTR"), ("300.0.18.172.in-addr.arpa", "PTR"), ("zz." * 32 + "ip6.arpa", "PTR"),
    ],
)  # fmt: skip
def test_what_is_for_others(view: View, name: str, kind: str) -> None:
    assert ask(view, name, kind) is None


@pytest.mark.parametrize("name", ["a..b", "a.", "n" * 64, ".".join(["n" * 60] * 5)])
def test_a_name_that_cannot_be_said_is_no_reverse_name(name: str) -> None:
    """Containers can be called so; to ask for it must not be an error of ours."""
    names = NetworkNames("front")
    names.add("1", [name], [WEB])
    view = View([(names, {})])
    assert data(ask(view, "2.0.18.172.in-addr.arpa", "PTR")) == []


def test_a_name_of_the_network_is_said_as_it_is() -> None:
    names = NetworkNames("größe")
    names.add("1", ["web_1"], [WEB])
    [record] = dnslib.DNSRecord.parse(
        dns.answer(dnslib.DNSRecord.question("2.0.18.172.in-addr.arpa", "PTR").pack(), View([(names, {})]), stream=False)
    ).rr
    assert record.rdata.label.label == (b"web_1", "größe".encode())


def test_a_query_for_more_than_a_name_is_malformed(view: View) -> None:
    packet = struct.pack("!HHHHHH", 7, 0x100, 1, 0, 0, 0) + (b"\x3f" + b"n" * 63) * 5 + b"\0\0\1\0\1"
    with pytest.raises(dns.Malformed) as raised:
        dns.answer(packet, view, stream=False)
    assert dnslib.DNSRecord.parse(raised.value.reply).header.rcode == dnslib.RCODE.FORMERR


def test_dots_in_names_of_containers_and_networks() -> None:
    """a.b.c is a container of any network, or a.b on c, or a on b.c, in this order."""
    outer, inner = NetworkNames("B.c"), NetworkNames("c")
    outer.add("1", ["a"], [WEB])
    view = View([(outer, {"l.m": "a"}), (inner, {})])
    assert data(ask(view, "a.b.C")) == [str(WEB)]
    assert data(ask(view, "l.m.b.c")) == [str(WEB)]
    inner.add("2", ["a.b"], [DB])
    assert data(ask(view, "a.b.c")) == data(ask(view, "a.b")) == [str(DB)]
    inner.add("3", ["a.b.c"], [OTHER])
    assert data(ask(view, "a.b.c.")) == data(ask(view, "a.b.c.c")) == [str(OTHER)]
    assert ask(view, "b.c") is None


def test_a_name_goes_with_its_container() -> None:
    names = NetworkNames("n")
    names.add("1", ["one", "both"], [WEB])
    names.add("2", ["two", "both"], [DB])
    names.add("1", ["uno", "both"], [OTHER])
    view = View([(names, {})])
    assert data(ask(view, "both")) == ["172.18.0.3", "172.19.0.2"]
    assert ask(view, "one") is None
    assert ask(view, "2.0.18.172.in-addr.arpa", "PTR") is None
    names.remove("1")
    names.remove("1")
    assert data(ask(view, "both")) == ["172.18.0.3"]
    assert ask(view, "uno") is None


def test_many_addresses_come_in_turns_and_are_cut_to_what_the_client_takes() -> None:
    names = NetworkNames("n")
    for number in range(100):
        names.add(str(number), ["shared"], [A("10.0.0.1") + number])
    view = View([(names, {})])
    first = {str(reply.rr[0].rdata) for _ in range(40) if (reply := ask(view, "shared", stream=True)) is not None}
    assert len(first) > 5
    cut = ask(view, "shared")
    assert cut is not None
    assert (cut.header.tc, len(cut.rr)) == (1, 0)
    assert len(data(ask(view, "shared", edns=4096))) == 100
    assert len(data(ask(view, "shared", stream=True))) == 100


@pytest.mark.parametrize("packet", [b"", b"\x01" * 11, dnslib.DNSRecord.question("web").reply().pack()])
def test_no_query_has_no_reply(view: View, packet: bytes) -> None:
    with pytest.raises(dns.Malformed) as raised:
        dns.answer(packet, view, stream=False)
    assert raised.value.reply == b""


@given(st.binary(min_size=12, max_size=300))
def test_any_packet_is_answered_or_refused(packet: bytes) -> None:
    try:
        dns.answer(packet, View([]), stream=False)
    except dns.Malformed as error:
        if error.reply:
            reply = dnslib.DNSRecord.parse(error.reply)
            assert (reply.header.id, reply.header.rcode) == (int.from_bytes(packet[:2], "big"), dnslib.RCODE.FORMERR)


def test_a_name_that_points_to_itself_ends(view: View) -> None:
    loop = struct.pack("!HHHHHH", 7, 0x0100, 1, 0, 0, 0) + b"\xc0\x0c" + struct.pack("!HH", 1, 1)
    with pytest.raises(dns.Malformed) as raised:
        dns.answer(loop, view, stream=False)
    assert raised.value.reply


# the server


@contextmanager
def upstream(reply_of: Callable[[bytes], list[bytes]]) -> Iterator[int]:
    """A name server on 127.0.0.1 by UDP and TCP that sends what reply_of makes of a query; its port."""
    tcp = socket.create_server(("127.0.0.1", 0))
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(tcp.getsockname())

    def by_udp() -> None:
        while True:
            packet, client = udp.recvfrom(4096)
            if not packet:
                return
            for reply in reply_of(packet):
                udp.sendto(reply, client)

    def by_tcp() -> None:
        while True:
            connection, _ = tcp.accept()
            with connection:
                length = connection.recv(2)
                if not length:
                    return
                for reply in reply_of(connection.recv(int.from_bytes(length, "big"))):
                    connection.sendall(len(reply).to_bytes(2, "big") + reply)

    threads = [threading.Thread(target=work) for work in (by_udp, by_tcp)]
    for thread in threads:
        thread.start()
    try:
        yield tcp.getsockname()[1]
    finally:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
            end.sendto(b"", udp.getsockname())
        socket.create_connection(tcp.getsockname()).close()
        for thread in threads:
            thread.join()
        udp.close()
        tcp.close()


def resolved(packet: bytes) -> list[bytes]:
    query = dnslib.DNSRecord.parse(packet)
    reply = query.reply()
    reply.add_answer(dnslib.RR(query.q.qname, ttl=5, rdata=dnslib.A("192.0.2.1")))
    forged = dnslib.DNSRecord(dnslib.DNSHeader(id=query.header.id, qr=1), q=dnslib.DNSQuestion("forged.example"))
    return (
        [forged.pack(), bytes([packet[0] ^ 1]) + reply.pack()[1:], reply.pack()] if query.q.qname == "spoofed.example" else [reply.pack()]
    )


def talk(view: View, servers: list[str], port: int, client: Callable[[tuple[str, int]], bytes | list[bytes]]) -> bytes | list[bytes]:
    """What a client, in a thread, gets from a server of ours."""

    async def work() -> bytes | list[bytes]:
        tcp = socket.create_server(("127.0.0.1", 0))
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind(tcp.getsockname())
        for endpoint in (tcp, udp):
            endpoint.setblocking(False)
        server = dnsserver.DnsServer(udp, tcp, lambda: view, lambda: servers, port)
        server.start()
        try:
            return await asyncio.to_thread(client, tcp.getsockname())
        finally:
            await server.stop()

    return asyncio.run(work())


def by_udp(packet: bytes) -> Callable[[tuple[str, int]], bytes]:
    def client(address: tuple[str, int]) -> bytes:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
            asker.settimeout(10)
            asker.sendto(packet, address)
            return asker.recv(65536)

    return client


def by_tcp(*packets: bytes) -> Callable[[tuple[str, int]], list[bytes]]:
    def client(address: tuple[str, int]) -> list[bytes]:
        with socket.create_connection(address, timeout=10) as asker, asker.makefile("rb") as incoming:
            replies = []
            for packet in packets:
                asker.sendall(len(packet).to_bytes(2, "big") + packet)
                replies.append(incoming.read(int.from_bytes(incoming.read(2), "big")))
            return replies

    return client


def rdata(reply: bytes) -> list[str]:
    return [str(record.rdata) for record in dnslib.DNSRecord.parse(reply).rr]


def query(name: str) -> bytes:
    return bytes(dnslib.DNSRecord.question(name).pack())


@pytest.mark.parametrize(("name", "expected"), [("web", "172.18.0.2"), ("example.com", "192.0.2.1"), ("spoofed.example", "192.0.2.1")])
def test_udp(view: View, name: str, expected: str) -> None:
    with upstream(resolved) as port:
        reply = talk(view, ["127.0.0.1"], port, by_udp(query(name)))
    assert isinstance(reply, bytes)
    assert rdata(reply) == [expected]


def test_several_queries_by_one_connection(view: View) -> None:
    with upstream(resolved) as port:
        replies = talk(view, ["127.0.0.1"], port, by_tcp(query("web"), query("example.com"), query("db")))
    assert [rdata(reply) for reply in replies if isinstance(reply, bytes)] == [["172.18.0.2"], ["192.0.2.1"], ["172.18.0.3"]]


def test_the_next_server_is_asked(view: View) -> None:
    """127.0.0.2 refuses connections; 127.0.0.1 knows."""
    with upstream(resolved) as port:
        reply = talk(view, ["127.0.0.2", "127.0.0.1"], port, by_udp(query("example.com")))
    assert isinstance(reply, bytes)
    assert rdata(reply) == ["192.0.2.1"]


@pytest.mark.parametrize("servers", [[], ["127.0.0.2"], ["127.0.0.1"]])
def test_nobody_knows(view: View, servers: list[str]) -> None:
    with upstream(lambda packet: [dns.failure(packet, dnslib.RCODE.REFUSED)]) as port:
        reply = talk(view, servers, port, by_udp(query("example.com")))
    assert isinstance(reply, bytes)
    assert dnslib.DNSRecord.parse(reply).header.rcode in (dnslib.RCODE.SERVFAIL, dnslib.RCODE.REFUSED)


def test_queries_of_one_container_that_wait_are_bounded(view: View, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those beyond are dropped; the next ones are answered when there is room again, and what is ours is answered all the time."""
    monkeypatch.setattr(dnsserver, "IN_FLIGHT", 20)
    monkeypatch.setattr(dnsserver, "PATIENCE", 1.5)
    arrived: list[bytes] = []

    def silent(packet: bytes) -> list[bytes]:
        arrived.append(packet)
        return resolved(packet) if b"answered" in packet else []

    def client(address: tuple[str, int]) -> bytes:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
            for number in range(100):
                asker.sendto(query(f"n{number}.example"), address)
            assert rdata(by_udp(query("web"))(address)) == ["172.18.0.2"]
            assert len(arrived) <= 20
            asker.settimeout(10)
            assert dnslib.DNSRecord.parse(asker.recv(65536)).header.rcode == dnslib.RCODE.SERVFAIL
        return by_udp(query("answered.example"))(address)

    with upstream(silent) as port:
        reply = talk(view, ["127.0.0.1"], port, client)
    assert isinstance(reply, bytes)
    assert rdata(reply) == ["192.0.2.1"]


def test_connections_of_one_container_are_bounded(view: View) -> None:
    def client(address: tuple[str, int]) -> bytes:
        open_ones = [socket.create_connection(address, timeout=10) for _ in range(dnsserver.CONNECTIONS)]
        try:
            with contextlib.suppress(ConnectionResetError):
                return by_tcp(query("web"))(address)[0]
            return b""
        finally:
            for one in open_ones:
                one.close()

    assert talk(view, [], 53, client) == b""


def test_what_is_asked_again_is_remembered_until_names_change() -> None:
    front = NetworkNames("front")
    front.add("web-id", ["web"], [WEB])
    view, answers = View([(front, {})]), dns.Answers()

    def asked(name: str, number: int) -> list[str] | None:
        query = dnslib.DNSRecord.question(name)
        query.header.id = number
        reply = answers.to(bytes(query.pack()), view, stream=False)
        if reply is None:
            return None
        parsed = dnslib.DNSRecord.parse(reply)
        assert parsed.header.id == number
        return data(parsed)

    assert [asked("web", 1), asked("web", 2), asked("db", 3)] == [[str(WEB)], [str(WEB)], None]
    front.add("db-id", ["db", "web"], [DB])
    assert sorted(asked("web", 4) or []) == [str(WEB), str(DB)]
    assert asked("db", 5) == [str(DB)]
    front.remove("db-id")
    assert [asked("web", 6), asked("db", 7)] == [[str(WEB)], None]
    for number in range(dns.Answers.MOST + 9):
        front.add(f"{number}", [f"n{number}"], [WEB])
    for number in range(dns.Answers.MOST + 9):
        assert asked(f"n{number}", number) == [str(WEB)]
    assert len(answers._known) <= dns.Answers.MOST
