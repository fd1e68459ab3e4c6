"""The registry's program: `serve` and `passwd`, started by `sampan registry` with a JSON document of arguments."""

import asyncio
import getpass
import json
import logging
import os
import resource
import sys
from pathlib import Path
from typing import Any

from sampan.errors import EngineError, InvalidArgument
from sampan.registry.config import load

PASSWORD_MAX = 72
"""bcrypt looks at no more bytes."""


def _serve(arguments: dict[str, Any]) -> None:
    config = load(Path(arguments["config"]) if arguments["config"] else None, os.environ, arguments["settings"])
    logging.basicConfig(level=config.log_level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.umask(0o022)
    from sampan.registry.serving import serve

    asyncio.run(serve(config))


def _passwd(arguments: dict[str, Any]) -> None:
    from sampan.registry.access.htpasswd import hashed

    user = str(arguments["user"])
    if ":" in user or not user or not user.isprintable():
        raise InvalidArgument("a user's name has no colon")
    password = getpass.getpass("Password: ") if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
    if not password or len(password.encode()) > PASSWORD_MAX:
        raise InvalidArgument(f"a password has 1 to {PASSWORD_MAX} bytes")
    print(f"{user}:{hashed(password)}")


def entry() -> None:
    """`ROLE JSON`"""
    role, arguments = sys.argv[1], json.loads(sys.argv[2])
    try:
        {"serve": _serve, "passwd": _passwd}[role](arguments)
    except EngineError as error:
        print(f"sampan registry {role}: {error.message}", file=sys.stderr)
        raise SystemExit(1) from None
    except OSError as error:
        print(f"sampan registry {role}: {error}", file=sys.stderr)
        raise SystemExit(1) from None
