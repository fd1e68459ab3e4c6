"""What `sampan build --progress=tty` draws, message by message."""

import io
import json
from collections.abc import Mapping

import pytest

from sampan.cli import buildprogress
from sampan.cli.buildscreen import Screen, cut, harmless, width_of
from sampan.cli.http import CliError
from tests.support.screen import Display, screen

Message = Mapping[str, object]


def started(number: int, place: int, of: int, text: str, stage: str = "") -> Message:
    return {"step": {"id": number, "state": "started", "stage": stage, "place": place, "of": of, "text": text}}


def ended(number: int, state: str = "done") -> Message:
    return {"step": {"id": number, "state": state}}


def output(number: int, text: str) -> Message:
    return {"step": {"id": number, "output": text}}


BUILD: list[tuple[float, Message]] = [
    (0.0, {"plan": {"steps": 7}}),
    (0.0, started(1, 1, 3, "FROM busybox AS build", "build")),
    (0.0, started(4, 1, 4, "FROM busybox", "stage-1")),
    (0.1, {"step": {"id": 1}, "status": "Pulling fs layer", "id": "aaaa", "progressDetail": {}}),
    (0.1, {"step": {"id": 1}, "status": "Downloading", "id": "bbbb", "progressDetail": {"current": 1000, "total": 2000}}),
    (0.2, {"step": {"id": 1}, "status": "Downloading", "id": "aaaa", "progressDetail": {"current": 5, "total": 0}}),
    (1.0, ended(1)),
    (1.0, started(2, 2, 3, "RUN make \\\n   all", "build")),
    (1.0, ended(4)),
    (1.0, started(5, 2, 4, "ENV a=b", "stage-1")),
    (1.1, ended(5, "cached")),
    (1.1, started(6, 3, 4, "RUN sleep 10", "stage-1")),
    (1.2, output(2, "".join(f"line {number}\n" for number in range(10)))),
    (1.3, output(2, "\x1b[31mred\x1b[0m\x1b]0;title\x07\tand\n10%\r20%\r")),
    (1.4, output(6, "sleeping")),
    (1.5, {"step": {"id": 2}, "stream": " ---> [Warning] no swap\n"}),
    (1.5, {"step": {"id": 2}, "stream": " ---> Running in 0123456789ab\n"}),
]


def drawn_at(time: float, columns: int = 60, rows: int = 24, more: list[tuple[float, Message]] | None = None) -> list[str]:
    made = Screen(0.0, color=False)
    for when, message in [*BUILD, *(more or [])]:
        if when <= time:
            made.event(dict(message), when)
    return made.lines(time, columns, rows)


def test_a_base_is_pulled() -> None:
    assert drawn_at(0.3) == [
        "[+] Building 0.3s (0/7)",
        " => [build 1/3] FROM busybox AS build                  0.3s",
        " => => # bbbb: Downloading 1kB / 2kB",
        " => => # aaaa: Downloading 5B",
        " => [stage-1 1/4] FROM busybox                         0.3s",
    ]


def test_steps_run_side_by_side() -> None:
    assert drawn_at(12.34) == [
        "[+] Building 12.3s (3/7)",
        " => [build 1/3] FROM busybox AS build                  1.0s",
        " => [stage-1 1/4] FROM busybox                         1.0s",
        " => [build 2/3] RUN make \\ all                        11.3s",
        " => => # line 6",
        " => => # line 7",
        " => => # line 8",
        " => => # line 9",
        " => => # red    and",
        " => => # 20%",
        " => CACHED [stage-1 2/4] ENV a=b                       0.1s",
        " => [stage-1 3/4] RUN sleep 10                        11.2s",
        " => => # sleeping",
    ]


