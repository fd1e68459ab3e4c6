"""Builds as tests see them: contexts made in memory, the stream's text, and an image taken apart so that two engines' can be compared."""

import gzip
import io
import json
import re
import subprocess
import tarfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

BASE = "buildbase"
"""The image that all these builds begin with: base_tar(), imported."""
Call = Callable[[str, str, bytes | None], tuple[int, bytes]]
"""A request to an engine: method, path, body -> status, body."""
Content = str | bytes | dict[str, Any] | None


@cache
def base_tar() -> bytes:
    """A root file system with the host's static busybox."""
    box = next(path for path in (Path("/bin/busybox"), Path("/usr/bin/busybox")) if path.exists())
    applets = subprocess.run([str(box), "--list"], capture_output=True, text=True, check=True).stdout.split()
    files: dict[str, Content] = {name: None for name in ("bin", "etc", "tmp", "proc", "sys", "dev")}
    files["bin/busybox"] = {"data": box.read_bytes(), "mode": 0o755}
    files |= {f"bin/{applet}": {"link": "busybox"} for applet in applets if applet != "busybox"}
    files["etc/passwd"] = "root:x:0:0::/root:/bin/sh\njoe:x:55:66::/:/bin/sh\n"
    files["etc/group"] = "root:x:0:\njoe:x:66:\nstaff:x:50:joe\n"
    return context(files)


def context(files: Mapping[str, Content]) -> bytes:
    """A tar. A file is its text, None a directory, or {data, mode, uid, gid, link, hard, type, mtime}."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, content in files.items():
            given: dict[str, Any] = content if isinstance(content, dict) else {"data": content}
            data = given.get("data")
            data = data.encode() if isinstance(data, str) else data
            info = tarfile.TarInfo(name)
            info.mtime, info.uid, info.gid = given.get("mtime", 1_600_000_000), given.get("uid", 0), given.get("gid", 0)
            info.mode = given.get("mode", 0o755 if data is None else 0o644)
            if "link" in given or "hard" in given:
                info.type = tarfile.SYMTYPE if "link" in given else tarfile.LNKTYPE
                info.linkname = given.get("link") or given["hard"]
                info.mode = given.get("mode", 0o777)
                tar.addfile(info)
            elif data is None:
                info.type = given.get("type", tarfile.DIRTYPE)
                tar.addfile(info)
            else:
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def packed(files: Mapping[str, Content], *, zipped: bool = False) -> bytes:
    """An archive to be ADDed."""
    data = context(files)
    return gzip.compress(data, mtime=0) if zipped else data


class Built:
    """What a build said."""

    def __init__(self, status: int, body: bytes) -> None:
        self.status = status
        self.lines: list[dict[str, Any]] = []
        self.message = ""
        if status == 200:
            self.lines = [json.loads(line) for line in body.splitlines() if line.strip()]
        else:
            self.message = json.loads(body)["message"]

    @property
    def text(self) -> str:
        """All of the stream, an error at its end."""
        return "".join(line.get("stream", "") for line in self.lines) + self.error

    @property
    def error(self) -> str:
        """The error in the stream, empty when it went well."""
        return str(next((line["error"] for line in self.lines if "error" in line), ""))

    @property
    def code(self) -> int | None:
        """Of the command that failed."""
        code: int | None = next((line["errorDetail"].get("code") for line in self.lines if "errorDetail" in line), None)
        return code

    @property
    def image(self) -> str:
        """The ID of the last image it told."""
        found: str = [line["aux"]["ID"] for line in self.lines if "aux" in line][-1]
        return found

    @property
    def cached(self) -> int:
        """How many steps were in the cache."""
        return self.text.count(" ---> Using cache\n")


def build(call: Call, files: Mapping[str, Content] | bytes, **query: Any) -> Built:
    """POST /build. query: further parameters; lists repeat, dicts are JSON."""
    given = [(name, one) for name, value in query.items() for one in (value if isinstance(value, list) else [value])]
    pairs = [(name, json.dumps(one) if isinstance(one, dict) else str(one)) for name, one in given]
    body = files if isinstance(files, bytes) else context(files)
    return Built(*call("POST", "/v1.50/build?" + urlencode(pairs), body))


def without_ids(text: str) -> str:
    """A text with every ID alike, and what a program says in several pieces as one."""
    return re.sub(r"[0-9a-f]{12}", "ID", text).replace("\x1b[0m\x1b[91m", "")


def taken_apart(archive: bytes) -> dict[str, Any]:
    """An image of `docker save`, but for times, IDs and its base's layer: config, history, and the files of each layer."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:

        def read(name: str) -> bytes:
            file = tar.extractfile(name)
            assert file is not None
            return file.read()

        manifest = json.loads(read("manifest.json"))[0]
        document = json.loads(read(manifest["Config"]))
        layers = [read(name) for name in manifest["Layers"]]
    config = {name: value for name, value in document["config"].items() if value and name != "Image"}
    history = [
        {"created_by": step.get("created_by", ""), "author": step.get("author", ""), "empty_layer": step.get("empty_layer", False)}
        for step in document["history"]
    ]
    skipped = 1 if history and not history[0]["created_by"] else 0  # the base's
    return {"config": config, "history": history[skipped:], "layers": [_entries(layer) for layer in layers[skipped:]]}


def _entries(layer: bytes) -> list[list[Any]]:
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        found = []
        for entry in tar:
            kind = {tarfile.DIRTYPE: "d", tarfile.SYMTYPE: "l", tarfile.LNKTYPE: "h"}.get(entry.type, "f")
            found.append([entry.name, kind, f"{entry.mode & 0o7777:o}", entry.uid, entry.gid, entry.size, entry.linkname])
    return sorted(found)
