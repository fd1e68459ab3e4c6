"""Images in a registry, and docker's manifest commands over them: for the recording and for the test alike."""

import hashlib
import json
import shlex
import urllib.request
from pathlib import Path
from typing import Any

SCHEMA2 = "application/vnd.docker.distribution.manifest.v2+json"
OCI = "application/vnd.oci.image.manifest.v1+json"
LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG, OCI_LAYER = "application/vnd.oci.image.config.v1+json", "application/vnd.oci.image.layer.v1.tar+gzip"
CONFIG, LAYER = "application/vnd.docker.container.image.v1+json", "application/vnd.docker.image.rootfs.diff.tar.gzip"


def _put(url: str, content: bytes, media_type: str) -> None:
    request = urllib.request.Request(url, content, {"Content-Type": media_type}, method="PUT")
    urllib.request.urlopen(request, timeout=20).close()


def _blob(registry: str, repository: str, content: bytes, media_type: str) -> dict[str, Any]:
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    started = urllib.request.urlopen(
        urllib.request.Request(f"http://{registry}/v2/{repository}/blobs/uploads/", b"", method="POST"), timeout=20
    )
    location = started.headers["Location"]
    url = location if location.startswith("http") else f"http://{registry}{location}"
    _put(f"{url}{'&' if '?' in url else '?'}digest={digest}", content, "application/octet-stream")
    return {"mediaType": media_type, "size": len(content), "digest": digest}


def _image(registry: str, repository: str, platform: dict[str, str], *, oci: bool) -> dict[str, Any]:
    config = json.dumps({**platform, "rootfs": {"type": "layers", "diff_ids": []}, "config": {}}).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI if oci else SCHEMA2,
        "config": _blob(registry, repository, config, OCI_CONFIG if oci else CONFIG),
        "layers": [_blob(registry, repository, f"layer of {repository}".encode(), OCI_LAYER if oci else LAYER)],
    }
    raw = json.dumps(manifest, indent=3).encode()
    _put(f"http://{registry}/v2/{repository}/manifests/1", raw, manifest["mediaType"])
    return {
        "mediaType": manifest["mediaType"],
        "size": len(raw),
        "digest": f"sha256:{hashlib.sha256(raw).hexdigest()}",
        "platform": platform,
    }


def fill(registry: str) -> None:
    """Images of two platforms, one of them OCI's, and an index of both."""
    _image(registry, "p/amd", {"architecture": "amd64", "os": "linux"}, oci=False)
    _image(registry, "p/arm", {"architecture": "arm", "os": "linux", "variant": "v7"}, oci=False)
    _image(registry, "p/oci", {"architecture": "arm64", "os": "linux"}, oci=True)
    one = _image(registry, "p/all", {"architecture": "amd64", "os": "linux"}, oci=True)
    two = _image(registry, "p/all", {"architecture": "riscv64", "os": "linux"}, oci=True)
    for tag, media_type, members in (("index", INDEX, [one, two]), ("list", LIST, [one])):
        raw = json.dumps({"schemaVersion": 2, "mediaType": media_type, "manifests": members}).encode()
        _put(f"http://{registry}/v2/p/all/manifests/{tag}", raw, media_type)


def steps(registry: str) -> list[list[str]]:
    """The lines of manifest_cases.txt."""
    lines = Path(__file__).with_name("manifest_cases.txt").read_text().replace("REGISTRY", registry).splitlines()
    return [shlex.split(line) for line in lines if line and not line.startswith("#")]
