"""daemon.json: what it says, checked against the option table, and where each key of it stands."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from sampan.daemon.convert import ValueProblem, from_json
from sampan.daemon.jsonfile import Json, JsonError, Parser, line_and_column
from sampan.daemon.options import BY_KEY

FILE_PROBLEM: Final = "unable to configure the Docker daemon with file {}: "


class ConfigError(Exception):
    """The daemon must not start; the text is for the one who starts it."""


def read(path: str, wanted: bool) -> str:
    """The text of the configuration file; "" when the file of the default place is not there."""
    try:
        return Path(path).read_bytes().decode("utf-8-sig")
    except FileNotFoundError as exc:
        if wanted:
            raise ConfigError(FILE_PROBLEM.format(path) + f"open {path}: no such file or directory") from exc
        return ""
    except OSError as exc:
        raise ConfigError(FILE_PROBLEM.format(path) + f"open {path}: {(exc.strerror or str(exc)).lower()}") from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(FILE_PROBLEM.format(path) + f"failed to decode configuration JSON at offset {exc.start}: invalid UTF-8") from exc


class FileConfig(msgspec.Struct, frozen=True):
    """What daemon.json said: the values by key (nulls left out), and where each key stands."""

    path: str
    values: Mapping[str, Any]
    raw: Mapping[str, Json]
    where: Callable[[str], str]


def parse(path: str, text: str) -> FileConfig:
    """Check the file's text against the option table. Raises ConfigError with docker's sentence and the place."""
    problem = FILE_PROBLEM.format(path)
    if not text.strip():
        return FileConfig(path, {}, {}, lambda _: "")
    parser = Parser(text)
    try:
        document = parser.document()
    except JsonError as exc:
        raise ConfigError(f"{problem}invalid JSON: {exc} ({line_and_column(text, exc.offset)})") from exc
    if not isinstance(document, dict):
        kind = "array" if isinstance(document, list) else "string" if isinstance(document, str) else "value"
        raise ConfigError(f"{problem}invalid JSON: json: cannot unmarshal {kind} into Go value of type map[string]interface {{}} (line 1)")

    def where(*keys: str) -> str:
        return line_and_column(text, parser.places[keys])

    unknown = [key for key in document if key not in BY_KEY]
    if unknown:
        places = ", ".join(f"{key}: {where(key)}" for key in unknown)
        raise ConfigError(f"{problem}the following directives don't match any configuration option: {', '.join(unknown)} ({places})")
    values = {}
    for key, raw in document.items():
        if raw is None:
            continue
        try:
            values[key] = from_json(BY_KEY[key], raw)
        except ValueProblem as exc:
            place = exc.path if exc.path in parser.places else (key,)
            raise ConfigError(f"{problem}invalid JSON: {exc} ({key}: {where(*place)})") from exc
    return FileConfig(path, values, document, lambda key: where(key))
