"""Answers of the embedded DNS server: what is asked of names on the container's networks is answered here, all else goes upstream.

The wire format is dnslib's, which is imported with the first user-defined network. As libnetwork's resolver answers: RFC 1035, section 4.
"""

import ipaddress
import random
import struct
from collections.abc import Sequence

import dnslib

from sampan.network.names import View

TTL = 600
"""Seconds; docker's."""
PLAIN_UDP = 512
"""What an answer by UDP may have without EDNS (RFC 1035, section 2.3.4), in bytes."""
_HEADER = struct.Struct("!HHHHHH")


class Malformed(ValueError):
    """Not a DNS query; reply is the FORMERR to send, or b"" where not even that can be told."""

    def __init__(self, reply: bytes) -> None:
        super().__init__("malformed DNS query")
        self.reply = reply


def question(packet: bytes) -> tuple[dnslib.DNSHeader, dnslib.DNSQuestion]:
    """Header and the one question of a query. Raises Malformed."""
    if len(packet) < _HEADER.size:
        raise Malformed(b"")
    buffer = dnslib.DNSBuffer(packet)
    try:
        header = dnslib.DNSHeader.parse(buffer)
        if header.qr:
            raise Malformed(b"")  # somebody's answer: to reply to it would be to play ping-pong
        if header.q != 1:
            raise ValueError("not one question")
        asked = dnslib.DNSQuestion.parse(buffer)
        if not _is_speakable(asked.qname.label):
            raise ValueError("no name")
        return header, asked
    except Malformed:
        raise
    except Exception as error:  # whatever a library finds wrong with a hostile packet
        identifier = _HEADER.unpack_from(packet)[0]
        reply = dnslib.DNSHeader(id=identifier, qr=1, ra=1, rcode=dnslib.RCODE.FORMERR)
        raise Malformed(dnslib.DNSRecord(reply).pack()) from error


def _is_speakable(labels: Sequence[bytes]) -> bool:
    """Whether a name can be said (RFC 1035, section 2.3.4): no empty part, none of more than 63 bytes, 255 with all lengths."""
    return all(0 < len(label) < 64 for label in labels) and sum(len(label) + 1 for label in labels) < 255


def _room(packet: bytes) -> int:
    """Bytes the client takes by UDP: what its OPT record says (RFC 6891, section 6.2.3), within reason."""
    try:
        for record in dnslib.DNSRecord.parse(packet).ar:
            if record.rtype == dnslib.QTYPE.OPT:
                return min(max(int(record.edns_len), PLAIN_UDP), 4096)
    except Exception:  # as above
        pass
    return PLAIN_UDP


def failure(packet: bytes, code: int = 2) -> bytes:
    """A reply without an answer, by default SERVFAIL. The packet was read by question() before."""
    header, asked = question(packet)
    return bytes(dnslib.DNSRecord(dnslib.DNSHeader(id=header.id, qr=1, rd=header.rd, ra=1, rcode=code), q=asked).pack())


def answer(packet: bytes, view: View, *, stream: bool) -> bytes | None:
    """The reply to a query about the container's networks; None: it is for the servers upstream. Raises Malformed.

    A name of ours without an address of the kind asked for has an empty answer: upstream must not be asked for it. Several addresses
    come in random order. stream: by TCP, without a limit of size.
    """
    header, asked = question(packet)
    name = str(asked.qname)
    records: list[dnslib.RR] = []
    if asked.qclass != dnslib.CLASS.IN:
        return None
    if asked.qtype in (dnslib.QTYPE.A, dnslib.QTYPE.AAAA):
        found = view.resolve(name)
        if found is None:
            return None
        version = 4 if asked.qtype == dnslib.QTYPE.A else 6
        addresses = [str(address) for address in found if address.version == version]
        random.shuffle(addresses)
        kind = dnslib.A if version == 4 else dnslib.AAAA
        records = [dnslib.RR(asked.qname, asked.qtype, ttl=TTL, rdata=kind(address)) for address in addresses]
    elif asked.qtype == dnslib.QTYPE.PTR:
        address = _reversed(name)
        known = view.reverse(address) if address is not None else None
        if known is None:
            return None
        labels = tuple(known.encode(errors="replace").split(b"."))
        if _is_speakable(labels):  # others have none: what is called a..b, or more than DNS has room for
            records = [dnslib.RR(asked.qname, asked.qtype, ttl=TTL, rdata=dnslib.PTR(dnslib.DNSLabel(labels)))]
    elif view.resolve(name) is None:
        return None
    reply = dnslib.DNSRecord(dnslib.DNSHeader(id=header.id, qr=1, rd=header.rd, ra=1), q=asked)
    reply.add_answer(*records)
    packed = bytes(reply.pack())
    if not stream and len(packed) > PLAIN_UDP and len(packed) > _room(packet):
        packed = bytes(reply.truncate().pack())
    return packed


class Answers:
    """answer() with a memory: programs ask for the same few names again and again, and to take a query apart costs most of it."""

    MOST = 256

    def __init__(self) -> None:
        self._known: dict[tuple[bool, bytes], bytes] = {}
        self._of: tuple[View | None, int] = (None, 0)

    def to(self, packet: bytes, view: View, *, stream: bool) -> bytes | None:
        """As answer()."""
        now = (view, view.version)
        if self._of[0] is not view or self._of[1] != now[1] or len(self._known) >= self.MOST:
            self._known.clear()
            self._of = now
        key = (stream, packet[2:])  # all but the query's number
        known = self._known.get(key)
        if known is not None:
            return packet[:2] + known
        reply = answer(packet, view, stream=stream)
        if reply is not None and _HEADER.unpack_from(reply)[3] < 2:  # several addresses come in another order each time
            self._known[key] = reply[2:]
        return reply


def _reversed(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address in a name below in-addr.arpa or ip6.arpa (RFC 1035, section 3.5; RFC 3596, section 2.5)."""
    labels = name.lower().rstrip(".").split(".")
    try:
        if labels[-2:] == ["in-addr", "arpa"] and len(labels) == 6:
            return ipaddress.IPv4Address(".".join(reversed(labels[:4])))
        if labels[-2:] == ["ip6", "arpa"] and len(labels) == 34:
            digits = "".join(reversed(labels[:32]))
            return ipaddress.IPv6Address(int(digits, 16)) if len(digits) == 32 else None
    except ValueError:
        pass
    return None


def answers(query: bytes, reply: bytes) -> bool:
    """Whether a packet from upstream is the reply to a query: the same number and the same question."""
    if len(reply) < _HEADER.size or query[:2] != reply[:2] or not reply[2] & 0x80:
        return False
    try:
        asked = question(query)[1]
        buffer = dnslib.DNSBuffer(reply)
        if dnslib.DNSHeader.parse(buffer).q == 0:
            return True  # a FORMERR or REFUSED may leave it out
        replied = dnslib.DNSQuestion.parse(buffer)
    except Exception:
        return False
    return bool(replied.qname == asked.qname and replied.qtype == asked.qtype and replied.qclass == asked.qclass)


def refuses(reply: bytes) -> bool:
    """Whether a server says SERVFAIL or REFUSED, so that the next one is to be asked."""
    return reply[3] & 0x0F in (2, 5)
