"""system dial-stdio: both ways at once, half closed, and gone with whoever reads its output."""

import os
import socket
import threading

from sampan.cli.commands.system_dial_stdio import relay


def test_it_ends_when_nobody_reads_its_output() -> None:
    """A stream on which nothing comes would hold it, and the daemon's connection, for ever."""
    ours, daemon = socket.socketpair()
    source, target = os.pipe(), os.pipe()
    thread = threading.Thread(target=relay, args=(ours, source[0], target[1]), daemon=True)
    thread.start()
    os.close(target[0])
    thread.join(10)
    assert not thread.is_alive()
    for fd in (*source, target[1]):
        os.close(fd)
    ours.close()
    daemon.close()


def test_much_goes_both_ways_and_ends_go_separately() -> None:
    ours, daemon = socket.socketpair()
    source, target = os.pipe(), os.pipe()
    sent = os.urandom(1 << 20)
    thread = threading.Thread(target=relay, args=(ours, source[0], target[1]), daemon=True)

    def echo() -> None:
        with daemon:
            whole = b"".join(iter(lambda: daemon.recv(65536), b""))
            daemon.sendall(whole)

    def feed() -> None:
        with os.fdopen(source[1], "wb") as file:
            file.write(sent)

    others = [threading.Thread(target=one, daemon=True) for one in (echo, feed)]
    for one in (thread, *others):
        one.start()
    received = b""
    while len(received) < len(sent):
        received += os.read(target[0], 65536)
    thread.join(10)
    assert (received == sent, thread.is_alive()) == (True, False)
    for fd in (source[0], *target):
        os.close(fd)
    ours.close()


class Full(socket.socket):
    """One whose end has to be sent, too, as TLS's, and for which there is no room at first."""

    room = False

    def shutdown(self, how: int) -> None:
        if not self.room:
            self.room = True
            raise BlockingIOError
        super().shutdown(how)


def test_an_end_that_finds_no_room_is_sent_once_there_is_some() -> None:
    ours, daemon = socket.socketpair()
    full = Full(fileno=ours.detach())
    source, target = os.pipe(), os.pipe()
    thread = threading.Thread(target=relay, args=(full, source[0], target[1]), daemon=True)
    thread.start()
    os.close(source[1])
    daemon.settimeout(10)
    assert daemon.recv(1) == b""
    daemon.close()
    thread.join(10)
    assert not thread.is_alive()
    for fd in (source[0], *target):
        os.close(fd)
    full.close()
