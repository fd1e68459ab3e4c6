"""An image with the Python that runs the tests, as much of it as one script needs: for programs that busybox cannot be."""

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

_MODULES = """
import sys, runpy
script = sys.argv[1]
sys.argv = [script]
runpy.run_path(script, run_name="imported")
import encodings.idna, encodings.latin_1, encodings.utf_8, encodings.ascii  # found by name only, when they are needed
for module in list(sys.modules.values()):
    for name in (getattr(module, "__file__", None), getattr(module, "__cached__", None)):
        if name:
            print(name)
print(sys.executable)
import os
print(os.path.realpath(sys.executable))
"""


def python_image(script: Path) -> bytes:
    """A tar to import: the script is /program.py, the interpreter sys.executable's."""
    python = os.path.realpath(sys.executable)
    told = subprocess.run([python, "-I", "-c", _MODULES, str(script)], capture_output=True, text=True, check=True).stdout
    files = {Path(line) for line in told.splitlines() if Path(line) != script and Path(line).exists()}
    for file in [file for file in files if file.suffix == ".so" or str(file) == python]:
        files |= _libraries(file)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", dereference=True) as tar:
        for directory in ("proc", "sys", "dev", "etc", "tmp", "var/run"):
            info = tarfile.TarInfo(directory)
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(info)
        for file in sorted(files):
            tar.add(file, str(file).lstrip("/"))
        tar.add(script, "program.py")
    return buffer.getvalue()


def _libraries(file: Path) -> set[Path]:
    told = subprocess.run(["ldd", str(file)], capture_output=True, text=True, check=True).stdout
    words = {word for line in told.splitlines() for word in line.split() if word.startswith("/")}
    return {Path(word) for word in words}
