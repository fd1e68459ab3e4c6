"""Builds as tests see them: contexts made in memory, the stream's text, and an image taken apart so that two engines' can be compared."""

import gzip
import hashlib
import io
import json
import os
import re
import subprocess
import tarfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

_VARYING = (
    (re.compile(r"/var/lib/docker[^ /]*/(overlay2/[0-9a-f]{64}/merged|tmp/docker-builder\d+/)"), ""),
    (re.compile(r"/\.pivot_root\d+"), ""),
    (re.compile(r"[0-9a-f]{64}|[0-9a-f]{12}"), "ID"),
)
BASE = "buildbase"
"""The image that all these builds begin with: base_tar(), imported."""
Call = Callable[[str, str, bytes | None], tuple[int, bytes]]
"""A request to an engine: method, path, body -> status, body."""
Content = str | bytes | dict[str, Any] | None
_KINDS = {
    tarfile.REGTYPE: "-", tarfile.DIRTYPE: "d", tarfile.SYMTYPE: "l", tarfile.LNKTYPE: "h", tarfile.CHRTYPE: "c", tarfile.BLKTYPE: "b",
    tarfile.FIFOTYPE: "p",
}  # fmt: skip


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
    """A tar. A file is its text, None a directory, or {data, mode, uid, gid, link, hard, type, device, mtime, pax}."""
    buffer = io.BytesIO()
    extended = any(isinstance(content, dict) and "pax" in content for content in files.values())
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT if extended else tarfile.GNU_FORMAT) as tar:
        for name, content in files.items():
            given: dict[str, Any] = content if isinstance(content, dict) else {"data": content}
            data = given.get("data")
            data = data.encode() if isinstance(data, str) else data
            info = tarfile.TarInfo(name)
            info.mtime, info.uid, info.gid = given.get("mtime", 1_600_000_000), given.get("uid", 0), given.get("gid", 0)
            info.mode = given.get("mode", 0o755 if data is None else 0o644)
            info.pax_headers = given.get("pax", {})
            info.devmajor, info.devminor = given.get("device", (0, 0))
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
    """A text with every ID alike, without an engine's own paths, and with what a program says in several pieces as one."""
    for pattern, word in _VARYING:
        text = pattern.sub(word, text)
    return text.replace("\x1b[0m\x1b[91m", "")


def taken_apart(archive: bytes, parent: str) -> dict[str, Any]:
    """An image of `docker save`, but for times, IDs and its base's layer: the whole document, and the files of each layer.

    parent: the ID of its parent, "" for none. What a document leaves out is the same as a zero value.
    """
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:

        def read(name: str) -> bytes:
            file = tar.extractfile(name)
            assert file is not None
            return file.read()

        manifest = json.loads(read("manifest.json"))[0]
        document = json.loads(read(manifest["Config"]))
        layers = [read(name) for name in manifest["Layers"]]
    assert len(layers) == len(document["rootfs"]["diff_ids"] or [])
    history = [_step(step) for step in document.pop("history")]
    skipped = 1 if history and "created_by" not in history[0] else 0  # the base's
    if len(history) == skipped:
        return {"document": "the base's", "history": [], "layers": []}
    names = {parent: "PARENT", document.get("container", "")[:12]: "CONTAINER"}
    return {
        "document": _document(document, names),
        "history": history[skipped:],
        "layers": [entries(layer, ran=ran) for layer, ran in zip(layers[skipped:], _ran(history[skipped:]), strict=True)],
    }


def _ran(history: Sequence[Mapping[str, Any]]) -> list[bool]:
    """Of each layer whether it is a RUN's."""
    return ["#(nop)" not in step.get("created_by", "") for step in history if not step.get("empty_layer")]


def _step(step: Mapping[str, Any]) -> dict[str, Any]:
    assert step["created"]
    return {name: value for name, value in step.items() if value and name != "created"}


def _document(document: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Its fields, but for what is another one each time: of that, whether it is there."""
    found = {name: value for name, value in document.items() if value and name != "rootfs"}
    for name in ("created", "container", "docker_version"):
        if name in found:
            found[name] = True
    for name in ("config", "container_config"):
        if name in found:
            found[name] = {field: value for field, value in found[name].items() if value}
            for field in {"Image", "Hostname"} & found[name].keys():
                found[name][field] = names.get(found[name][field], found[name][field])
    return found


def entries(layer: bytes, *, ran: bool) -> list[str]:
    """Everything that a layer says of each of its files, a line for each.

    Of a whiteout its name alone; times only of files that are older than the test, and (ran) not those of directories, in which docker
    makes mount points of its own.
    """
    recent = time.time() - 24 * 3600
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        found = []
        for entry in tar:
            if os.path.basename(entry.name).startswith(".wh."):
                found.append(entry.name)
                continue
            kind = _KINDS.get(entry.type, "?")
            words = [entry.name, f"{kind}{entry.mode & 0o7777:04o}", f"{entry.uid}:{entry.gid}"]
            untold = ran and entry.isdir()
            words.append("now" if untold or entry.mtime > recent else f"{entry.mtime:.9f}".rstrip("0").rstrip("."))
            if entry.isreg():
                file = tar.extractfile(entry)
                assert file is not None
                words.append(f"{entry.size} {hashlib.sha256(file.read()).hexdigest()[:16]}")
            if entry.linkname:
                words.append(f"-> {entry.linkname}")
            if entry.type in (tarfile.CHRTYPE, tarfile.BLKTYPE):
                words.append(f"{entry.devmajor}:{entry.devminor}")
            words += [f"{name}={value!r}" for name, value in sorted(entry.pax_headers.items()) if name.startswith("SCHILY.xattr")]
            found.append(" ".join(words))
    return sorted(found)
