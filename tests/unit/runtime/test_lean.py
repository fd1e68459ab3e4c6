"""The lean processes import what is listed here and nothing else: fork cost and memory grow with every module."""

import subprocess
import sys
from pathlib import Path

import sampan

BUDGET = {
    "_collections_abc", "abc", "array", "binascii", "codecs", "collections", "contextlib", "copyreg", "ctypes", "enum", "errno", "fcntl",
    "functools", "gc", "genericpath", "io", "itertools", "json", "keyword", "math", "mmap", "operator", "os", "posixpath", "re", "reprlib",
    "resource", "select", "selectors", "signal", "socket", "stat", "struct", "sys", "termios", "time", "types", "typing", "warnings",
    "zipimport", "encodings", "builtins", "marshal", "posix", "atexit",
}  # fmt: skip


def test_the_supervisor_imports_only_its_budget() -> None:
    source = Path(sampan.__file__).parents[1]
    script = (
        f"import sys; sys.path.insert(0, {str(source)!r});"
        "from sampan.runtime.supervisor import main, server, child, keeper; print(*sorted(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=True, timeout=20)
    tops = {name.partition(".")[0] for name in done.stdout.split()} - {"__main__", "sampan"}
    assert {name for name in tops if not name.startswith("_")} <= BUDGET
    ours = {name for name in done.stdout.split() if name.startswith("sampan.")}
    assert not {name for name in ours if not name.startswith(("sampan.linux", "sampan.runtime", "sampan.errors"))}
    assert not ours & {"sampan.runtime.plan", "sampan.runtime.client", "sampan.runtime.cgroups", "sampan.linux.seccomp_bpf"}


def test_the_lean_program_stays_small() -> None:
    """What a reader must know to trust the parent of all containers: 3,750 lines (docs/adr/0001).

    The last 80: compressed logs. Only who renames the files of a log can put a copy in the place of one without ever losing a line.
    """
    runtime = Path(sampan.__file__).parent / "runtime"
    files = [*runtime.glob("supervisor/*.py"), *(runtime / f"{name}.py" for name in ("protocol", "ops", "logframe"))]
    assert len(files) > 8
    assert sum(len(file.read_text().splitlines()) for file in files) <= 3750
