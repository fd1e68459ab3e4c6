"""The drivers syslog and journald: options in docker's words, lines, formats."""

import asyncio
import fcntl
import os
import re
import socket
import threading
import time
from pathlib import Path

import pytest

from sampan.errors import InvalidArgument
from sampan.logs import options, syslog
from sampan.logs.journald import JournaldSink, encoded, field_name
from sampan.logs.outgoing import PART, Line, LineSplitter
from sampan.logs.syslog import Formatter, parse_address

TIME = 1_700_000_000_123_456_789


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"syslog-address": "http://x"}, "unsupported scheme: 'http'"),
        ({"syslog-address": "unix:///no/such"}, "stat /no/such: no such file or directory"),
        ({"syslog-facility": "24"}, "invalid syslog facility"),
        ({"syslog-facility": "x"}, "invalid syslog facility"),
        ({"syslog-format": "x"}, "Invalid syslog format"),
        ({"max-size": "1m"}, "unknown log opt 'max-size' for log driver syslog"),
        ({"cache-disabled": "x"}, "invalid value for option cache-disabled: x"),
        ({"mode": "x"}, "logger: logging mode not supported: x"),
    ],
)
def test_wrong_options(config: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        options.validate("syslog", config)
    assert raised.value.message.replace("syslog log driver", "log driver syslog") == message


def test_right_options() -> None:
    options.validate("syslog", {
        "syslog-address": "tcp+tls://[::1]:6514", "syslog-facility": "local7", "syslog-format": "rfc5424micro", "tag": "{{.Name}}",
        "syslog-tls-skip-verify": "true", "mode": "non-blocking", "max-buffer-size": "4m", "cache-max-size": "1m", "labels": "a",
    })  # fmt: skip
    assert parse_address("tcp+tls://[::1]:6514") == ("tcp+tls", "::1", 6514)
    assert parse_address("udp://h") == ("udp", "h", 514)


@pytest.mark.parametrize(
    ("form", "address", "pattern"),
    [
        ("", "", rb"<30>\w{3} [ \d]\d \d\d:\d\d:\d\d box\[\d+\]: hi\n"),
        ("rfc3164", "", rb"<30>\w{3} [ \d]\d \d\d:\d\d:\d\d HOST box\[\d+\]: hi\n"),
        ("rfc5424", "", rb"<30>1 20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d) HOST box \d+ box - hi\n"),
        ("rfc5424micro", "", rb"<30>1 20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.123456(Z|[+-]\d\d:\d\d) HOST box \d+ box - hi\n"),
        ("rfc5424", "tcp+tls://x", rb"\d+ <30>1 20.* box - hi\n"),
    ],
)
def test_formats(form: str, address: str, pattern: bytes) -> None:
    formatter = Formatter({"syslog-format": form, "syslog-address": address}, "box")
    message = formatter.message(Line(TIME, False, b"hi", False))
    assert re.fullmatch(pattern.replace(b"HOST", re.escape(os.uname().nodename).encode()), message), message
    if address:
        length, _, rest = message.partition(b" ")
        assert int(length) == len(rest)


def test_facility_and_severity() -> None:
    assert Formatter({"syslog-facility": "local7"}, "x").message(Line(TIME, True, b"", False)).startswith(b"<187>")


def test_lines() -> None:
    lines = LineSplitter()
    assert list(lines.feed([(1, 10, b"a\nb"), (2, 11, b"err"), (1, 12, b"c\n\nd")])) == [
        Line(10, False, b"a", False), Line(10, False, b"bc", False), Line(12, False, b"", False),
    ]  # fmt: skip
    assert lines.begun == {1: (12, b"d"), 2: (11, b"err")}
    again = LineSplitter(lines.begun)
    assert list(again.feed([(2, 20, b"or\n")])) == [Line(11, True, b"error", False)]
    assert again.finish() == [Line(12, False, b"d", False)]
    assert again.finish() == []


def test_long_lines_go_in_parts() -> None:
    lines = LineSplitter()
    found = list(lines.feed([(1, 1, b"x" * (PART * 2 + 5))]))
    assert [(len(line.data), line.is_part) for line in found] == [(PART, True), (PART, True)]
    assert list(lines.feed([(1, 1, b"y\n")])) == [Line(1, False, b"xxxxxy", False)]
    whole = list(lines.feed([(1, 1, b"z" * (PART + 1) + b"\n")]))
    assert [(len(line.data), line.is_part) for line in whole] == [(PART, True), (1, False)]


def test_the_rest_of_a_line_is_bounded() -> None:
    lines = LineSplitter()
    for _ in range(5):
        list(lines.feed([(1, 1, b"x" * 70_000)]))
        assert len(lines.begun[1][1]) <= PART


def test_journal_entries(tmp_path: Path) -> None:
    assert field_name("com.example-x") == "COM_EXAMPLE_X"
    assert field_name("__é") == ""
    assert encoded({"A": b"b", "C": b"d\ne"}) == b"A=b\nC\n\x03\0\0\0\0\0\0\0d\ne\n"
    path = str(tmp_path / "journal")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(path)
        sink = JournaldSink({"CONTAINER_NAME": "box"}, path)
        asyncio.run(sink.send([Line(TIME, True, b"bad", True), Line(TIME, False, b"", False)]))
        first, second = journal.recv(65536).split(b"\n"), journal.recv(65536).split(b"\n")
        sink.close()
    assert {b"CONTAINER_NAME=box", b"MESSAGE=bad", b"PRIORITY=3", b"CONTAINER_PARTIAL_MESSAGE=true", b"CONTAINER_LOG_ORDINAL=1"} < set(
        first
    )
    assert {b"MESSAGE=", b"PRIORITY=6", b"CONTAINER_LOG_ORDINAL=2"} < set(second)
    assert b"SYSLOG_TIMESTAMP=2023-11-14T22:13:20.123456789Z" in first


@pytest.mark.parametrize("driver", ["gelf", "fluentd", "awslogs", "splunk", "gcplogs", "etwlogs"])
def test_drivers_that_are_not_there_are_named(driver: str) -> None:
    with pytest.raises(Exception, match=f"log driver '{driver}' is not implemented"):
        options.validate(driver, {})


@pytest.mark.parametrize(("disabled", "driver"), [("true", "none"), ("false", "local"), ("", "local")])
def test_the_local_copy(disabled: str, driver: str) -> None:
    settings = options.log_settings("syslog", {"cache-disabled": disabled, "cache-max-size": "2m", "tag": "x"}, "id", "/d")
    assert settings["driver"] == driver
    assert settings["max_size"] == (2 << 20 if driver == "local" else 0)


@pytest.mark.parametrize("address", ["udp://silent.example", "tcp://silent.example"])
def test_names_that_nobody_answers_for_keep_no_thread_of_the_engine(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    answered = threading.Event()
    monkeypatch.setattr(syslog, "CONNECT_SECONDS", 0.02)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_options: [] if answered.wait() else None)

    async def main() -> None:
        for _ in range(40):
            with pytest.raises(TimeoutError):
                await syslog.SyslogSink({"syslog-address": address}, "t").send([Line(TIME, False, b"x", False)])
        async with asyncio.timeout(5):
            await asyncio.to_thread(int)

    try:
        with asyncio.Runner() as runner:
            task = runner.get_loop().create_task(main())
            task.add_done_callback(lambda _: answered.set())
            runner.get_loop().run_until_complete(task)
    finally:
        answered.set()


def test_a_server_that_takes_nothing_keeps_no_descriptors(tmp_path: Path) -> None:
    path = str(tmp_path / "log")

    async def main() -> None:
        sink = syslog.SyslogSink({"syslog-address": f"unix://{path}"}, "t")
        for _ in range(5):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await sink.send([Line(TIME, False, bytes(PART), False)] * 64)
            sink.close()
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(os.listdir("/proc/self/fd")) <= before

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen(16)
        with asyncio.Runner() as runner:
            runner.get_loop()
            before = len(os.listdir("/proc/self/fd"))
            runner.run(main())


def test_a_ca_file_that_is_none_stops_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "ca.pem")
    config = {"syslog-address": "tcp+tls://127.0.0.1:1", "syslog-tls-ca-cert": str(tmp_path / "ca.pem")}
    release = threading.Timer(3, lambda: os.close(os.open(tmp_path / "ca.pem", os.O_RDWR | os.O_NONBLOCK)))
    release.start()
    started = time.monotonic()
    with pytest.raises(OSError, match="not a regular file"):
        asyncio.run(syslog.SyslogSink(config, "t").send([Line(TIME, False, b"x", False)]))
    release.cancel()
    assert time.monotonic() - started < 3


def test_what_no_datagram_can_hold_stops_nothing() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(5)
        sink = syslog.SyslogSink({"syslog-address": f"udp://127.0.0.1:{server.getsockname()[1]}"}, "t" * 60_000)
        asyncio.run(sink.send([Line(TIME, False, bytes(PART), False), Line(TIME, False, b"last", False)]))
        assert server.recv(65536).endswith(b"last\n")
        sink.close()


def test_journal_entries_that_no_datagram_can_hold_go_in_a_file(tmp_path: Path) -> None:
    path = str(tmp_path / "journal")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(path)
        journal.settimeout(5)
        sink = JournaldSink({"LARGE": "x" * 1_000_000}, path)
        asyncio.run(sink.send([Line(TIME, False, b"hi", False)]))
        sink.close()
        data, fds, _, _ = socket.recv_fds(journal, 1, 1)
        assert data == b""
        with open(fds[0], "rb") as file:
            assert fcntl.fcntl(file, fcntl.F_GET_SEALS) == 0xF
            file.seek(0)
            entry = file.read().split(b"\n")
    assert {b"MESSAGE=hi", b"LARGE=" + b"x" * 1_000_000} < set(entry)
