"""Manifest lists in the making, where and as docker keeps them: manifests/LIST/MANIFEST, a file for every image of a list."""

from __future__ import annotations

import os
from base64 import b64decode, b64encode

from sampan.cli import fastjson
from sampan.cli.http import CliError
from sampan.cli.registryclient import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, RegistryClient, digest_of
from sampan.errors import InvalidArgument
from sampan.reference import Reference, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.flags import Parsed

    Platform = dict[str, Any]

_KINDS = {DOCKER_MANIFEST: "SchemaV2Manifest", OCI_MANIFEST: "OCIManifest"}
_CONTROLS = bytes(set(range(32)) - set(b"\t\n\r"))
_PLATFORM = ("architecture", "os", "os.version", "os.features", "variant")
_ARCHITECTURES = {
    "darwin": "386 amd64 arm arm64",
    "dragonfly": "amd64",
    "freebsd": "386 amd64 arm",
    "linux": "386 amd64 arm arm64 ppc64le mips64 mips64le riscv64 s390x",
    "netbsd": "386 amd64 arm",
    "openbsd": "386 amd64 arm",
    "plan9": "386 amd64",
    "solaris": "amd64",
    "windows": "386 amd64",
}


def parse_reference(text: str) -> Reference:
    """A reference with `latest` for a tag where it has neither tag nor digest. Raises CliError."""
    try:
        return parse(text).with_default_tag()
    except InvalidArgument as error:
        raise CliError(error.message) from None


def is_known(platform: Platform) -> bool:
    """Whether there is such a machine."""
    return platform.get("architecture") in _ARCHITECTURES.get(str(platform.get("os")), "").split()


class IsList(CliError):
    """What should be one image's is a list's."""


class ImageManifest:
    """An image's manifest, where it is from, and the platform it is for."""

    def __init__(self, reference: str, media_type: str, raw: bytes, platform: Platform) -> None:
        """Raises CliError for what is no manifest of one image."""
        self.reference = reference
        self.media_type = media_type
        self.raw = raw
        self.platform = platform
        try:
            manifest = fastjson.loads(raw)
            blobs = [manifest["config"]["digest"], *(layer["digest"] for layer in manifest.get("layers") or ())]
            if raw.translate(None, _CONTROLS) != raw:
                raise ValueError("control characters, which a terminal would obey")
        except (ValueError, KeyError, TypeError, AttributeError):
            raise CliError(f"the manifest of {reference} cannot be read") from None
        if media_type not in _KINDS or not all(isinstance(one, str) for one in blobs):
            raise CliError(f"unsupported manifest format: {media_type}")
        self.blobs: list[str] = blobs

    def text(self) -> str:
        """As docker writes it down."""
        from sampan.cli.format import gojson

        platform = {key: self.platform[key] for key in _PLATFORM if self.platform.get(key) or key in ("architecture", "os")}
        descriptor = {"mediaType": self.media_type, "digest": digest_of(self.raw), "size": len(self.raw), "platform": platform}
        head = {"Ref": self.reference, "Descriptor": descriptor, "Raw": b64encode(self.raw).decode()}
        manifest = gojson.compact(self.raw.decode("utf-8", "replace"))
        return f"{fastjson.dumps(head)[:-1]},{fastjson.dumps(_KINDS[self.media_type])}:{manifest}}}"

    def entry(self) -> dict[str, Any]:
        """Its place in a list."""
        platform = {key: self.platform[key] for key in _PLATFORM if self.platform.get(key)}
        platform = {"architecture": "", "os": "", **platform}
        return {"mediaType": self.media_type, "size": len(self.raw), "digest": digest_of(self.raw), "platform": platform}


class ManifestStore:
    """The lists of a configuration directory."""

    def __init__(self, options: Parsed) -> None:
        self._root = os.path.join(options.str("config"), "manifests")

    def images(self, target: Reference) -> list[ImageManifest] | None:
        """A list's images in the order of their names; None if there is no such list. Raises CliError."""
        directory = self._path(target)
        try:
            names = sorted(os.listdir(directory))
        except (FileNotFoundError, NotADirectoryError):
            return None
        return [_read(os.path.join(directory, name)) for name in names if not name.startswith(".")]

    def image(self, target: Reference, member: Reference) -> ImageManifest | None:
        """One of a list's images, if it is there. Raises CliError."""
        path = self._path(target, member)
        return _read(path) if os.path.exists(path) else None

    def save(self, target: Reference, member: Reference, image: ImageManifest) -> None:
        """Put an image into a list, which may be new. Raises CliError."""
        from sampan.cli.replacing import replaced, write_all

        path = self._path(target, member)
        try:
            os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
            with replaced(path, 0o644) as file:
                write_all(file, image.text().encode())
        except OSError as error:
            raise CliError(f"open {path}: {(error.strerror or '').lower()}") from None

    def remove(self, target: Reference) -> None:
        """Forget a list. Raises CliError."""
        import shutil

        path = self._path(target)
        try:
            shutil.rmtree(path)
        except OSError as error:
            raise CliError(f"unlinkat {path}: {(error.strerror or '').lower()}") from None

    def _path(self, *references: Reference) -> str:
        return os.path.join(self._root, *(one.canonical.replace(":", "-").replace("/", "_") for one in references))


def _read(path: str) -> ImageManifest:
    try:
        with open(path, "rb") as file:
            found = fastjson.loads(file.read())
        descriptor = found["Descriptor"]
        raw = b64decode(found["Raw"])
        return ImageManifest(str(found["Ref"]), descriptor["mediaType"], raw, dict(descriptor.get("platform") or {}))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CliError(f"{path} cannot be read: {error}") from None


def fetched(client: RegistryClient, reference: Reference) -> ImageManifest:
    """One image's manifest, of the registry. Raises CliError."""
    media_type, raw = client.manifest(reference)
    if media_type in (DOCKER_LIST, OCI_INDEX):
        raise IsList(f"{reference.canonical} is a manifest list")
    image = ImageManifest(reference.canonical, media_type, raw, {})
    try:
        config = fastjson.loads(client.blob(reference.path, image.blobs[0]))
    except ValueError:
        config = None
    if isinstance(config, dict):
        image.platform = {key: config[key] for key in _PLATFORM if config.get(key)}
    return image


def fetched_list(client: RegistryClient, reference: Reference) -> list[ImageManifest]:
    """The images of a list of the registry's. Raises CliError."""
    media_type, raw = client.manifest(reference)
    if media_type not in (DOCKER_LIST, OCI_INDEX):
        raise CliError(f"unsupported manifest format: {media_type}")
    images: list[ImageManifest] = []
    try:
        for one in fastjson.loads(raw)["manifests"]:
            member = reference._replace(digest=str(one["digest"]))
            images.append(ImageManifest(member.canonical, *client.manifest(member), dict(one.get("platform") or {})))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CliError(f"the manifest list of {reference.canonical} cannot be read") from None
    return images


def assembled(target: Reference, images: list[ImageManifest]) -> tuple[str, bytes]:
    """Media type and content of the list. Raises CliError."""
    from sampan.cli.format import gojson

    for image in images:
        domain = parse_reference(image.reference).domain
        if domain != target.domain:
            raise CliError(f"cannot use source images from a different registry than the target image: {domain} != {target.domain}")
    media_type = OCI_INDEX if images and images[0].media_type == OCI_MANIFEST else DOCKER_LIST
    document = {"schemaVersion": 2, "mediaType": media_type, "manifests": [image.entry() for image in images]}
    return media_type, gojson.indent(fastjson.dumps(document), "   ").encode()
