"""Frames that tell neighbours of an address."""

import socket
import struct

from sampan.network.announcing import advertisement, arp

MAC = bytes.fromhex("020000000007")


def test_arp() -> None:
    expected = "ffffffffffff 020000000007 0806 0001 0800 06 04 0001 020000000007 c0000207 000000000000 c0000207"
    assert arp(MAC, "192.0.2.7") == bytes.fromhex(expected)


def test_advertisement() -> None:
    frame = advertisement(MAC, "2001:db8::7")
    assert frame[:14] == bytes.fromhex("333300000001 020000000007 86dd")
    header, body = frame[14:54], frame[54:]
    assert (header[0] >> 4, header[4:8], socket.inet_ntop(socket.AF_INET6, header[8:24])) == (6, b"\x00\x20\x3a\xff", "2001:db8::7")
    assert (body[0], body[4], body[8:24], body[24:]) == (136, 0x20, header[8:24], b"\x02\x01" + MAC)
    pseudo = header[8:40] + struct.pack("!II", len(body), 58)
    total = sum(struct.unpack(f"!{(len(pseudo) + len(body)) // 2}H", pseudo + body))
    assert (total & 0xFFFF) + (total >> 16) == 0xFFFF
