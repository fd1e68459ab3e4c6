"""Rows about builds: ten steps that were never built, the same from the cache, a large context of which little is used, three stages."""

import io
import os
import random
import subprocess
import tarfile
from collections.abc import Mapping
from typing import ClassVar

from bench.rows import Row, seconds
from bench.target import require

STEPS, CONTEXT_BYTES = 5, 100_000_000
STAGES = ("one", "two", "three")


def context(files: Mapping[str, bytes]) -> bytes:
    """A context's tar."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


class _Builds(Row):
    def prepare(self) -> None:
        self.name = f"{self.target.label}-built:latest"

    def build(self, archive: bytes) -> tuple[float, bytes]:
        """Seconds of one build, and what it said."""
        took, said = seconds(lambda: self.target.call("POST", f"/build?t={self.name}&rm=1", archive, raw=True))
        require(f"Successfully tagged {self.name}".encode() in said, said[-300:])
        return took, said

    def output(self, *command: str) -> bytes:
        """What a command says in the image that was built."""
        body = {"Image": self.name, "Cmd": ["sleep", "60"], "HostConfig": {"NetworkMode": "none"}}
        made = self.target.call("POST", "/containers/create", body)
        try:
            self.target.call("POST", f"/containers/{made['Id']}/start")
            return self.target.exec(made["Id"], *command)
        finally:
            self.target.call("DELETE", f"/containers/{made['Id']}?force=1")

    def remove(self) -> None:
        """Take the image away, and all that it was built by."""
        self.target.call("DELETE", f"/images/{self.name}")


class Build(_Builds):
    """Ten steps, COPY and RUN in turn, each of which changes a file."""

    goals: ClassVar[dict[str, float]] = {"build_cold": 0.25, "build_cached": 1.0}

    def sample(self) -> dict[str, float]:
        files = {f"f{number}": os.urandom(20).hex().encode() + b"\n" for number in range(STEPS)}
        steps = "".join(f"COPY {name} /app/{name}\nRUN cat /app/{name} >> /app/all\n" for name in files)
        archive = context({**files, "Dockerfile": f"FROM {self.target.image}\n{steps}".encode()})
        cold, said = self.build(archive)
        require(b"Using cache" not in said, said[-300:])
        cached, said = self.build(archive)
        require(said.count(b"Using cache") == 2 * STEPS, said[-300:])
        require(self.output("cat", "/app/all") == b"".join(files.values()), "what was built")
        self.remove()
        return {"build_cold": cold, "build_cached": cached}


class BuildContext(_Builds):
    """100 MB arrive, one small file is copied."""

    goals: ClassVar[dict[str, float]] = {"build_context_100MB": 0.8}

    def prepare(self) -> None:
        super().prepare()
        self.big = random.Random(1).randbytes(CONTEXT_BYTES)

    def sample(self) -> dict[str, float]:
        small = os.urandom(20).hex().encode()
        text = f"FROM {self.target.image}\nCOPY small /small\n".encode()
        took, _ = self.build(context({"Dockerfile": text, "big": self.big, "small": small}))
        require(self.output("cat", "/small") == small, "what was built")
        self.remove()
        return {"build_context_100MB": took}


class BuildParallel(_Builds):
    """Three stages that do not need each other, each of which waits for a second, and a fourth that takes a file of each; by the client."""

    goals: ClassVar[dict[str, float]] = {"build_parallel": 1.0}

    def sample(self) -> dict[str, float]:
        unique = os.urandom(20).hex().encode()
        stages = "".join(f"FROM {self.target.image} AS {name}\nCOPY unique /\nRUN sleep 1 && cp /unique /{name}\n" for name in STAGES)
        copies = "".join(f"COPY --from={name} /{name} /{name}\n" for name in STAGES)
        text = f"{stages}FROM {self.target.image}\n{copies}".encode()
        took, done = seconds(self.client, context({"Dockerfile": text, "unique": unique}))
        require(done.returncode == 0, done.stderr[-300:])
        require(self.output("cat", *(f"/{name}" for name in STAGES)) == unique * len(STAGES), "what was built")
        self.remove()
        return {"build_parallel": took}

    def client(self, archive: bytes) -> "subprocess.CompletedProcess[bytes]":
        """A build by the engine's own client, the context on its standard input."""
        environment = {**os.environ, "DOCKER_HOST": self.target.url}
        command = [*self.target.builder, "--quiet", "--tag", self.name, "-"]
        return subprocess.run(command, input=archive, capture_output=True, env=environment, check=False, timeout=120)


ROWS: tuple[type[Row], ...] = (Build, BuildContext, BuildParallel)
