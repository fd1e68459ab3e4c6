"""What no start needs is not loaded for one."""

import subprocess
import sys

import pytest

from sampan.daemon.late import Late, stand_in

LATE = (
    "sampan.daemon.latewiring", "sampan.engine.build", "sampan.engine.pull", "sampan.engine.image_archives", "sampan.engine.check",
    "sampan.build.parse", "sampan.distribution.registry", "sampan.network.dnsserver", "dnslib", "email", "http.client", "dataclasses",
)  # fmt: skip


def test_a_start_does_not_load_what_it_does_not_need() -> None:
    code = f"import sys, sampan.daemon.serving; print([name for name in {LATE!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"


def test_it_is_made_once_by_who_asks_first() -> None:
    made: list[list[int]] = []

    def make() -> list[int]:
        made.append([len(made)])
        return made[-1]

    late = Late(make)
    shown = stand_in(late)
    assert made == []
    shown.append(7)
    assert late() is late() is made[0]
    assert (made, shown.count(7)) == ([[0, 7]], 1)


def test_who_cannot_be_made_is_tried_again() -> None:
    tries = 0

    def make() -> str:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise OSError("the disk is full")
        return "made"

    late = Late(make)
    with pytest.raises(OSError, match="the disk is full"):
        late()
    with pytest.raises(OSError, match="the disk is full"):
        stand_in(late).upper()
    assert stand_in(late).upper() == "MADE"