def test_it_is_never_higher_than_the_terminal() -> None:
    for rows in range(1, 20):
        assert len(drawn_at(12.34, rows=rows)) <= rows - 1
    assert drawn_at(12.34, rows=8) == [
        "[+] Building 12.3s (3/7)",
        " => [build 1/3] FROM busybox AS build                  1.0s",
        " => [stage-1 1/4] FROM busybox                         1.0s",
        " => [build 2/3] RUN make \\ all                        11.3s",
        " => CACHED [stage-1 2/4] ENV a=b                       0.1s",
        " => [stage-1 3/4] RUN sleep 10                        11.2s",
    ]
    assert drawn_at(12.34, rows=4) == [
        "[+] Building 12.3s (3/7)",
        " => [build 2/3] RUN make \\ all                        11.3s",
        " => [stage-1 3/4] RUN sleep 10                        11.2s",
    ]


@pytest.mark.parametrize("columns", [*range(1, 30), 44, 70])
def test_nor_wider(columns: int) -> None:
    wide = [(1.2, started(7, 4, 4, "RUN 漢字 漢字 漢字 漢字 漢字 漢字", "stage-1")), (1.2, output(7, "漢字" * 100))]
    assert all(width_of(line) < columns for line in drawn_at(2, columns, more=wide))


def test_a_narrow_terminal_has_the_steps_without_their_times() -> None:
    assert drawn_at(0.3, 17) == ["[+] Building 0.3", " => [build 1/3] ", " => => # bbbb: D", " => => # aaaa: D", " => [stage-1 1/4"]
    assert drawn_at(0.3, 19)[1:2] == [" => [build 1/ 0.3s"]


def test_many_steps_at_a_time() -> None:
    made = Screen(0.0, color=False)
    for number in range(40):
        made.event(dict(started(number, 2, 2, f"RUN {number}", f"s{number}")), 1.0)
        made.event(dict(output(number, "out\n")), 1.0)
    assert [line[:16].rstrip() for line in made.lines(1.0, 40, 10)] == [
        "[+] Building 1.0",
        *[f" => [s{number} 2/2] RUN"[:16] for number in range(32, 40)],
    ]
    for number in range(36):
        made.event(dict(ended(number)), 2.0)
    assert [line.split("  ")[0] for line in made.lines(2.0, 40, 14)] == [
        "[+] Building 2.0s (36/40)",
        *[f" => [s{number} 2/2] RUN {number}" for number in range(28, 40)],
    ]


def test_the_end() -> None:
    made = Screen(0.0, color=True)
    for when, message in [*BUILD, (2.0, ended(2, "failed"))]:
        made.event(dict(message), when)
    made.close(2.1)
    assert made.lines(3.0, 60) == [
        "\x1b[34m[+] Building 3.0s (3/7) ERROR\x1b[0m",
        "\x1b[34m => [build 1/3] FROM busybox AS build                  1.0s\x1b[0m",
        "\x1b[34m => [stage-1 1/4] FROM busybox                         1.0s\x1b[0m",
        "\x1b[31m => ERROR [build 2/3] RUN make \\ all                   1.0s\x1b[0m",
        "\x1b[34m => CACHED [stage-1 2/4] ENV a=b                       0.1s\x1b[0m",
        "\x1b[34m => CANCELED [stage-1 3/4] RUN sleep 10                1.0s\x1b[0m",
    ]
    ((label, lines),) = made.failed
    assert label == "[build 2/3] RUN make \\ all"
    assert lines[-3:] == ["line 9", "red    and", "20%"]
    assert list(made.notes) == ["[build 2/3] RUN make \\ all: [Warning] no swap\n"]


def test_endless_output_is_bounded() -> None:
    made = Screen(0.0, color=False)
    made.event(dict(started(1, 1, 1, "RUN yes")), 0)
    for number in range(3000):
        made.event(dict(output(1, f"{number}" + "y" * 10_000)), 0)
    made.event(dict(output(1, "z\n")), 0)
    assert made.lines(0, 20, 24)[-1] == " => => # …yyyyyyyyy"
    made.event(dict(output(1, "y\n" * 5000)), 0)
    assert made.lines(0, 20, 24)[2:] == [" => => # y"] * 6
    made.event(dict(ended(1, "failed")), 0)
    ((_, lines),) = made.failed
    assert len(lines) == 5001
    assert len(lines[0]) == 1 << 16
    assert lines[0].endswith("yz")


