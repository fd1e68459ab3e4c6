"""What sampand and the keeper do together to compress a rotated log, without either."""

import gzip
import os
import threading
from pathlib import Path

from sampan.logs import rotated
from sampan.runtime.supervisor.keeper_json import swap


def compress(path: str, number: int) -> bool:
    """Compress path.number, if there is a plain one; whether it was."""
    try:
        source = os.open(f"{path}.{number}", os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        target = os.open(f"{path}.copy", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            made_of = rotated.compress(source, target, threading.Event())
        finally:
            os.close(target)
        assert made_of is not None
        return swap(path, number, list(made_of), f"{path}.copy")
    finally:
        os.close(source)


def files(path: str) -> list[Path]:
    """The log's files, the oldest first; of a file and its copy the file. A number may be missing."""
    found: dict[int, Path] = {}
    for file in Path(path).parent.glob(f"{Path(path).name}*"):
        number, _, kind = file.name[len(Path(path).name) + 1 :].partition(".")
        if number.isdigit() and not (kind and int(number) in found):
            found[int(number)] = file
    return [*(found[number] for number in sorted(found, reverse=True)), *([Path(path)] if os.path.exists(path) else [])]


def text(file: Path) -> str:
    """What is in it."""
    return (gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()).decode()
