"""The user's config.json as it is changed: read anew, put in place in one step, in docker's form."""

from __future__ import annotations

import os

from sampan.cli.http import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.flags import Parsed


def path_of(options: Parsed) -> str:
    """Where the file is, or would be."""
    return os.path.join(options.str("config"), "config.json")


def read(path: str, failed: str = "") -> dict[str, Any]:
    """The file as it is now: another command may have changed it. Raises CliError, after `failed`, for one that writing anew would lose."""
    import json

    try:
        with open(path, "rb") as file:
            found = json.loads(file.read() or b"{}")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise CliError(f"{failed}{path} cannot be read, and is left as it is")
    return found


def write(path: str, value: dict[str, Any], failed: str = "") -> None:
    """Replace the file; nobody else may read it. As docker's it begins with `auths`. Raises CliError, after `failed`."""
    import json

    from sampan.cli.replacing import replace_text

    try:
        os.makedirs(os.path.dirname(os.path.realpath(path)), 0o700, exist_ok=True)
        replace_text(path, json.dumps({"auths": {}, **value}, indent="\t", ensure_ascii=False), 0o600)
    except OSError as error:
        raise CliError(f"{failed}open {path}: {(error.strerror or '').lower()}") from None