def test_of_a_failed_step_all_is_told_that_is_not_too_much() -> None:
    made = Screen(0.0, color=False)
    made.event(dict(started(1, 1, 1, "RUN yes")), 0)
    made.event(dict(output(1, "".join(f"{number:>99}\n" for number in range(10_000)))), 0)
    assert len(made.lines(0, 80, 24)) == 8
    made.event(dict(output(1, "".join(f"{number:>99}\n" for number in range(1000)))), 0)
    made.event(dict(ended(1, "failed")), 0)
    ((_, lines),) = made.failed
    assert lines[0] == "[515 lines before these are left out]"
    assert [lines[1].strip(), len(lines)] == ["515", 1 + 10_485]


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("\x1b[2J\x1b[1;1Hhome", "home"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1bcreset \x9b2J \u202egnol", "reset 2J gnol"),
        ("a\bb\x07", "ab"),
        ("\x1b", ""),
        ("a\ud800b", "a\ufffdb"),
        ("e\u0301 \u2028x", "e\u0301 x"),
    ],
)
def test_what_it_shows_does_nothing_to_the_terminal(text: str, seen: str) -> None:
    assert harmless(text) == seen


def test_what_is_no_message_of_ours_is_passed_over() -> None:
    made = Screen(0.0, color=False)
    for message in ({"step": {"id": 9, "state": "done"}}, {"step": {"id": "x"}}, {"step": 1}, {"step": {"id": 9, "output": 1}}, {}):
        made.event(message, 0)
    assert made.lines(0, 40, 24) == ["[+] Building 0.0s (0/0)"]
    assert cut("漢字", 3) == "漢"


def shown(out: io.StringIO) -> list[str]:
    """What a terminal of 80 columns shows of it, which begins lines anew by itself."""
    return screen(out.getvalue().replace("\n", "\r\n"), 80)


def painted(display: Display, steps: Screen, painter: buildprogress._Painter, out: io.StringIO, columns: int, rows: int) -> None:
    """Draw the steps on a terminal that says that it is of this size."""
    painter.paint(steps.lines(12.34, columns, rows), columns, rows)
    display.write(out.getvalue().replace("\n", "\r\n"))
    out.truncate(0)
    out.seek(0)


def test_a_window_of_another_size_is_drawn_anew() -> None:
    steps, out = Screen(0.0, color=True), io.StringIO()
    for when, message in BUILD:
        steps.event(dict(message), when)
    display, painter, fitted = Display(60, 24), buildprogress._Painter(out), True
    display.write("$ sampan build .\r\n")
    for columns, rows in ((60, 24), (60, 24), (37, 24), (25, 24), (90, 24), (90, 6), (12, 6), (12, 2), (1, 1), (80, 24)):
        display.resize(columns, rows)
        for _ in range(3):
            painted(display, steps, painter, out, columns, rows)
            assert display.wraps
            drawn = drawn_at(12.34, columns, rows)
            shown = display.lines
            assert shown[len(shown) - len(drawn) - 1 :] == [*(line.rstrip() for line in drawn), ""]
            fitted = fitted and rows == 24
            if fitted:  # what has scrolled out of the window cannot be drawn on again
                assert shown[: -len(drawn) - 1] == ["$ sampan build ."]


def test_nothing_above_is_drawn_on_where_widths_are_other_than_thought() -> None:
    steps, out = Screen(0.0, color=False), io.StringIO()
    steps.event(dict(started(1, 1, 1, "RUN " + "x" * 200)), 0)
    display, painter = Display(40, 24), buildprogress._Painter(out)
    display.write("above\r\n")
    for _ in range(3):
        painted(display, steps, painter, out, 60, 24)  # it is narrower than it says
        assert len(display.lines) == 4
    assert display.lines[0] == "above"


