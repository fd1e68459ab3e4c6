"""`top`: which rows of ps are a container's, and options that would hide it."""

import asyncio
import os
import time

import pytest

from sampan.engine.processes import parse_ps, top
from sampan.errors import SystemFailure
from sampan.runtime import cgroups
from sampan.runtime.cgroups import Layout


def test_rows_of_its_processes_with_spaces_in_the_last_column() -> None:
    text = "UID PID CMD\nroot 7 sh -c  x y\nroot 8 other\nroot 9\n\n"
    found = parse_ps(text, {7, 9})
    assert (found.titles, found.processes) == (["UID", "PID", "CMD"], [["root", "7", "sh -c x y"], ["root", "9", ""]])


def test_threads_go_with_their_process() -> None:
    text = "PID COMMAND\n7 ours\n- t1\n- t2\n8 other\n- t3\n9 ours\n- t4\n"
    assert [row[1] for row in parse_ps(text, {7, 9}).processes] == ["ours", "t1", "t2", "ours", "t4"]


@pytest.mark.parametrize("text", ["", "USER CMD\nroot sh\n"])
def test_without_pids_there_is_no_answer(text: str) -> None:
    with pytest.raises(SystemFailure, match=r"^Couldn't find PID field in ps output$"):
        parse_ps(text, {7})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("-o pid=PID,user=PID", 'specifying "pid=PID,user=PID" is not allowed'),
        ("-o user=PID", 'specifying "user=PID" is not allowed'),
        ("-o \0", "ps: invalid argument"),
        ("--bogus", "ps: error: unknown gnu long option"),
        ("-o cmd", "Couldn't find PID field in ps output"),
    ],
)
def test_options_that_are_refused(options: str, words: str) -> None:
    with pytest.raises(SystemFailure) as caught:
        asyncio.run(top(Layout(2, (), "/nowhere"), "none", options))
    assert caught.value.message == words


def test_options_of_many_spaces_are_soon_looked_through() -> None:
    started = time.process_time()
    with pytest.raises(SystemFailure, match="not allowed"):
        asyncio.run(top(Layout(2, (), "/nowhere"), "none", " " * 20_000 + "-o user=PID"))
    assert time.process_time() - started < 2


def test_of_very_many_processes_ps_is_asked_without_their_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "processes", lambda *_: [os.getpid(), *range(1_000_000, 1_040_000)])
    found = asyncio.run(top(Layout(2, (), "/nowhere"), "none", "-eo pid"))
    assert [str(os.getpid())] in found.processes
