"""kill -9 before each single change: a child dies before its first one, the next child before its second, until one lives.

Python's audit events tell of changes of the file system; what is changed elsewhere says so itself, by `sys.audit(CHANGE)`. It all
happens in children of a process of its own, so that none inherits the threads of another.
"""

import asyncio
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Protocol

CHANGE = "tests.change"
CHANGES = frozenset(("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "shutil.rmtree", CHANGE))
INSTANTS_MAX = 500


class Scenario(Protocol):
    """What is done, and what must be true whenever it was cut short. root: a directory of this try's own."""

    async def prepare(self, root: Path) -> None:
        """What is there before."""

    async def run(self, root: Path, tell: Callable[[str], None]) -> None:
        """Be killed at each change. tell: says what has been acknowledged."""

    async def check(self, root: Path, told: list[str], *, ended: bool) -> None:
        """Raises AssertionError. ended: nothing was cut short."""


def _is_change(event: str, arguments: tuple[object, ...]) -> bool:
    return event in CHANGES or (
        event == "open" and arguments[1] is None and isinstance(arguments[2], int) and bool(arguments[2] & os.O_CREAT)
    )


def _in_a_child(make: Callable[[], Coroutine[Any, Any, None]], die_at: int = 0) -> int:
    """The exit code of a child that runs it; 9: it was killed."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    count = 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal count
        if _is_change(event, arguments):
            count += 1
            if count == die_at:
                os._exit(9)

    try:
        os.fsync = lambda _: None  # a process that is killed loses nothing that it has written
        if die_at:
            sys.addaudithook(hook)
        asyncio.run(asyncio.wait_for(make(), 60))
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def at_each_change(scenario: Scenario, base: Path) -> int:
    """How many instants there are."""
    for die_at in range(1, INSTANTS_MAX):
        root = base / str(die_at)
        root.mkdir()
        assert _in_a_child(lambda root=root: scenario.prepare(root)) == 0  # type: ignore[misc]
        reader, writer = os.pipe()

        def tell(text: str, writer: int = writer) -> None:
            os.write(writer, f"{text}\n".encode())

        code = _in_a_child(lambda root=root, tell=tell: scenario.run(root, tell), die_at)  # type: ignore[misc]
        os.close(writer)
        with open(reader, encoding="ascii") as file:
            told = file.read().splitlines()
        assert code in (0, 9), code
        checked = _in_a_child(lambda root=root, told=told, code=code: scenario.check(root, told, ended=code == 0))  # type: ignore[misc]
        assert checked == 0, f"died at change {die_at} after {told}"
        if code == 0:
            return die_at - 1
    raise AssertionError("it never ends")


def instants_of(scenario: str, base: Path, *arguments: str) -> int:
    """at_each_change() of a class MODULE:NAME, which is made of the arguments, in a process of its own."""
    module, _, name = scenario.partition(":")
    program = (
        "import sys; from pathlib import Path; from importlib import import_module; from tests.support.crashes import at_each_change; "
        "print(at_each_change(getattr(import_module(sys.argv[1]), sys.argv[2])(*sys.argv[4:]), Path(sys.argv[3])))"
    )
    command = [sys.executable, "-c", program, module, name, str(base), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=115, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)
