"""The registry's program: `serve`, `gc`, `verify` and `passwd`, started by `sampan registry` with a JSON document of arguments."""

import asyncio
import getpass
import json
import logging
import os
import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sampan.errors import EngineError, InvalidArgument
from sampan.registry.config import Config, load

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from sampan.registry.gc import Report
    from sampan.registry.storage import Storage
    from sampan.registry.verify import Verification

T = TypeVar("T")
PASSWORD_MAX = 72
"""bcrypt looks at no more bytes."""
DAMAGED, FAILED = 1, 2
"""Exit codes of `verify`: something is wrong; it could not be found out."""


def _config(arguments: dict[str, Any]) -> Config:
    return load(Path(arguments["config"]) if arguments["config"] else None, os.environ, arguments["settings"])


def _serve(arguments: dict[str, Any]) -> None:
    config = _config(arguments)
    logging.basicConfig(level=config.log_level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.umask(0o022)
    from sampan.registry.serving import serve

    asyncio.run(serve(config))


def _gc(arguments: dict[str, Any]) -> None:
    from sampan.registry.gc import Collector, Report

    config, dry_run = _config(arguments), bool(arguments["dry_run"])

    async def collect(storage: "Storage") -> Report:
        from sampan.registry.gate import Gate
        from sampan.registry.store import Manifests

        gate = Gate()
        collector = Collector(storage, gate, Manifests(storage, gate), policies=config.retention, grace=config.gc.grace_seconds)
        return await collector.collect(dry_run=dry_run)

    _print(arguments, _reported(config, "/gc?dry-run=1" if dry_run else "/gc", Report, collect))


def _verify(arguments: dict[str, Any]) -> None:
    from sampan.registry.verify import Verification, Verifier

    found = _reported(_config(arguments), "/verify", Verification, lambda storage: Verifier(storage).verify())
    _print(arguments, found)
    if found.problems:
        raise SystemExit(DAMAGED)


def _reported(config: Config, target: str, kind: type[T], work: "Callable[[Storage], Coroutine[Any, Any, T]]") -> T:
    """What the registry that runs on the directory says of it; where none does, we work on the directory ourselves."""
    import msgspec

    from sampan.registry.control import ask

    root = Path(config.root)
    if not root.is_dir():
        raise InvalidArgument(f"{root}: no such directory")
    body = ask(root, target)
    return msgspec.json.decode(body, type=kind) if body is not None else asyncio.run(_alone(config, work))


async def _alone(config: Config, work: "Callable[[Storage], Coroutine[Any, Any, T]]") -> T:
    from sampan.registry.serving import own
    from sampan.registry.storages import open_storage

    lock = own(Path(config.root))
    try:
        return await work(open_storage(config))
    finally:
        os.close(lock)


def _print(arguments: dict[str, Any], report: "Report | Verification") -> None:
    import msgspec

    print(msgspec.json.encode(report).decode() if arguments["json"] else "\n".join(report.lines()))


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
        {"serve": _serve, "gc": _gc, "verify": _verify, "passwd": _passwd}[role](arguments)
    except (EngineError, OSError) as error:
        print(f"sampan registry {role}: {error.message if isinstance(error, EngineError) else error}", file=sys.stderr)
        raise SystemExit(FAILED if role == "verify" else 1) from None
