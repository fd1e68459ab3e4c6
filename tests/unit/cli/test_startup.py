"""What a command loads before it does anything: every module costs start-up time, so a new one has to be added here on purpose."""

import subprocess
import sys
from pathlib import Path

SOURCE = str(Path(__file__).parents[3] / "src")
HEAVY = {
    "re",
    "json",
    "argparse",
    "http",
    "socket",
    "ssl",
    "typing",
    "enum",
    "dataclasses",
    "signal",
    "subprocess",
    "asyncio",
    "threading",
    "selectors",
}


def loaded(*words: str) -> set[str]:
    """The modules in memory after a command line (against a host that is not there)."""
    code = (
        f"import sys; sys.path.insert(0, {SOURCE!r}); from sampan.cli.main import main; "
        f"main({list(words)!r}); sys.stdout.write('\\n' + ' '.join(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, timeout=20, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_a_simple_command_loads_little() -> None:
    modules = loaded("-H", "unix:///nonexistent", "stop", "x")
    assert modules & HEAVY == set()
    assert {name for name in modules if name.startswith("sampan.cli.commands.")} == {"sampan.cli.commands.stop"}


def test_run_loads_little() -> None:
    assert loaded("-H", "unix:///nonexistent", "run", "--rm", "-it", "busybox", "sh") & HEAVY == set()
