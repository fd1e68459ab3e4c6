"""The registry's program: `serve`, `gc`, `verify` and `passwd`, started by `sampan registry` with a JSON document of arguments."""

import asyncio
import getpass
import json
import logging
import os
import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sampan.errors import EngineError, InvalidArgument
from sampan.registry.config import Config, load

if TYPE_CHECKING:
    from sampan.registry.gc import Report
    from sampan.registry.verify import Verification

PASSWORD_MAX = 72
"""bcrypt looks at no more bytes."""
DAMAGED, FAILED = 1, 2
"""Exit codes of `verify`: something is wrong; it could not be found out."""


def _serve(arguments: dict[str, Any]) -> None:
    config = load(Path(arguments["config"]) if arguments["config"] else None, os.environ, arguments["settings"])
    logging.basicConfig(level=config.log_level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.umask(0o022)
    from sampan.registry.serving import serve

    asyncio.run(serve(config))


def _gc(arguments: dict[str, Any]) -> None:
    import msgspec

    from sampan.registry.control import ask
    from sampan.registry.gc import Report

    config = load(Path(arguments["config"]) if arguments["config"] else None, os.environ, arguments["settings"])
    root, dry_run = Path(config.root), bool(arguments["dry_run"])
    if not root.is_dir():
        raise InvalidArgument(f"{root}: no such directory")
    body = ask(root, "/gc?dry-run=1" if dry_run else "/gc")
    report = msgspec.json.decode(body, type=Report) if body is not None else asyncio.run(_collect_alone(config, dry_run=dry_run))
    if arguments["json"]:
        print(msgspec.json.encode(report).decode())
        return
    print("\n".join(report.lines()))


async def _collect_alone(config: Config, *, dry_run: bool) -> "Report":
    """On a directory whose registry does not run."""
    from sampan.registry.gate import Gate
    from sampan.registry.gc import Collector
    from sampan.registry.serving import own
    from sampan.registry.storages import open_storage
    from sampan.registry.store import Manifests

    lock = own(Path(config.root))
    try:
        storage, gate = open_storage(config), Gate()
        collector = Collector(storage, gate, Manifests(storage, gate), policies=config.retention, grace=config.gc.grace_seconds)
        return await collector.collect(dry_run=dry_run)
    finally:
        os.close(lock)


def _verify(arguments: dict[str, Any]) -> None:
    import msgspec

    from sampan.registry.control import ask
    from sampan.registry.verify import Verification

    config = load(Path(arguments["config"]) if arguments["config"] else None, os.environ, arguments["settings"])
    root = Path(config.root)
    if not root.is_dir():
        raise InvalidArgument(f"{root}: no such directory")
    body = ask(root, "/verify")
    found = msgspec.json.decode(body, type=Verification) if body is not None else asyncio.run(_verify_alone(config))
    print(msgspec.json.encode(found).decode() if arguments["json"] else "\n".join(found.lines()))
    if found.problems:
        raise SystemExit(DAMAGED)


async def _verify_alone(config: Config) -> "Verification":
    """A directory whose registry does not run."""
    from sampan.registry.serving import own
    from sampan.registry.storages import open_storage
    from sampan.registry.verify import Verifier

    lock = own(Path(config.root))
    try:
        return await Verifier(open_storage(config)).verify()
    finally:
        os.close(lock)


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
    except EngineError as error:
        print(f"sampan registry {role}: {error.message}", file=sys.stderr)
        raise SystemExit(FAILED if role == "verify" else 1) from None
    except OSError as error:
        print(f"sampan registry {role}: {error}", file=sys.stderr)
        raise SystemExit(FAILED if role == "verify" else 1) from None
