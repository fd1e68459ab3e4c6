"""Answers as JSON, shaped for the version of the API that the client speaks (moby docs/api/version-history.md)."""

from collections.abc import Sequence
from typing import Any

import msgspec

from sampan.api.versions import Version
from sampan.spec.docker_api.image import ImageInspect, ImageSummary
from sampan.spec.docker_api.inspect import ContainerInspect
from sampan.spec.docker_api.system import DiskUsage, SystemInfo

_encoder = msgspec.json.Encoder()
encode = _encoder.encode


def document(value: object) -> bytes:
    """One JSON document and the newline that Go's encoder ends it with."""
    return encode(value) + b"\n"


def image_summaries(images: Sequence[ImageSummary], version: Version) -> bytes:
    """Before 1.43 an untagged image was `<none>:<none>` and an empty list null; before 1.44 VirtualSize; before 1.51 Containers was -1."""
    shown = list(images)
    if version < (1, 51):
        shown = [msgspec.structs.replace(image, containers=-1) for image in shown]
    if version < (1, 44):
        shown = [msgspec.structs.replace(image, virtual_size=image.size) for image in shown]
    if version < (1, 43):
        shown = [
            msgspec.structs.replace(image, repo_tags=["<none>:<none>"], repo_digests=["<none>@<none>"])
            if not image.repo_tags and not image.repo_digests
            else msgspec.structs.replace(image, repo_tags=image.repo_tags or None, repo_digests=image.repo_digests or None)
            for image in shown
        ]
    return document(shown)


def image_inspect(image: ImageInspect, version: Version) -> bytes:
    """Before 1.44 VirtualSize; before 1.45 ContainerConfig; before 1.50 the config had containers' fields as well."""
    if version < (1, 44):
        image = msgspec.structs.replace(image, virtual_size=image.size)
    if version >= (1, 50):
        return document(image)
    value: dict[str, Any] = msgspec.to_builtins(image)
    config = {
        "Hostname": "",
        "Domainname": "",
        "AttachStdin": False,
        "AttachStdout": False,
        "AttachStderr": False,
        "Tty": False,
        "OpenStdin": False,
        "StdinOnce": False,
        "Image": "",
        "User": "",
        "Env": None,
        "Cmd": None,
        "Volumes": None,
        "WorkingDir": "",
        "Entrypoint": None,
        "OnBuild": None,
        "Labels": None,
    }
    value["Config"] = config | (value.get("Config") or {})
    if version < (1, 45):
        value["ContainerConfig"] = config
    return document(value)


def disk_usage(usage: DiskUsage, version: Version) -> bytes:
    """Before 1.44 VirtualSize; before 1.42 the build cache's size by itself too. Here an image without names has null for them."""
    images = usage.images
    if images is not None:
        images = [msgspec.structs.replace(one, repo_tags=one.repo_tags or None, repo_digests=one.repo_digests or None) for one in images]
        if version < (1, 44):
            images = [msgspec.structs.replace(image, virtual_size=image.size) for image in images]
    usage = msgspec.structs.replace(usage, images=images)
    return document(usage if version >= (1, 42) else {**msgspec.to_builtins(usage), "BuilderSize": _builder_size(usage)})


def _builder_size(usage: DiskUsage) -> int:
    return sum(one.size for one in usage.build_cache or () if not one.shared)


def container_inspect(container: ContainerInspect, version: Version) -> bytes:
    """Before 1.45 an endpoint's aliases held the short ID; before 1.44 the MAC address was in Config."""
    if version >= (1, 45):
        return document(container)
    replace = msgspec.structs.replace
    settings, config = container.network_settings, container.config
    networks: dict[str, Any] = dict(settings.networks)
    for name, endpoint in settings.networks.items():
        if name not in ("bridge", "host", "none"):
            networks[name] = endpoint = replace(endpoint, aliases=[*(endpoint.aliases or ()), container.id[:12]])
    if version < (1, 44):
        config = replace(config, mac_address=config.mac_address or settings.mac_address)
    return document(replace(container, config=config, network_settings=replace(settings, networks=networks)))


def system_info(info: SystemInfo, version: Version) -> bytes:
    """Before 1.50 BridgeNf* and no devices; before 1.49 no firewall, *Commit.Expected and two more lists of registries;
    before 1.42 KernelMemory; before 1.25 security options as bare names."""
    if version >= (1, 50):
        return document(info)
    value: dict[str, Any] = msgspec.to_builtins(info)
    value.pop("DiscoveredDevices", None)
    value["BridgeNfIptables"] = value["BridgeNfIp6tables"] = False
    if version < (1, 49):
        value.pop("FirewallBackend", None)
        for commit in ("ContainerdCommit", "RuncCommit", "InitCommit"):
            if value[commit]["ID"]:
                value[commit]["Expected"] = value[commit]["ID"]
        for kind in ("CIDRs", "Hostnames") if value["RegistryConfig"] else ():
            value["RegistryConfig"][f"AllowNondistributableArtifacts{kind}"] = None
    if version < (1, 42):
        value["KernelMemory"] = info.memory_limit
    if version < (1, 25):
        value["SecurityOptions"] = [
            part.removeprefix("name=") for option in info.security_options for part in option.split(",") if part.startswith("name=")
        ]
    return document(value)
