"""What an OCI runtime has left of a run, removed by the runtime."""

import asyncio
import os
from pathlib import Path

from sampan.engine import runtimes
from sampan.engine.paths import Paths


def test_a_runtime_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    program, pids = tmp_path / "hanging", tmp_path / "pids"
    program.write_text(f"#!/bin/sh\ntrap '' TERM\nsleep 1000 &\necho $$ $! > {tmp_path}/new\nmv {tmp_path}/new {pids}\nwait\n")
    program.chmod(0o755)
    paths = Paths(tmp_path / "data", tmp_path / "run", "x")
    found = runtimes.Runtimes(runtimes.RuntimeSettings(), paths)
    Path(paths.runtime("c" * 64)).mkdir(parents=True)

    async def scenario() -> None:
        async with asyncio.timeout(20):
            deleting = asyncio.ensure_future(found.delete("c" * 64, (str(program),)))
            while not pids.exists():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            deleting.cancel()
            await asyncio.gather(deleting, return_exceptions=True)
            while any(os.path.exists(f"/proc/{pid}/exe") for pid in pids.read_text().split()):  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    asyncio.run(scenario())