def drawing(*messages: Message) -> tuple[list[str], list[object]]:
    """What is on a terminal of 80 columns at the end, and the images told of."""
    out, images = io.StringIO(), list[object]()
    buildprogress.draw(iter([json.dumps(message).encode() for message in messages]), out, images.append)
    return shown(out), images


def test_a_build_is_drawn_in_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(buildprogress, "_EVERY_S", 0.001)  # as often as can be
    monkeypatch.setattr(buildprogress, "_size", lambda _: (80, 24))
    told = [message for _, message in BUILD] + [ended(2), ended(6), {"aux": {"ID": "sha256:1"}}, {"stream": "Successfully built 1\n"}]
    lines, images = drawing(*told)
    assert lines[0].startswith("[+] Building 0.")
    assert lines[0].endswith("s (5/7) FINISHED")
    assert [line[:30] for line in lines[1:6]] == [
        " => [build 1/3] FROM busybox A",
        " => [stage-1 1/4] FROM busybox",
        " => [build 2/3] RUN make \\ all",
        " => CACHED [stage-1 2/4] ENV a",
        " => [stage-1 3/4] RUN sleep 10",
    ]
    assert lines[6:] == ["[build 2/3] RUN make \\ all: [Warning] no swap", "Successfully built 1", ""]
    assert images == [{"ID": "sha256:1"}]


def test_an_engine_that_does_not_tell_of_steps_is_shown_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buildprogress, "_size", lambda _: (80, 24))
    lines, images = drawing({"stream": "Step 1/1 : FROM scratch\n"}, {"aux": {"ID": "x"}}, {"stream": "Successfully built x\n"})
    assert lines == ["Step 1/1 : FROM scratch", "Successfully built x", ""]
    assert images == [{"ID": "x"}]


def test_a_failed_steps_output_is_told_below(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    out = io.StringIO()
    failure = {"errorDetail": {"code": 7, "message": "no"}, "error": "no"}
    told = [{"plan": {"steps": 1}}, started(1, 1, 1, "RUN x"), output(1, "why\n"), ended(1, "failed"), failure]
    with pytest.raises(CliError, match=r"^no$") as raised:
        buildprogress.draw(iter([json.dumps(message).encode() for message in told]), out, print)
    assert raised.value.code == 7
    assert shown(out)[2:] == ["------", " > [1/1] RUN x:", "why", "------", ""]


@pytest.mark.parametrize(
    ("given", "environment", "terminal", "mode"),
    [
        ("auto", "", False, "plain"),
        ("auto", "", True, "tty"),
        ("auto", "rawjson", True, "rawjson"),
        ("auto", "auto", True, "tty"),
        ("auto", "what", True, "invalid progress mode what"),
        ("", "rawjson", True, "tty"),
        ("plain", "rawjson", True, "plain"),
        ("quiet", "", True, "quiet"),
        ("tty", "", False, "failed to get console: provided file is not a console"),
        ("what", "", True, "invalid progress mode what"),
    ],
)
def test_modes(monkeypatch: pytest.MonkeyPatch, given: str, environment: str, terminal: bool, mode: str) -> None:
    monkeypatch.setenv("BUILDKIT_PROGRESS", environment)
    monkeypatch.setenv("TERM", "xterm")
    out = io.StringIO()
    monkeypatch.setattr(out, "isatty", lambda: terminal)
    try:
        found = buildprogress.mode_of(given, out)
    except CliError as error:
        found = error.message
    assert found == mode


@pytest.mark.parametrize(
    ("given", "mode"),
    [("auto", "quiet"), ("quiet", "quiet"), ("plain", "progress=plain and quiet cannot be used together")],
)
def test_quiet_goes_with_no_other_mode(monkeypatch: pytest.MonkeyPatch, given: str, mode: str) -> None:
    monkeypatch.setenv("BUILDKIT_PROGRESS", "plain")
    try:
        found = buildprogress.mode_of(given, io.StringIO(), quiet=True)
    except CliError as error:
        found = error.message
    assert found == mode
