"""How the `sampan registry` commands become the registry's program: it is asyncio and an HTTP library, which no other command loads."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn


def become(role: str, **arguments: Any) -> NoReturn:
    """Replace this process; arguments: for sampan.registry.main, as JSON."""
    import json

    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    # -I and no -m: the current directory and what the environment names are no places to load modules from
    program = f"import sys; sys.path.insert(0, {root!r}); from sampan.registry.main import entry; entry()"
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-I", "-c", program, role, json.dumps(arguments)])
